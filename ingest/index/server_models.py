"""Our dataclasses as the models of qdrant-client: points to write, filters to choose by. Knows no server."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from encoder.errors import IndexUnavailable
from ingest.index import points
from ingest.index.interface import (
    DocumentKey,
    Generations,
    IndexedChunk,
    ReadConsistency,
    Scope,
    SparseVector,
)
from ingest.index.narrowing import Condition, Every, HasId, HasIdPrefix, HasToken, Some, Within, Without, narrow

# Of each write of a record or tombstone its own, so that the next one can be made on condition that none came between.
REVISION = "revision"
COMMITTED = "committed"  # of a chunk, whether its generation is

WITHOUT_FIELDS = models.PayloadSelectorExclude(exclude=[points.TOKENS, points.RANGES, COMMITTED])

GENERATIONS_ALONE = models.PayloadSelectorInclude(
    include=[points.KIND, points.DOCUMENT_ID, points.GENERATION, points.EARLIER]
)


def chunk_point(indexed: IndexedChunk) -> models.PointStruct:
    """Write a chunk."""
    chunk = indexed.chunk
    vectors: dict[str, models.Vector] = {points.DENSE: indexed.embedding.tolist()}
    if len(indexed.sparse.indices):
        vectors[points.SPARSE] = sparse_vector(indexed.sparse)
    return models.PointStruct(
        id=points.chunk_point_id(chunk.chunk_key), vector=vectors, payload=points.chunk_payload(indexed)
    )


def embedding_of(record: models.Record) -> NDArray[np.float32]:
    """Read a chunk's embedding ``(d,)``; :class:`IndexUnavailable` where the server left it out."""
    if not isinstance(record.vector, dict):
        raise IndexUnavailable(f"Qdrant gave point {record.id} without its vectors; its log may say why.")
    return np.array(record.vector[points.DENSE], np.float32)


def read_consistency(consistency: ReadConsistency) -> models.ReadConsistencyType | None:
    """Say how many copies are to be asked; None: as the server does unless told."""
    return None if consistency is ReadConsistency.DEFAULT else models.ReadConsistencyType(consistency.value)


def sparse_vector(sparse: SparseVector) -> models.SparseVector:
    """Write term weights."""
    return models.SparseVector(indices=sparse.indices.tolist(), values=sparse.values.tolist())


def matching(field: str, value: str | int) -> models.FieldCondition:
    """Choose points by the value of a field."""
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def records_of(tenant: str | None) -> models.Filter:
    """Choose a tenant's records, or those of all."""
    of_tenant = [] if tenant is None else [matching(points.TENANT, tenant)]
    return models.Filter(must=[*of_tenant, matching(points.KIND, points.KIND_RECORD)])


def among(values: Collection[int]) -> models.FieldCondition:
    """Choose points of some generations."""
    return models.FieldCondition(key=points.GENERATION, match=models.MatchAny(any=list(values)))


def chunks_of(key: DocumentKey, generations: Collection[int]) -> models.Filter:
    """Choose a document's chunks of some generations."""
    return models.Filter(must=[*_document(key), among(generations)])


def chunks_below(key: DocumentKey, below: int, keep: Collection[int]) -> models.Filter:
    """Choose a document's chunks of all generations before one, but those to keep."""
    older = models.FieldCondition(key=points.GENERATION, range=models.Range(lt=below))
    return models.Filter(must=[*_document(key), older], must_not=[among(keep)] if keep else None)


def in_scope(scope: Scope) -> models.Filter:
    """Choose the chunks that a search looks at, among points with vectors."""
    must: list[models.Condition] = [matching(points.TENANT, scope.tenant)]
    if scope.filter is not None:
        must.append(chosen(narrow(scope.filter)))
    only = None if scope.generations is None else _versions(scope.generations)
    return models.Filter(must=must, should=only, must_not=_versions(scope.without) or None)


def committed_of(tenant: str) -> models.Filter:
    """Choose a tenant's committed chunks, of which BM25's statistics are."""
    return models.Filter(must=[matching(points.TENANT, tenant), matching(COMMITTED, points.YES)])


def left_behind(key: DocumentKey, kept: Collection[int], below: int) -> models.Filter:
    """Choose a document's chunks that count as committed, of generations before one, but those kept."""
    older = models.FieldCondition(key=points.GENERATION, range=models.Range(lt=below))
    return models.Filter(
        must=[*_document(key), matching(COMMITTED, points.YES), older], must_not=[among(kept)] if kept else None
    )


def points_of(ids: Sequence[str]) -> models.Filter:
    """Choose those of some points that exist."""
    return models.Filter(must=[models.HasIdCondition(has_id=list(ids))])


def chosen(condition: Condition) -> models.Condition:
    """Choose chunks by what they carry of their documents."""
    match condition:
        case HasToken(tokens):
            return models.FieldCondition(key=points.TOKENS, match=models.MatchAny(any=list(tokens)))
        case HasId(document_ids):
            return models.FieldCondition(key=points.DOCUMENT_ID, match=models.MatchAny(any=list(document_ids)))
        case HasIdPrefix(prefix):
            return models.FieldCondition(key=points.DOCUMENT_ID, match=models.MatchPrefix(prefix=prefix))
        case Within(name, above, at_least, below, at_most):
            bounds = models.Range(gt=above, gte=at_least, lt=below, lte=at_most)
            return models.FieldCondition(key=points.range_path(name), range=bounds)
        case Every(()):
            return matching(points.KIND, points.KIND_CHUNK)
        case Every(parts):
            return models.Filter(must=[chosen(part) for part in parts])
        case Some(parts):
            return models.Filter(should=[chosen(part) for part in parts])
        case Without(part):
            return models.Filter(must_not=[chosen(part)])


def _document(key: DocumentKey) -> list[models.Condition]:
    return [
        matching(points.KIND, points.KIND_CHUNK),
        matching(points.TENANT, key.tenant),
        matching(points.DOCUMENT_ID, key.document_id),
    ]


def _versions(chosen: Generations) -> list[models.Condition]:
    return [
        models.Filter(
            must=[
                among(generations),
                models.FieldCondition(key=points.DOCUMENT_ID, match=models.MatchAny(any=document_ids)),
            ]
        )
        for generations, document_ids in points.by_generations(chosen).items()
    ]
