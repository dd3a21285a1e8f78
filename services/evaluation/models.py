"""Loads what is measured: a model of ours, or one of sentence-transformers; both with their number of parameters."""

from __future__ import annotations

import asyncio
from pathlib import Path

from encoder.interface import Encoder
from services.in_process import load_encoder
from services.settings import CommandSettings


async def load_with_parameters(settings: CommandSettings) -> tuple[Encoder, int]:
    """Load the model that the settings name; errors as :func:`services.in_process.load_encoder`."""
    encoder = await load_encoder(settings)
    from encoder.checkpoint import build_empty
    from encoder.layouts.opening import open_model

    # Counted on an empty model: paths keep weights in forms of their own.
    empty = build_empty(open_model(settings.model).config)
    return encoder, sum(parameter.numel() for parameter in empty.parameters())


async def load_sentence_transformers(folder: Path, settings: CommandSettings) -> tuple[Encoder, int]:
    """Load a folder of sentence-transformers onto the device of the settings, in a thread: it takes seconds."""
    from encoder.evaluation.sentence_transformers_encoder import SentenceTransformersEncoder

    encoder = await asyncio.to_thread(
        SentenceTransformersEncoder.load, folder, device=settings.encoder_device, threads=settings.encoder_threads
    )
    return encoder, encoder.parameters
