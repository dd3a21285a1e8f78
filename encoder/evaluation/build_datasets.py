"""Builds the evaluation folders of README.md's table from their public sources.

    python -m encoder.evaluation.build_datasets --sources CHECKOUTS --out FOLDER [NAME ...]

Each source is a checkout in the folder CHECKOUTS, under its repository's name; where one is missing, the commands that
fetch it are printed. Nothing is fetched here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoder.errors import MambaSearchError
from encoder.evaluation.building.docs_desc import build_docs_desc
from encoder.evaluation.building.evidence_inference import build_evidence_inference
from encoder.evaluation.building.layout import BuiltSet, write_set
from encoder.evaluation.building.questions import build_cosqa, build_covidqa, build_pubmedqa, build_squad_xquad_en
from encoder.evaluation.building.smart import build_cisi, build_cranfield


@dataclass(frozen=True, slots=True)
class Repository:
    """A public repository at the commit that the numbers in README.md were made from."""

    owner: str
    name: str
    commit: str

    def commands(self, folder: Path) -> str:
        """How to get it."""
        target = folder / self.name
        return (
            f"git clone https://github.com/{self.owner}/{self.name} {target} && "
            f"git -C {target} -c advice.detachedHead=false checkout {self.commit}"
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an evaluation set is made. ``build`` reads the one repository's folder, or the folder of all checkouts."""

    repositories: tuple[Repository, ...]
    licence: str
    build: Callable[[Path], BuiltSet]


LUPPAR = Repository("fabianobie", "luppar", "9abddd4")
RECIPES = {
    "cisi": Recipe((LUPPAR,), "distributed freely for research", build_cisi),
    "cosqa": Recipe((Repository("Jun-jie-Huang", "CoCLR", "14ebcac"),), "C-UDA 1.0", build_cosqa),
    "covidqa": Recipe((Repository("deepset-ai", "COVID-QA", "fb2eb5e"),), "Apache-2.0; articles CC BY", build_covidqa),
    "cranfield": Recipe((LUPPAR,), "distributed freely for research", build_cranfield),
    "docs_desc": Recipe(
        (
            Repository("OfficeDev", "office-js-docs-pr", "096a3ee"),
            Repository("MicrosoftDocs", "PowerShell-Docs", "27138b2"),
        ),
        "CC BY 4.0",
        build_docs_desc,
    ),
    "evidence_inference": Recipe(
        (Repository("jayded", "evidence-inference", "b9831b6"),),
        "MIT; articles of PMC Open Access",
        build_evidence_inference,
    ),
    "pubmedqa": Recipe((Repository("pubmedqa", "pubmedqa", "1cbae8e"),), "MIT", build_pubmedqa),
    "squad_xquad_en": Recipe(
        (Repository("google-deepmind", "xquad", "7d30520"),), "CC BY-SA 4.0", build_squad_xquad_en
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is asked for; 1 where a source is missing or broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which sets (default: all): {', '.join(RECIPES)}")
    parser.add_argument("--sources", type=Path, required=True, help="folder of the checkouts")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the evaluation folders into")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - RECIPES.keys())
    if unknown:
        parser.error(f"unknown set {unknown[0]}; there are {', '.join(RECIPES)}")
    names = given.names or list(RECIPES)
    missing = {
        repo for name in names for repo in RECIPES[name].repositories if not (given.sources / repo.name).is_dir()
    }
    if missing:
        print(f"Sources are missing in {given.sources}. Get them with:", file=sys.stderr)
        for repository in sorted(missing, key=lambda repo: repo.name):
            print(repository.commands(given.sources), file=sys.stderr)
        return 1
    try:
        for name in names:
            _build(name, given.sources, given.out)
    except MambaSearchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _build(name: str, sources: Path, out: Path) -> None:
    recipe = RECIPES[name]
    alone = len(recipe.repositories) == 1
    built = recipe.build(sources / recipe.repositories[0].name if alone else sources)
    write_set(built, out / name)
    print(f"{name}: {len(built.documents)} documents, {len(built.queries)} queries ({recipe.licence})")


if __name__ == "__main__":
    sys.exit(main())
