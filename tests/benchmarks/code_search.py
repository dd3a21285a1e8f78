"""Code is found by what it is documented to do: a public package without its docstrings, and 200 of these as queries.

    python -m tests.benchmarks.code_search [--package networkx] [--queries 200] [--data-dir build/code-search]

The package's files (its tests left out) go into a git repository, every docstring taken out, and `mamba-search ingest`
reads it as any repository. A query is the first paragraph of the docstring of a function, class or method. It is found
where a hit names its file and its symbol: the hit's `headings` are the definition's path, no more and no less. The last
line is the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from services.in_process import load_encoder, open_parts
from services.search.fusion import FusionWeights
from services.search.requests import SearchRequest
from services.search.results import Hit, SearchMode
from services.search.searcher import Searcher
from services.settings import CommandSettings
from tests.benchmarks.undocumented import Definition, head_lines, read_definitions, without_docstrings

WORDS_MIN, WORDS_MAX = 6, 60  # of a query: "Returns the graph." tells nothing apart
SEED = 6
TOP_K = 10
RECALL_MIN = 0.5  # of hybrid search at 10, file and symbol
FILE_BYTES_MAX = 1 << 20  # the loader of repositories passes over larger ones


@dataclass(frozen=True, slots=True)
class Found:
    """At which ranks a query found what it was taken from, from 1; 0 where not within ten."""

    symbol: int  # file and symbol
    lines: int  # file, and lines that hold the definition's head
    file: int


def make_repository(package: str, folder: Path) -> list[Definition]:
    """Copy a package without docstrings into a git repository; give what is documented in it."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations, f"{package} is no package"
    root = Path(found.submodule_search_locations[0])
    definitions: list[Definition] = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root.parent)
        if "tests" in name.parts or path.stat().st_size > FILE_BYTES_MAX:
            continue
        source = path.read_text(encoding="utf-8")
        definitions.extend(read_definitions(name.as_posix(), source))
        bare = without_docstrings(source)
        if bare.strip():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(bare, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return definitions


def choose(definitions: Sequence[Definition], count: int) -> list[Definition]:
    """Draw definitions whose summary is a sentence at least, and theirs alone; a path must be once in its file."""
    summaries = Counter(definition.summary for definition in definitions)
    paths = Counter((definition.file, definition.path) for definition in definitions)
    fit = [
        definition
        for definition in definitions
        if WORDS_MIN <= len(definition.summary.split()) <= WORDS_MAX
        and summaries[definition.summary] == 1
        and paths[definition.file, definition.path] == 1
    ]
    print(
        f"{len(definitions):,} definitions with docstrings, {len(fit):,} with one of {WORDS_MIN} to {WORDS_MAX} words"
    )
    return random.Random(SEED).sample(fit, count)


def look_up(definition: Definition, head_line: int, hits: Sequence[Hit]) -> Found:
    """Say at which rank a definition's symbol, lines and file are first."""
    inside = [hit for hit in hits if hit.chunk.document_id == definition.file]
    symbol = [hit.rank for hit in inside if hit.chunk.headings == definition.path]
    lines = [hit.rank for hit in inside if hit.chunk.line_start <= head_line <= hit.chunk.line_end]
    return Found(*(min(ranks, default=0) for ranks in (symbol, lines, [hit.rank for hit in inside])))


async def measure(data_dir: Path, repository: Path, chosen: Sequence[Definition]) -> dict[SearchMode, list[Found]]:
    """Search for each definition in each mode, through the product's searcher over the ingested index."""
    settings = CommandSettings.load({})
    encoder = await load_encoder(settings)
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    found: dict[SearchMode, list[Found]] = {mode: [] for mode in SearchMode}
    heads = {file: head_lines((repository / file).read_text()) for file in {each.file for each in chosen}}
    async with open_parts(data_dir, encoder, tokenizer, settings.chunk_rules()) as parts:
        searcher = Searcher(parts.encoder, parts.index, parts.tokenizer, FusionWeights.load(settings.model))
        for definition in chosen:
            for mode, ranks in found.items():
                result = await searcher.search(SearchRequest(definition.summary, mode, TOP_K))
                ranks.append(look_up(definition, heads[definition.file][definition.path], result.hits))
    await encoder.close()
    return found


def summarise(ranks: Sequence[int]) -> tuple[float, float, float]:
    """Recall at 10, recall at 1, and the mean reciprocal rank within ten."""
    within = [rank for rank in ranks if rank]
    return len(within) / len(ranks), ranks.count(1) / len(ranks), sum(1 / rank for rank in within) / len(ranks)


def report(found: dict[SearchMode, list[Found]]) -> int:
    """Print the table and judge hybrid search."""
    print("\n| search | file and symbol @10 | @1 | MRR@10 | file and lines @10 | file @10 |")
    print("|---|---:|---:|---:|---:|---:|")
    recalls = {}
    for mode, ranks in found.items():
        recall, first, reciprocal = summarise([each.symbol for each in ranks])
        lines, _, _ = summarise([each.lines for each in ranks])
        file, _, _ = summarise([each.file for each in ranks])
        print(f"| {mode.value} | {recall:.3f} | {first:.3f} | {reciprocal:.3f} | {lines:.3f} | {file:.3f} |")
        recalls[mode] = recall
    passed = recalls[SearchMode.HYBRID] >= RECALL_MIN
    figures = ", ".join(f"{mode.value} {recall:.3f}" for mode, recall in recalls.items())
    print(f"\n{'PASS' if passed else 'FAIL'}: recall@10 of file and symbol {figures} (bar for hybrid {RECALL_MIN})")
    return 0 if passed else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="networkx", help="one that is installed here, of one folder")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--data-dir", type=Path, default=Path("build/code-search"), help="holds repository and index")
    given = parser.parse_args()
    repository, index = given.data_dir / given.package, given.data_dir / f"{given.package}-index"
    definitions = make_repository(given.package, repository)
    chosen = choose(definitions, given.queries)
    named = sum(bool(re.search(rf"\b{re.escape(each.path[-1])}\b", each.summary)) for each in chosen)
    print(f"{len(chosen)} drawn with seed {SEED}; {named} of them name what they are about")
    command = [sys.executable, "-c", "from services.cli import main; main()", "ingest", str(repository)]
    subprocess.run([*command, "--data-dir", str(index)], check=True)
    return report(asyncio.run(measure(index, repository, chosen)))


if __name__ == "__main__":
    sys.exit(main())
