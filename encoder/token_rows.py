"""Rows of tokens as a model reads them, made for many texts at once. Knows no tokenizer.

All rows of a call lie in one array, and each is a view into it: a Python object for each token would take longer than
the model on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encoder.document_reader import check_ids
from encoder.document_slices import TokenIds, integers
from encoder.errors import InvalidInput
from encoder.interface import TokenRow

# Of arrays whose ids fit into 64 bits with a sign, as they are.
_PLAIN = {np.dtype(kind) for kind in (np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.int64)}


def frame(
    ids: NDArray[np.integer], ends: NDArray[np.integer], *, before: Sequence[int] = (), after: Sequence[int] = ()
) -> list[TokenRow]:
    """Cut ``ids (l,)`` into rows that end at ``ends (n,)``, with special tokens ``before`` and ``after`` each."""
    if len(ends) == 1:  # a query: sooner than any detour
        return [np.array([*before, *ids.tolist(), *after], dtype=np.int32)]
    extra = len(before) + len(after)
    row_ends = ends + extra * np.arange(1, len(ends) + 1)
    if extra:
        tokens = np.empty(len(ids) + extra * len(ends), dtype=np.int32)
        ordinary = np.ones(len(tokens), dtype=bool)
        row_begins = np.concatenate([[0], row_ends[:-1]])
        for places, special in ((row_begins, before), (row_ends - len(after), after)):
            for step, token in enumerate(special):
                ordinary[places + step] = False
                tokens[places + step] = token
        tokens[ordinary] = ids
    else:
        tokens = ids.astype(np.int32, copy=False)
    bounds = [0, *row_ends.tolist()]
    return [tokens[begin:end] for begin, end in pairwise(bounds)]


def join_ids(
    field: str, passages: Sequence[TokenIds], vocabulary_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay passages' ids end to end, ``(l,)``, with their ends, ``(n,)``; fast for arrays.

    :class:`InvalidInput` names ``field[i]`` where one is no flat list of integers, is empty, or holds an id outside the
    vocabulary.
    """
    arrays = [_integers(f"{field}[{number}]", passage) for number, passage in enumerate(passages)]
    ids = np.concatenate(arrays, dtype=np.int64)
    ends = np.cumsum([len(array) for array in arrays])
    outside = (ids < 0) | (ids >= vocabulary_size)
    empty = next((number for number, array in enumerate(arrays) if not len(array)), len(arrays))
    wrong = int(np.searchsorted(ends, outside.argmax(), side="right")) if outside.any() else len(arrays)
    if empty < min(wrong, len(arrays)):
        raise InvalidInput(f"{field}[{empty}]", f"{field}[{empty}] is empty.")
    if wrong < len(arrays):
        name = f"{field}[{wrong}]"
        try:
            check_ids("token_ids", arrays[wrong].astype(np.int64), vocabulary_size)
        except InvalidInput as error:
            raise InvalidInput(name, f"{name}: {error}") from None
    return ids, ends


def _integers(name: str, ids: TokenIds) -> NDArray[np.integer]:
    if isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype in _PLAIN:
        return ids
    return integers(name, ids)
