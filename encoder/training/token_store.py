"""Token ids of many texts on disk, read through memory maps: never all in memory. Knows no text, no model.

A store is a folder with two files: ``values.<dtype>``, all rows end to end, and ``starts.npy``, where each row begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from encoder.errors import InvalidInput

Tokens = NDArray[np.int64]  # ids
Numbers = NDArray[np.int64]  # lengths, places, numbers of texts

_STARTS_FILE = "starts.npy"
_VALUES_STEM = "values"
_DTYPES = ("uint16", "uint32", "int32", "float32")
VOCABULARY_MAX = 2**32


def token_dtype(vocabulary_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """Choose the smallest type that holds every id; :class:`InvalidInput` for a vocabulary over 2^32."""
    if vocabulary_size > VOCABULARY_MAX:
        raise InvalidInput(
            "tokenizer", f"the tokenizer has {vocabulary_size} tokens; a store holds ids below {VOCABULARY_MAX}."
        )
    return np.dtype(np.uint16) if vocabulary_size <= 2**16 else np.dtype(np.uint32)


class RaggedArray:
    """Rows of different lengths end to end; row ``i`` is ``values[starts[i]:starts[i + 1]]``."""

    def __init__(self, values: NDArray[Any], starts: NDArray[np.int64]) -> None:
        self.values = values  # (all rows,)
        self.starts = starts  # (rows + 1,)
        self._folder: Path | None = None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a folder; :class:`InvalidInput` where it is none of ours, or cut short."""
        files = [path for path in sorted(folder.glob(f"{_VALUES_STEM}.*")) if path.suffix[1:] in _DTYPES]
        if len(files) != 1 or not (folder / _STARTS_FILE).is_file():
            raise InvalidInput("cache", f"{folder} is no token store; delete the cache folder and prepare it again.")
        starts: NDArray[np.int64] = np.load(folder / _STARTS_FILE, mmap_mode="r")
        dtype = np.dtype(files[0].suffix[1:])
        found, wanted = files[0].stat().st_size, int(starts[-1]) * dtype.itemsize
        if found != wanted:
            raise InvalidInput(
                "cache",
                f"{files[0]} has {found} bytes where {wanted} belong; delete the cache folder and prepare it again.",
            )
        # An empty file cannot be mapped.
        values = np.memmap(files[0], dtype=dtype, mode="r") if wanted else np.empty(0, dtype=dtype)
        opened = cls(values, starts)
        opened._folder = folder
        return opened

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what is mapped as its folder's name: another process maps it again."""
        return (type(self).open, (self._folder,)) if self._folder else (type(self), (self.values, self.starts))

    @classmethod
    def of(cls, rows: Sequence[Sequence[float] | NDArray[Any]], dtype: DTypeLike) -> Self:
        """Join rows in memory."""
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        joined = [np.asarray(row, dtype=dtype) for row in rows]
        return cls(np.concatenate(joined) if joined else np.empty(0, dtype=dtype), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.values[self.starts[row] : self.starts[row + 1]]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each row, ``(rows,)``."""
        return np.diff(self.starts)


class TokenStore(RaggedArray):
    """Texts as token ids, without special tokens."""

    def cut(
        self, begins: NDArray[np.int64], lengths: NDArray[np.int64], width: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take windows that begin at flat positions ``begins (b,)``, of ``lengths (b,)`` tokens.

        Gives tokens ``(b, width)``, right-padded with zeros, and what of each length fits, ``(b,)``.
        """
        lengths = np.minimum(lengths, width)
        tokens = np.zeros((len(begins), width), dtype=np.int64)
        inside = np.arange(width) < lengths[:, None]
        steps = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        tokens[inside] = self.values[np.repeat(begins, lengths) + steps]
        return tokens, lengths

    def texts(self, numbers: NDArray[np.integer], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take the first ``width`` tokens of texts by number ``(b,)``; the result is :meth:`cut`'s."""
        numbers = np.asarray(numbers, dtype=np.int64)
        return self.cut(np.asarray(self.starts[numbers]), self.lengths[numbers], width)


class RaggedWriter:
    """Writes rows as they come; the folder can be opened after :meth:`close`."""

    def __init__(self, folder: Path, dtype: DTypeLike) -> None:
        self._folder = folder
        self._dtype = np.dtype(dtype)
        if self._dtype.name not in _DTYPES:
            raise ValueError(f"a store cannot hold {self._dtype.name}")
        folder.mkdir(parents=True)
        self._file = (folder / f"{_VALUES_STEM}.{self._dtype.name}").open("wb")
        self._lengths: list[NDArray[np.int64]] = []

    def extend(self, values: NDArray[Any], lengths: NDArray[np.integer]) -> None:
        """Append rows that lie end to end in ``values``."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._lengths.append(np.asarray(lengths, dtype=np.int64))

    def close(self) -> None:
        """Write where the rows begin."""
        self._file.close()
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, dtype=np.int64)
        starts = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        np.save(self._folder / _STARTS_FILE, starts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
