"""What a state of fixed size forgets: a paragraph in a long document of other text, found by a question about it.

    python -m tests.benchmarks.experiments.needle --model runs/paper-mamba --haystack datasets/evidence_inference \\
        --results build/paper-needle.jsonl

As many documents as ``--documents``, each of texts of the haystack in an order of its own and with one paragraph of
squad_xquad_en in it, at the same depth (0: first, 1: last). The paragraph's questions are to find it among the others,
all of one length: accuracy@1 by best chunk (read alone, and in one pass) and by one vector for a document. A line per
length, depth and way goes to the end of ``--results``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from encoder.chunk_cuts import chunk_starts
from encoder.evaluation.datasets import load_evaluation_set
from encoder.evaluation.results import Chunks
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from tests.benchmarks.experiments.quality import (
    Embeddings,
    Ids,
    add_row,
    embed_passages,
    embed_queries,
    score_documents,
)
from tests.benchmarks.experiments.reading import can_read, read_whole

LENGTHS = (2048, 8192, 32_768, 131_072, 262_144)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
NEEDLES = Path("encoder/evaluation/datasets/squad_xquad_en")
_SEPARATOR = "\n\n"


class Text(NamedTuple):
    """A text and its tokens."""

    text: str
    ids: Ids  # (l,)
    offsets: Ids  # (l, 2), code points

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer) -> Text:
        found = tokenizer.encode_with_offsets(text)
        return cls(text, found.ids, found.offsets)

    def cut(self, tokens: int) -> Text:
        """Keep the first tokens."""
        if tokens >= len(self.ids):
            return self
        return Text(self.text[: int(self.offsets[tokens - 1, 1])], self.ids[:tokens], self.offsets[:tokens])


@dataclass(frozen=True, slots=True)
class Needle:
    """A paragraph, and the questions that it answers."""

    paragraph: Text
    questions: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, action="append", help="model folder; may be repeated")
    parser.add_argument("--haystack", type=Path, required=True, help="evaluation set whose documents are the haystack")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, added at the end")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens")
    parser.add_argument("--depths", type=float, nargs="+", default=DEPTHS)
    parser.add_argument("--ways", type=Chunks, nargs="+", default=list(Chunks), choices=list(Chunks))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    encoders = [TextEncoder.load(folder, device=given.device) for folder in given.model]
    tokenizer = encoders[0].tokenizer
    needles = choose_needles(tokenizer, given.documents, given.seed)
    haystack = [Text.of(document.text, tokenizer) for document in load_evaluation_set(given.haystack).documents]
    for length in given.lengths:
        for depth in given.depths:
            documents = [
                build(needle, haystack, length, depth, np.random.default_rng([given.seed, number]))
                for number, needle in enumerate(needles)
            ]
            for encoder in encoders:
                for way in given.ways:
                    if not can_read(encoder, way, length):
                        continue
                    row = measure(encoder, needles, documents, way) | {"length": length, "depth": depth}
                    add_row(given.results, row)
    return 0


def choose_needles(tokenizer: Tokenizer, count: int, seed: int) -> list[Needle]:
    """Draw paragraphs of the set that ships, with their questions."""
    found = load_evaluation_set(NEEDLES)
    questions: dict[str, list[str]] = {}
    for query_id, grades in found.qrels.items():
        for document_id in grades:
            questions.setdefault(document_id, []).append(found.queries[query_id])
    drawn = np.random.default_rng(seed).permutation(len(found.documents))[:count]
    chosen = [found.documents[place] for place in drawn]
    return [Needle(Text.of(each.text, tokenizer), questions[each.document_id]) for each in chosen]


def build(
    needle: Needle, haystack: Sequence[Text], length: int, depth: float, generator: np.random.Generator
) -> tuple[Ids, Ids]:
    """Put a needle into ``length`` tokens, cut as ingestion cuts: ids ``(length,)`` and the chunks' ends ``(n,)``."""
    hay = length - len(needle.paragraph.ids)
    before = round(depth * hay)
    texts = (haystack[place] for place in cycle(generator.permutation(len(haystack))))
    parts = [*_take(texts, before), needle.paragraph, *_take(texts, hay - before)]
    shifts = np.cumsum([0, *(len(part.text) + len(_SEPARATOR) for part in parts[:-1])])
    offsets = np.concatenate([part.offsets + shift for part, shift in zip(parts, shifts, strict=True)])
    starts, ends = np.ascontiguousarray(offsets.T)
    cuts = list(chunk_starts(_SEPARATOR.join(part.text for part in parts), starts, ends))
    return np.concatenate([part.ids for part in parts]), np.array([*cuts[1:], len(offsets)])


def _take(texts: Iterator[Text], tokens: int) -> Iterator[Text]:
    while tokens > 0:
        text = next(texts).cut(tokens)
        tokens -= len(text.ids)
        yield text


def measure(
    encoder: TextEncoder, needles: Sequence[Needle], documents: Sequence[tuple[Ids, Ids]], way: Chunks
) -> dict[str, object]:
    """Ask all questions of all documents of one length and depth."""
    started = time.perf_counter()
    vectors, counts = _embed(encoder, documents, way)
    queries = embed_queries(encoder, [question for needle in needles for question in needle.questions])
    owners = np.repeat(np.arange(len(needles)), [len(needle.questions) for needle in needles])
    right = score_documents(queries, vectors, counts).argmax(1) == owners
    return {
        "experiment": "needle",
        "model": encoder.info.model,
        "way": way.value,
        "documents": len(documents),
        "questions": len(owners),
        "accuracy@1": round(float(right.mean()), 5),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _embed(encoder: TextEncoder, documents: Sequence[tuple[Ids, Ids]], way: Chunks) -> tuple[Embeddings, list[int]]:
    if way is Chunks.ALONE:
        passages = [chunk.tolist() for ids, ends in documents for chunk in np.split(ids, ends[:-1])]
        return embed_passages(encoder, passages), [len(ends) for _, ends in documents]
    read = read_whole(encoder, documents, way)
    return np.concatenate(read), [len(each) for each in read]


if __name__ == "__main__":
    sys.exit(main())
