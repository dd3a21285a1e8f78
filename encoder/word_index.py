"""Known words found by their bytes, all words of many texts at once in numpy. Knows no tokenizer.

A Python object for each word takes longer than all else about it, and keeps other threads from running. So words stay
slices of UTF-8; one of at most :data:`WORD_BYTES_MAX` bytes is exactly two numbers, and those are looked up in a hash
table with linear probing.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD_BYTES_MAX = 15
UNKNOWN = -1
# Who is not within so many places of where it belongs is not in the index; whatever words someone sends, none is far.
_PROBES_MAX = 16
_SLOTS_MIN = 1024

_BLANK, _SIGN, _LETTER = 0, 1, 2
# The kind of each byte of UTF-8. A character beyond ASCII never divides here, and all its bytes are above 127.
_KINDS = np.array(
    [
        _BLANK if byte in b" \t\n\r" else _SIGN if byte in string.punctuation.encode() else _LETTER
        for byte in range(256)
    ],
    dtype=np.uint8,
)
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], dtype=np.uint64)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hashing: 2 ** 64 over the golden ratio


class Words(NamedTuple):
    """Where the words of a text stand, in bytes."""

    begins: NDArray[np.int64]  # (words,)
    ends: NDArray[np.int64]  # (words,), exclusive


class Keys(NamedTuple):
    """Words of at most :data:`WORD_BYTES_MAX` bytes: the first eight, and the others with their number at the top.

    Equal keys are equal words. The second is 0 for longer words, and for no other.
    """

    first: NDArray[np.uint64]  # (words,)
    second: NDArray[np.uint64]  # (words,)

    def at(self, places: NDArray[np.integer]) -> Keys:
        """Give some of them."""
        return Keys(self.first[places], self.second[places])


def divide(data: bytes) -> Words:
    """Divide UTF-8 text at blanks and signs of ASCII; a sign is a word of its own."""
    kinds = _KINDS.take(np.frombuffer(data, dtype=np.uint8))
    sign, letter = kinds == _SIGN, kinds == _LETTER
    begins, ends = kinds != _BLANK, kinds != _BLANK
    begins[1:] &= sign[1:] | ~letter[:-1]
    ends[:-1] &= sign[:-1] | ~letter[1:]
    return Words(np.flatnonzero(begins), np.flatnonzero(ends) + 1)


def keys_of(data: bytes, words: Words) -> Keys:
    """Read words' keys out of their text."""
    padded = data + bytes(2 * 8)
    # Eight bytes from each place on, as one number.
    eights = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,))
    sizes = words.ends - words.begins
    first = eights[words.begins] & _FIRST_BYTES[np.minimum(sizes, 8)]
    second = eights[words.begins + 8] & _FIRST_BYTES[np.clip(sizes - 8, 0, 7)]
    second |= sizes.astype(np.uint64) << np.uint64(56)
    long = np.flatnonzero(sizes > WORD_BYTES_MAX)
    first[long] = second[long] = 0
    return Keys(first, second)


@dataclass(frozen=True, slots=True)
class WordIndex:
    """The numbers of some words. Never changes, so many threads may use it; :meth:`with_words` gives a larger one."""

    _keys: Keys  # (slots,), a power of 2; all 0 where a slot is free
    _numbers: NDArray[np.int32]  # (slots,)
    _seed: np.uint64  # odd, and known to nobody who sends words
    _count: int

    @classmethod
    def empty(cls) -> WordIndex:
        """Give an index without words."""
        return cls._with_slots(_SLOTS_MIN, np.uint64(secrets.randbits(64) | 1))

    @classmethod
    def _with_slots(cls, count: int, seed: np.uint64) -> WordIndex:
        nothing = Keys(np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64))
        return cls(nothing, np.full(count, UNKNOWN, dtype=np.int32), seed, 0)

    def find(self, keys: Keys) -> NDArray[np.int32]:
        """Give words' numbers ``(words,)``, :data:`UNKNOWN` for those that are not here."""
        slots = self._slots(keys)
        found = self._hits(keys, slots)
        # A slot that another word has: this one may stand behind it.
        sought = np.flatnonzero((found == UNKNOWN) & (self._keys.second[slots] != 0) & (keys.second != 0))
        keys, slots = keys.at(sought), slots[sought]
        for _ in range(1, _PROBES_MAX):
            if not sought.size:
                break
            slots = self._next(slots)
            found[sought] = self._hits(keys, slots)
            left = np.flatnonzero((found[sought] == UNKNOWN) & (self._keys.second[slots] != 0))
            sought, keys, slots = sought[left], keys.at(left), slots[left]
        return found

    def with_words(self, keys: Keys, numbers: NDArray[np.integer]) -> WordIndex:
        """Give an index that has these words, too; long ones are left out, those that are here already do no harm."""
        _, places = np.unique(numbers, return_index=True)
        places = places[(keys.second[places] != 0) & (self.find(keys.at(places)) == UNKNOWN)]
        keys, added = keys.at(places), numbers[places].astype(np.int32)
        count = self._count + len(added)
        slots = len(self._numbers)
        if 2 * count > slots:
            here = np.flatnonzero(self._numbers != UNKNOWN)
            keys = Keys(*map(np.concatenate, zip(self._keys.at(here), keys, strict=True)))
            added = np.concatenate([self._numbers[here], added])
            larger = WordIndex._with_slots(1 << (4 * count - 1).bit_length(), self._seed)
        else:
            copies = Keys(self._keys.first.copy(), self._keys.second.copy())
            larger = WordIndex(copies, self._numbers.copy(), self._seed, count)
        larger._place(keys, added)
        return WordIndex(larger._keys, larger._numbers, self._seed, count)

    def _place(self, keys: Keys, numbers: NDArray[np.int32]) -> None:
        """Write words, none of which is here, into free slots."""
        slots = self._slots(keys)
        for _ in range(_PROBES_MAX):
            # One of those that want the same free slot.
            _, chosen = np.unique(slots, return_index=True)
            chosen = chosen[self._numbers[slots[chosen]] == UNKNOWN]
            self._keys.first[slots[chosen]], self._keys.second[slots[chosen]] = keys.at(chosen)
            self._numbers[slots[chosen]] = numbers[chosen]
            left = np.ones(len(numbers), dtype=bool)
            left[chosen] = False
            keys, numbers, slots = keys.at(np.flatnonzero(left)), numbers[left], self._next(slots[left])

    def _hits(self, keys: Keys, slots: NDArray[np.int64]) -> NDArray[np.int32]:
        equal = (self._keys.first[slots] == keys.first) & (self._keys.second[slots] == keys.second)
        return np.where(equal, self._numbers[slots], np.int32(UNKNOWN))

    def _slots(self, keys: Keys) -> NDArray[np.int64]:
        """Say where words belong, ``(words,)``."""
        mixed = keys.first * self._seed + keys.second * _MIX  # wraps around
        mixed ^= mixed >> np.uint64(32)
        mixed *= _MIX
        bits = len(self._numbers).bit_length() - 1
        return (mixed >> np.uint64(64 - bits)).astype(np.int64)

    def _next(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return (slots + 1) & (len(self._numbers) - 1)
