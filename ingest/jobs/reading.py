"""The documents of a job's sources that it is not yet done with, read anew from the beginning by each attempt."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from encoder.errors import InvalidInput
from ingest.documents import DEFAULT_TENANT, Document
from ingest.jobs.dead_letters import Places
from ingest.jobs.requests import JobRequest
from ingest.loaders import load_documents
from ingest.read_ahead import Item, ReadAhead
from ingest.receipts import LoadError
from ingest.sources.policy import WEB_SCHEMES, SourcePolicy

_HASH_BYTES = 16


class JobItems(AsyncIterator[Item]):
    """What an attempt has yet to ingest, in order.

    Whoever stops iterating may go on later, or another: nothing is lost between the two, and what was given out and not
    taken back by :meth:`done` is in ``under_way``.
    """

    def __init__(self, ahead: ReadAhead, settled: Callable[[Sequence[bytes]], Awaitable[set[bytes]]]) -> None:
        """``settled`` says which items the job is done with, by their names."""
        self._ahead = ahead
        self._settled = settled
        self._unchecked: list[Item] = []
        self._ready: deque[Item] = deque()
        self.under_way: deque[Item] = deque()

    async def __anext__(self) -> Item:
        """Give the next item; raises what reading raised, once all before it has been given."""
        while not self._ready:
            if not self._unchecked:
                self._unchecked = await self._ahead.next_group()
            if not self._unchecked:
                raise StopAsyncIteration
            settled = await self._settled([name_of(item) for item in self._unchecked])
            self._ready.extend(item for item in self._unchecked if name_of(item) not in settled)
            self._unchecked = []
        item = self._ready.popleft()
        self.under_way.append(item)
        return item

    def done(self) -> Item:
        """Take back the first item that was given out."""
        return self.under_way.popleft()


def read_items(
    request: JobRequest, policy: SourcePolicy, places: Places | None, check_tenant: Callable[[str], None]
) -> Iterator[Item]:
    """Read what a job's sources hold, or, of a replay, what is at its places; give it as the request wants it."""
    if places is None:
        for item in load_documents(request.sources, policy=policy):
            yield _as_wanted(item, request, check_tenant)
        return
    whole = [source for source in request.sources if places.find(source)]
    parts = [source for source in request.sources if source not in whole and not _is_of_web(source)]
    for sources, wanted in ((whole, None), (parts, places.may_hold)):
        for item in load_documents(sources, policy=policy, wanted=wanted):
            if places.find(place_of(item)) or wanted is None:
                yield _as_wanted(item, request, check_tenant)


def name_of(item: Item) -> bytes:
    """Name an item among all of a job: a document by its id, what is none by its place."""
    parts = ("document", item.tenant) if isinstance(item, Document) else ("error", item.source)
    key = "\0".join((*parts, item.document_id))
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


def place_of(item: Item) -> str:
    """Say where an item was read."""
    return item.place if isinstance(item, Document) else item.source


def _is_of_web(source: str) -> bool:
    """Say whether a source is one file, which is fetched to be looked at."""
    return source.partition("://")[0].lower() in WEB_SCHEMES


def _as_wanted(item: Item, request: JobRequest, check_tenant: Callable[[str], None]) -> Item:
    if isinstance(item, LoadError):
        return item
    tenant = request.tenant if request.tenant and item.tenant == DEFAULT_TENANT else item.tenant
    if request.tenant and tenant != request.tenant:
        message = f"{item.place}: tenant is {tenant[:80]!r}, but the job is {request.tenant!r}'s; correct one of both."
        return LoadError(item.place, InvalidInput("tenant", message), item.document_id)
    try:
        check_tenant(tenant)
    except InvalidInput as error:
        return LoadError(item.place, error, item.document_id)
    return replace(item, tenant=tenant, metadata={**item.metadata, **request.metadata})
