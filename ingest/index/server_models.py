"""Our dataclasses as the models of qdrant-client: points to write, filters to choose by. Knows no server."""

from __future__ import annotations

from collections.abc import Collection

from qdrant_client import models

from ingest.index import points
from ingest.index.interface import DocumentKey, Generations, IndexedChunk, Scope, SparseVector

# Of each write of a record or tombstone its own, so that the next one can be made on condition that none came between.
REVISION = "revision"


def chunk_point(indexed: IndexedChunk) -> models.PointStruct:
    """Write a chunk."""
    chunk = indexed.chunk
    vectors: dict[str, models.Vector] = {points.DENSE: indexed.embedding.tolist()}
    if len(indexed.sparse.indices):
        vectors[points.SPARSE] = sparse_vector(indexed.sparse)
    point_id = points.chunk_point_id(chunk.key, chunk.generation, chunk.chunk_index)
    return models.PointStruct(id=point_id, vector=vectors, payload=points.chunk_payload(chunk))


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
    tenant = matching(points.TENANT, scope.tenant)
    only = None if scope.generations is None else _versions(scope.generations)
    return models.Filter(must=[tenant], should=only, must_not=_versions(scope.without) or None)


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
