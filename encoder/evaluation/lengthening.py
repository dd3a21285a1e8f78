"""Lengthens the documents of an evaluation set with text of others, to see what length does to quality.

Some of a set's documents are given up as distractors: those that answer no query first, then others together with
their queries, so that no distractor answers a query that is asked. Each remaining document keeps its id, its title and
its whole text; distractors stand before and after it, the place drawn at random. Which documents are given up, the
place and the order of distractors depend on the seed and the document's id alone: lengths differ in nothing but length.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import EvaluationDocument, EvaluationSet
from encoder.tokenizer import Tokenizer

LENGTH_MIN, LENGTH_MAX = 64, 1 << 20
DISTRACTORS_SHARE_MIN, DISTRACTORS_SHARE_MAX = 0.25, 0.5  # of a set's documents
_SEPARATOR = "\n\n"


def lengthen(found: EvaluationSet, tokens: int, tokenizer: Tokenizer, *, seed: int = 0) -> EvaluationSet:
    """Bring documents to ``tokens`` tokens; those that have more stay as they are: cutting could take the answer away.

    A distractor that does not fit is cut; the separators between texts are not counted. :class:`InvalidInput` for a
    length out of range, or a set so small that no document, or no query, would remain.
    """
    if not LENGTH_MIN <= tokens <= LENGTH_MAX:
        raise InvalidInput("length", f"length is {tokens} tokens; {LENGTH_MIN} to {LENGTH_MAX} are allowed.")
    distractors, kept = _split(found, np.random.default_rng(seed))
    given_up = {document.document_id for document in distractors}
    asked = {
        query_id: {name: grade for name, grade in grades.items() if name not in given_up}
        for query_id, grades in found.qrels.items()
        if not any(grade > 0 and name in given_up for name, grade in grades.items())
    }
    # Zero-width characters, say, have no token: such a text would never fill a document.
    texts = [text for text in (_Tokenized.of(each.text, tokenizer) for each in distractors) if len(text.ends)]
    if not kept or not asked or not texts:
        raise InvalidInput(
            "length", f"{found.name} is too small to be lengthened: its texts would answer one another's queries."
        )
    lengths = map(len, tokenizer.encode_batch([document.text for document in kept]))
    documents = [
        replace(document, text=_surround(document, tokens - length, texts, seed))
        for document, length in zip(kept, lengths, strict=True)
    ]
    return replace(
        found,
        documents=tuple(documents),
        queries={query_id: text for query_id, text in found.queries.items() if query_id in asked},
        qrels=asked,
        length=tokens,
    )


def _split(
    found: EvaluationSet, generator: np.random.Generator
) -> tuple[list[EvaluationDocument], list[EvaluationDocument]]:
    """Choose the documents that become distractors, and those that remain."""
    answers = {name for grades in found.qrels.values() for name, grade in grades.items() if grade > 0}
    shuffled = [found.documents[place] for place in generator.permutation(len(found.documents))]
    free = [document for document in shuffled if document.document_id not in answers]
    others = [document for document in shuffled if document.document_id in answers]
    least, most = (int(np.ceil(share * len(shuffled))) for share in (DISTRACTORS_SHARE_MIN, DISTRACTORS_SHARE_MAX))
    distractors = free[:most]
    distractors += others[: max(0, least - len(distractors))]
    taken = {document.document_id for document in distractors}
    return distractors, [document for document in found.documents if document.document_id not in taken]


@dataclass(frozen=True, slots=True)
class _Tokenized:
    text: str
    ends: NDArray[np.int64]  # (l,), where each token ends, in code points

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer) -> _Tokenized:
        return cls(text, np.ascontiguousarray(tokenizer.encode_with_offsets(text).offsets[:, 1]))


def _surround(document: EvaluationDocument, missing: int, texts: Sequence[_Tokenized], seed: int) -> str:
    """Put ``missing`` tokens of distractors around a document's text."""
    if missing <= 0:
        return document.text
    generator = np.random.default_rng([seed, zlib.crc32(document.document_id.encode())])
    before = int(generator.random() * (missing + 1))
    order = _endless(texts, generator)
    return _SEPARATOR.join([*_take(order, before), document.text, *_take(order, missing - before)])


def _take(order: Iterator[_Tokenized], tokens: int) -> Iterator[str]:
    while tokens > 0:
        text = next(order)
        yield text.text if len(text.ends) <= tokens else text.text[: int(text.ends[tokens - 1])]
        tokens -= len(text.ends)


def _endless(texts: Sequence[_Tokenized], generator: np.random.Generator) -> Iterator[_Tokenized]:
    """Give distractors in random order, and where they have all been used, in another one."""
    while True:
        for place in generator.permutation(len(texts)):
            yield texts[place]
