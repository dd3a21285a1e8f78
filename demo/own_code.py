"""Makes pairs to fine-tune on out of this project's own code: what a function's docstring says, and the function.

    python demo/own_code.py FOLDER

Writes ``FOLDER/pairs.jsonl`` (``query``, ``positive``) from four fifths of the functions, and a set in BEIR layout,
``FOLDER/heldout``, that asks for the others among all of them.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("encoder", "ingest", "services")


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """Give each function of a file that has a docstring: its first sentence, and the code without it."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        told = ast.get_docstring(node)
        if not told or len(node.body) < 2:
            continue
        docstring, end = node.body[0], node.end_lineno or node.lineno
        code = lines[node.lineno - 1 : docstring.lineno - 1] + lines[docstring.end_lineno or 0 : end]
        yield " ".join(told.split("\n\n")[0].split()).split(". ")[0].rstrip("."), "\n".join(code)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(out: Path) -> None:
    found = [pair for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) for pair in functions(path)]
    pairs = dict(reversed(found))  # of functions described alike, the first
    # By a digest, so that a new function moves no other one to the other side.
    heldout = {query for query in pairs if hashlib.sha256(query.encode()).digest()[0] % 5 == 0}
    write(out / "pairs.jsonl", [{"query": q, "positive": code} for q, code in pairs.items() if q not in heldout])
    numbers = {query: str(number) for number, query in enumerate(pairs)}
    write(out / "heldout" / "corpus.jsonl", [{"_id": numbers[q], "text": code} for q, code in pairs.items()])
    write(out / "heldout" / "queries.jsonl", [{"_id": numbers[q], "text": q} for q in pairs if q in heldout])
    judged = [f"{numbers[query]}\t{numbers[query]}\t1\n" for query in pairs if query in heldout]
    (out / "heldout" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8")
    print(f"{len(pairs) - len(heldout)} pairs to learn from and {len(heldout)} questions held out, in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
