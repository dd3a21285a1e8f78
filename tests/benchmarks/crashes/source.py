"""What a client wants to be in the index: versions of documents, some of them deletions, and what was acknowledged."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

POISON = "unencodable"  # a word that the encoder of these tests refuses
DELETED_SHARE = 0.15  # of new versions
POISONED_SHARE = 0.03  # of what is sent, beside the versions
STREAM_DOCUMENTS = 40
GROWN_PARTS_MAX = 45  # then it begins anew: a search shows 50 chunks


@dataclass(slots=True)
class Source:
    """The newest version of each document: below 0 where it is to be deleted. Half of them are sent to each worker."""

    documents: int
    random: random.Random
    wanted: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    receipts: Counter[str] = field(default_factory=Counter)
    fenced: int = 0  # documents of which a worker heard that another had taken them over

    def __post_init__(self) -> None:
        self.wanted = {f"document-{number}": 1 for number in range(self.documents)}

    def missing(self, share: int = 0, shares: int = 1) -> list[str]:
        """Name the documents of a share whose newest version has no receipt."""
        return [
            name
            for number, (name, version) in enumerate(self.wanted.items())
            if number % shares == share and self.acknowledged.get(name) != version
        ]

    def next_versions(self, share: int, shares: int, *, renew: bool) -> list[tuple[str, int]]:
        """Choose what to send of a share: what is missing, and else, to ``renew``, new versions of some."""
        if renew and len(self.missing(share, shares)) < STREAM_DOCUMENTS:
            own = list(self.wanted)[share::shares]
            for name in self.random.sample(own, min(STREAM_DOCUMENTS, len(own))):
                version = abs(self.wanted[name]) + 1
                self.wanted[name] = -version if self.random.random() < DELETED_SHARE else version
        missing = self.missing(share, shares)
        chosen = self.random.sample(missing, min(STREAM_DOCUMENTS, len(missing)))
        return [(name, self.wanted[name]) for name in chosen]

    def texts(self, versions: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
        """Write the versions that are no deletions, and among them some texts that will be refused."""
        found = []
        for name, version in versions:
            if version > 0:
                found.append((name, self.text(name, version)))
            if self.random.random() < POISONED_SHARE:
                found.append((f"poisoned-{name}", f"{self.text(name, abs(version))} {POISON}"))
        return found

    def text(self, name: str, version: int) -> str:
        """Write a version: some chunks, all of which say whose and which they are; one that grows adds a few."""
        number = int(name.rpartition("-")[2])
        if grows(name):
            words = f"The {word(name)} adds to its log, as it does each night, part"
            return "\n\n".join(f"{words} {part}." for part in range(1 + (3 * version + number) % GROWN_PARTS_MAX))
        words = f"The {word(name)} of version v{version}x keeps its lamp lit through the night, part"
        return "\n\n".join(f"{words} {part}." for part in range(1 + (7 * number + 5 * version) % 60))


def grows(name: str) -> bool:
    """Say whether a document's versions each begin with the one before, as every third does."""
    return int(name.rpartition("-")[2]) % 3 == 0


def word(name: str) -> str:
    """Give a document's own word, which no other one has."""
    return f"lamp{name.rpartition('-')[2]}keeper"
