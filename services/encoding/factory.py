"""What makes a replica's encoder, in the replica's process. Knows no Ray; torch is imported where a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from encoder.interface import StreamingEncoder
from services.machine.local_machine import usable_cores

# Of Unix: where both want all cores, queries and other processes get nine tenths of them, passages one tenth.
_PASSAGES_NICENESS = 10


class EncoderFactory(Protocol):
    """Makes a replica's encoder, in the replica's process. Travels there pickled."""

    def __call__(self) -> StreamingEncoder:
        """Load the model."""


@dataclass(frozen=True, slots=True)
class LocalEncoderFactory:
    """Loads a model folder into the process; replicas on a machine share its cores evenly unless told otherwise."""

    folder: Path
    device: str
    threads: int | None
    replicas: int
    beside_queries: bool = False  # whether passages give way to queries and to other processes
    eight_bits: bool | None = None  # whether products round their factors; None: on a CPU

    def __call__(self) -> StreamingEncoder:
        """Load the model; :class:`encoder.errors.CheckpointError` where the folder is not whole."""
        from encoder.local import LocalEncoder  # torch: only where a model runs

        threads = self.threads or max(1, usable_cores() // self.replicas)
        niceness = _PASSAGES_NICENESS if self.beside_queries else 0
        return LocalEncoder.load(
            self.folder,
            device=self.device,
            threads=threads,
            passages_niceness=niceness,
            eight_bits=self.eight_bits,
        )
