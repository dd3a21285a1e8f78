"""A part's rows into bundles of cut documents: read, checked, each id once. Encodes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from encoder.errors import InvalidInput
from ingest.bulk.documents import Bundle, DeadLetter, cut_document
from ingest.bulk.parts import Part, read_part
from ingest.chunking import Chunker
from ingest.documents import Document, check_document
from ingest.index.interface import DocumentKey
from ingest.receipts import LoadError
from ingest.seen import hash_key

# Rows whose ids are looked up together.
GROUP_ROWS = 256
GROUP_CHARS = 4 * 1024 * 1024
# About a second of work for a GPU; a longer document is a bundle of its own.
BUNDLE_TOKENS = 131_072
BUNDLE_DOCUMENTS = 2048

# Hashes of keys and places of rows to the place that has each key already, empty where it is this one.
Claim = Callable[[Sequence[tuple[bytes, str]]], list[str]]


class Cutter:
    """Reads parts."""

    def __init__(self, chunker: Chunker, claim: Claim, bundle_tokens: int = BUNDLE_TOKENS) -> None:
        self._chunker = chunker
        self._claim = claim
        self._bundle_tokens = bundle_tokens

    def cut(self, number: int, part: Part) -> Iterator[Bundle]:
        """Give a part's bundles, at least one; the last says so. ``number`` is the part's."""
        bundle, tokens = Bundle(number, 0, last=False), 0
        for group in _groups(read_part(part)):
            for document, key in self._check(bundle, part, group):
                full = tokens >= self._bundle_tokens or len(bundle.documents) >= BUNDLE_DOCUMENTS
                if full or (tokens and len(document.text) > self._bundle_tokens * 4):
                    yield bundle
                    bundle, tokens = Bundle(number, bundle.number + 1, last=False), 0
                bundle.hashes.append(key)
                tokens += self._add(bundle, document)
        bundle.last = True
        yield bundle

    def _check(
        self, bundle: Bundle, part: Part, group: Sequence[tuple[int, Document | LoadError]]
    ) -> list[tuple[Document, bytes]]:
        """Keep the documents that are within their limits and the first of their id; the others are dead letters.

        With the hash of its key each.
        """
        sound: list[tuple[int, Document]] = []
        for row, item in group:
            if isinstance(item, LoadError):
                if item.source == part.file.source:  # not of a row: what follows cannot be read
                    bundle.failure = str(item.error)
                else:
                    bundle.dead.append(DeadLetter(item.source, "", "read", str(item.error)))
                continue
            try:
                check_document(item)
            except InvalidInput as error:
                bundle.dead.append(_dead(item, "check", str(error)))
            else:
                sound.append((row, item))
        keys = [hash_key(DocumentKey(item.tenant, item.document_id)) for _, item in sound]
        claims = [(key, f"row {row} of {part.name}") for key, (row, _) in zip(keys, sound, strict=True)]
        found = []
        owners = self._claim(claims) if claims else []
        for (_, item), key, owner in zip(sound, keys, owners, strict=True):
            if owner:
                reason = f"document_id {item.document_id!r} is that of {owner}, too; give each row another."
                bundle.dead.append(_dead(item, "check", reason))
            else:
                found.append((item, key))
        return found

    def _add(self, bundle: Bundle, document: Document) -> int:
        """Cut a document and put it into a bundle; say how many tokens it has."""
        try:
            cut = cut_document(document, self._chunker)
        except InvalidInput as error:
            bundle.dead.append(_dead(document, "cut", str(error)))
            return 0
        bundle.documents.append(cut)
        return cut.record.token_count


def _groups(
    items: Iterator[Document | LoadError],
) -> Iterator[list[tuple[int, Document | LoadError]]]:
    """Join rows, each with its number from 1, up to a number of rows and of characters."""
    group: list[tuple[int, Document | LoadError]] = []
    chars = 0
    for row, item in enumerate(items, 1):
        group.append((row, item))
        chars += len(item.text) if isinstance(item, Document) else 0
        if len(group) >= GROUP_ROWS or chars >= GROUP_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group


def _dead(document: Document, stage: str, reason: str) -> DeadLetter:
    return DeadLetter(document.source, document.document_id, stage, reason)
