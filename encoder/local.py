"""The model in this process behind the asynchronous :class:`encoder.interface.Encoder`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from encoder.interface import Encoded, EncoderInfo
from encoder.text_encoder import TextEncoder


class LocalEncoder:
    """Runs a :class:`TextEncoder` in one thread of its own, so that forward passes never block the event loop."""

    def __init__(self, text_encoder: TextEncoder) -> None:
        self._text_encoder = text_encoder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", threads: int | None = None) -> LocalEncoder:
        """Load a model folder; ``threads`` are the CPU cores it may use (all of the machine's unless given)."""
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(TextEncoder.load(folder, device=device))

    async def info(self) -> EncoderInfo:
        """Say which model encodes, and its limits."""
        return self._text_encoder.info

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Encode search queries."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._text_encoder.encode_queries, queries)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._text_encoder.encode_passages, passages)

    async def close(self) -> None:
        """Wait for the running forward pass and end the thread."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
