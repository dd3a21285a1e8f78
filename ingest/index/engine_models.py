"""Our dataclasses as the models of the embedded engine: points to write, filters to choose by. Opens nothing."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from encoder.errors import IndexUnavailable
from ingest.index import points
from ingest.index.interface import DocumentKey, Generations, IndexedChunk, Scope, SparseVector
from ingest.index.narrowing import Condition, Every, HasId, HasIdPrefix, HasToken, Some, Within, Without, narrow


def chunk_point(indexed: IndexedChunk) -> edge.Point:
    """Write a chunk."""
    vectors: dict[str, edge.NamedVector] = {points.DENSE: indexed.embedding.tolist()}
    if len(indexed.sparse.indices):
        vectors[points.SPARSE] = sparse_vector(indexed.sparse)
    return edge.Point(points.chunk_point_id(indexed.chunk.chunk_key), vectors, points.chunk_payload(indexed))


def sparse_vector(sparse: SparseVector) -> edge.SparseVector:
    """Write term weights."""
    return edge.SparseVector(sparse.indices.tolist(), sparse.values.tolist())


def read_embedding(record: edge.Record) -> NDArray[np.float32]:
    """Read a chunk's embedding ``(d,)``; :class:`IndexUnavailable` where it has none."""
    if not isinstance(record.vector, dict):
        raise IndexUnavailable(f"Chunk {record.id} is without its embedding; restore the index, or ingest again.")
    return np.array(record.vector[points.DENSE], np.float32)


def read_terms(record: edge.Record) -> NDArray[np.uint32]:
    """Read a chunk's terms ``(k,)``."""
    vector = record.vector.get(points.SPARSE) if isinstance(record.vector, dict) else None
    return np.array(vector.indices if isinstance(vector, edge.SparseVector) else (), np.uint32)


def matching(field: str, value: str | int) -> edge.FieldCondition:
    """Choose points by the value of a field."""
    return edge.FieldCondition(field, match=edge.MatchValue(value))


def among(values: Collection[int]) -> edge.FieldCondition:
    """Choose points of some generations."""
    return edge.FieldCondition(points.GENERATION, match=edge.MatchAny(list(values)))


def chunks_of(key: DocumentKey, generations: Collection[int]) -> edge.Filter:
    """Choose a document's chunks of some generations."""
    return edge.Filter(must=[*_document(key), among(generations)])


def chunks_below(key: DocumentKey, below: int, keep: Collection[int]) -> edge.Filter:
    """Choose a document's chunks of all generations before one, but those to keep."""
    older = edge.FieldCondition(points.GENERATION, range=edge.RangeFloat(lt=below))
    return edge.Filter(must=[*_document(key), older], must_not=[among(keep)] if keep else None)


def in_scope(scope: Scope) -> edge.Filter:
    """Choose the chunks that a search looks at, among points with vectors."""
    must: list[edge.ConditionType] = [matching(points.TENANT, scope.tenant)]
    if scope.filter is not None:
        must.append(chosen(narrow(scope.filter)))
    only = None if scope.generations is None else _versions(scope.generations)
    return edge.Filter(must=must, should=only, must_not=_versions(scope.without) or None)


def chosen(condition: Condition) -> edge.ConditionType:
    """Choose chunks by what they carry of their documents."""
    match condition:
        case HasToken(tokens):
            return edge.FieldCondition(points.TOKENS, match=edge.MatchAny(list(tokens)))
        case HasId(document_ids):
            return edge.FieldCondition(points.DOCUMENT_ID, match=edge.MatchAny(list(document_ids)))
        case HasIdPrefix(prefix):
            return edge.FieldCondition(points.DOCUMENT_ID, match=edge.MatchPrefix(prefix))
        case Within(name, above, at_least, below, at_most):
            bounds = edge.RangeFloat(gt=above, gte=at_least, lt=below, lte=at_most)
            return edge.FieldCondition(points.range_path(name), range=bounds)
        case Every(()):
            return matching(points.KIND, points.KIND_CHUNK)  # a filter of no conditions, inside another, chooses none
        case Every(parts):
            return edge.Filter(must=[chosen(part) for part in parts])
        case Some(parts):
            return edge.Filter(should=[chosen(part) for part in parts])
        case Without(part):
            return edge.Filter(must_not=[chosen(part)])


def _document(key: DocumentKey) -> list[edge.ConditionType]:
    return [
        matching(points.KIND, points.KIND_CHUNK),
        matching(points.TENANT, key.tenant),
        matching(points.DOCUMENT_ID, key.document_id),
    ]


def _versions(scoped: Generations) -> list[edge.ConditionType]:
    return [
        edge.Filter(
            must=[among(generations), edge.FieldCondition(points.DOCUMENT_ID, match=edge.MatchAny(document_ids))]
        )
        for generations, document_ids in points.by_generations(scoped).items()
    ]
