"""Which documents a run has seen: of several with one id, the first is read."""

from __future__ import annotations

from encoder.errors import InvalidInput
from ingest.documents import Document
from ingest.index.interface import DocumentKey
from ingest.seen import FirstPlaces, hash_key

CACHE_KIB = 8192


class SeenDocuments:
    """The ids of documents, each with where it came from first."""

    def __init__(self) -> None:
        self._places = FirstPlaces(cache_kib=CACHE_KIB)

    def close(self) -> None:
        """Forget all of them."""
        self._places.close()

    def add(self, document: Document) -> None:
        """Note a document; :class:`InvalidInput` names the source that gave one of this id before."""
        digest = hash_key(DocumentKey(document.tenant, document.document_id))
        source = document.place.encode("utf-8", "replace").decode()
        if self._places.note([(digest, source)]):
            return
        first = self._places.of(digest)
        if first == source:
            message = f"{source} was read before, as {document.document_id!r}; give it once."
        else:
            message = f"{source} has the same document_id, {document.document_id!r}, as {first}; give it another."
        raise InvalidInput("document_id", message)
