"""Evidence Inference: what a trial compared, as people filled in a form -> the whole article of the trial."""

from __future__ import annotations

import csv
from pathlib import Path

from encoder.evaluation.building.layout import BuiltSet, source_file

# The sample was drawn at random once, from the official test and validation parts: each line is an article and the
# forms about it that are asked. An article without forms is there to be found wrongly.
SELECTION = Path(__file__).parent / "evidence_inference.txt"


def build_evidence_inference(source: Path, selection: Path = SELECTION) -> BuiltSet:
    """500 articles of clinical trials; a query is a form's fields in one sentence."""
    built = BuiltSet()
    asked: dict[str, str] = {}
    for line in selection.read_text(encoding="utf-8").splitlines():
        article, *forms = line.split()
        asked |= dict.fromkeys(forms, article)
        path = source_file(source, f"annotations/txt_files/PMC{article}.txt")
        built.documents[article] = ("", path.read_text(encoding="utf-8").strip())
    with source_file(source, "annotations/prompts_merged.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            form = row["PromptID"]
            if form in asked:
                built.ask(f"p{form}", _sentence(row), asked.pop(form))
    return built


def _sentence(row: dict[str, str]) -> str:
    intervention, comparator, outcome = (row[name].strip() for name in ("Intervention", "Comparator", "Outcome"))
    return f"effect of {intervention} compared with {comparator} on {outcome}"
