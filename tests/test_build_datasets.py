"""Each builder reads its source's format as the public repository has it, and writes a set that can be evaluated."""

import json
import lzma
from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from encoder.evaluation.build_datasets import RECIPES, main
from encoder.evaluation.building.docs_desc import build_docs_desc
from encoder.evaluation.building.evidence_inference import SELECTION, build_evidence_inference
from encoder.evaluation.building.questions import build_cosqa, build_covidqa, build_pubmedqa, build_squad_xquad_en
from encoder.evaluation.building.smart import build_cisi, build_cranfield
from encoder.evaluation.datasets import load_evaluation_set

CISI_ALL = """.I 1
.T
18 Editions of the Dewey Decimal Classifications
.A
Comaromi, J.P.
.W
   The present study is a history of the DEWEY Decimal
Classification.  The first edition of the DDC was published
in 1876.
.X
1\t5\t1
92\t1\t1
.I 2
.T\x20
Two Kinds of Power
An Essay on Bibliographic Control
.A
Wilson, P.
.W
Bibliographical
control is a form of power.
.X
3\t7\t3
"""
CISI_QRY = """.I 1
.W
What problems and concerns are there in making up descriptive titles?
What difficulties are involved?
.I 58
.T
Directions in Library Networking
.A
Avram, H.D.
.W
    Bibliographic control before and after MARC is reviewed.
.B
(JASIS, Vol. 31, No. 6, November 1980, pp. 438-444)
.I 59
.W
Nobody judged this one.
"""
CRAN_ALL = """.I 1
.T
experimental investigation of the aerodynamics of a
wing in a slipstream .
.A
brenckman,m.
.B
j. ae. scs. 25, 1958, 324.
.W
experimental investigation of the aerodynamics of a
wing in a slipstream .
  an experimental study of a wing in a propeller slipstream .
.I 2
.T
simple shear flow past a flat plate
.W
in the high-speed viscous flow past a two-dimensional body .
.I 471
.T
.A
.B
.W
"""
CRAN_QRY = """.I 001
.W
what similarity laws must be obeyed .
.I 002
.W
what are the structural and aeroelastic problems .
.I 004
.W
what problems of heat conduction in composite slabs have been solved so far .
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_cisi(tmp_path: Path) -> None:
    write(tmp_path / "data/cisi/CISI.ALL", CISI_ALL)
    write(tmp_path / "data/cisi/CISI.QRY", CISI_QRY)
    write(tmp_path / "data/cisi/CISI.REL", "     1     1\t0\t0.000000\n    58     2\t0\t0.000000\n")
    built = build_cisi(tmp_path)
    assert built.documents == {
        "1": (
            "18 Editions of the Dewey Decimal Classifications",
            "The present study is a history of the DEWEY Decimal Classification. The first edition of the DDC was "
            "published in 1876.",
        ),
        "2": ("Two Kinds of Power An Essay on Bibliographic Control", "Bibliographical control is a form of power."),
    }
    assert built.queries["58"] == "Bibliographic control before and after MARC is reviewed."
    assert set(built.queries) == {"1", "58"}
    assert built.judgements == [("1", "1", 1), ("58", "2", 1)]


def test_cranfield_grades_and_numbers(tmp_path: Path) -> None:
    write(tmp_path / "data/cran/cran.all.1400", CRAN_ALL)
    write(tmp_path / "data/cran/cran.qry", CRAN_QRY)
    write(tmp_path / "data/cran/cranqrel", "1 1 2\n1 2 -1\n2 2 4\n3 2 1\n3 471 3\n")
    built = build_cranfield(tmp_path)
    assert set(built.documents) == {"1", "2"}  # 471 is empty
    assert built.documents["1"][1].startswith(
        "experimental investigation of the aerodynamics of a wing in a slipstream"
    )
    assert built.queries["3"].startswith("what problems of heat conduction")  # its .I is 004
    assert built.judgements == [("1", "1", 3), ("2", "2", 1), ("3", "2", 4)]


def test_squad_xquad_en(tmp_path: Path) -> None:
    question = {"id": "56beb4343aeaaa14008c925b", "question": "How many points?", "answers": [{"text": "308"}]}
    paragraphs = [{"context": "just 308 points", "qas": [question]}, {"context": "second", "qas": []}]
    data = {"version": "1.1", "data": [{"title": "Super_Bowl_50", "paragraphs": paragraphs}]}
    write(tmp_path / "xquad.en.json", json.dumps(data))
    built = build_squad_xquad_en(tmp_path)
    assert built.documents == {"0": ("Super Bowl 50", "just 308 points"), "1": ("Super Bowl 50", "second")}
    assert built.queries == {"56beb4343aeaaa14008c925b": "How many points?"}
    assert built.judgements == [("56beb4343aeaaa14008c925b", "0", 1)]


def test_covidqa(tmp_path: Path) -> None:
    qas = [{"question": "What was the detected fatality rate? ", "id": 303, "answers": [], "is_impossible": False}]
    data = {"data": [{"paragraphs": [{"qas": qas, "context": "Estimating the rate\n\ntext", "document_id": 630}]}]}
    write(tmp_path / "data/question-answering/200423_covidQA.json", json.dumps(data))
    built = build_covidqa(tmp_path)
    (document_id,) = built.documents
    assert built.documents[document_id] == ("", "Estimating the rate\n\ntext")
    assert built.queries == {"303": "What was the detected fatality rate?"}
    assert built.judgements == [("303", document_id, 1)]


def test_pubmedqa(tmp_path: Path) -> None:
    row = {
        "QUESTION": "Are sugars-free medicines more erosive?",
        "CONTEXTS": ["aim", "method"],
        "LONG_ANSWER": "no more",
    }
    write(tmp_path / "data/ori_pqal.json", json.dumps({"17559449": row | {"LABELS": ["OBJECTIVE"], "YEAR": "2007"}}))
    built = build_pubmedqa(tmp_path)
    assert built.documents == {"17559449": ("", "aim\nmethod\nno more")}
    assert built.queries == {"q17559449": "Are sugars-free medicines more erosive?"}
    assert built.judgements == [("q17559449", "17559449", 1)]


def test_cosqa(tmp_path: Path) -> None:
    write(tmp_path / "data/search/code_idx_map.txt", json.dumps({"def b(): ...": 1, "def a(): ...": 0}))
    row = {
        "idx": "cosqa-train-13423",
        "doc": "how do i unzip file in python",
        "code": "def b(): ...",
        "retrieval_idx": 1,
    }
    write(tmp_path / "data/search/cosqa-retrieval-test-500.json", json.dumps([row]))
    built = build_cosqa(tmp_path)
    assert list(built.documents.items()) == [("0", ("", "def a(): ...")), ("1", ("", "def b(): ..."))]
    assert built.queries == {"cosqa-train-13423": "how do i unzip file in python"}
    assert built.judgements == [("cosqa-train-13423", "1", 1)]


def test_evidence_inference(tmp_path: Path) -> None:
    prompts = (
        "PromptID,PMCID,Outcome,Intervention,Comparator\n"
        '201,2688140,"Durations of ventilation, ICU stay",Decremental PEEP titration group,control group\n'
        "98,2858204,downsizing of ucler area 2 weeks after treatment,HBOT ,placebo\n"
        "99,2858204,not asked,HBOT,placebo\n"
    )
    write(tmp_path / "annotations/prompts_merged.csv", prompts)
    for article in ("2688140", "2858204", "1"):
        write(tmp_path / f"annotations/txt_files/PMC{article}.txt", f"TITLE: {article}\n\n  ABSTRACT:\ntext\n")
    selection = tmp_path / "selection.txt"
    selection.write_text("2858204 98\n2688140 201\n1\n")
    built = build_evidence_inference(tmp_path, selection)
    assert built.documents["1"] == ("", "TITLE: 1\n\n  ABSTRACT:\ntext")
    assert built.queries == {
        "p201": "effect of Decremental PEEP titration group compared with control group on Durations of "
        "ventilation, ICU stay",
        "p98": "effect of HBOT compared with placebo on downsizing of ucler area 2 weeks after treatment",
    }
    assert built.judgements == [("p201", "2688140", 1), ("p98", "2858204", 1)]


def test_evidence_inferences_selection_is_whole() -> None:
    rows = [line.split() for line in SELECTION.read_text().splitlines()]
    forms = [form for row in rows for form in row[1:]]
    assert len({row[0] for row in rows}) == len(rows) == 500
    assert len(set(forms)) == len(forms) == 1441


FILLER = "Words that make the article long enough to be taken. " * 25
OFFICE = f"""---
title: Best practices for developing Office Add-ins
description: Apply the best practices when developing Office Add-ins.
ms.date: 07/18/2024
---

# Best practices for developing Office Add-ins

Apply the best practices when developing
Office Add-ins.

Make it clear by [creating a first run](#create), see [the class][class].

![A picture](../images/a.png)

- Use **bold** and _slanted_ text; `a_b_c` and 2**3 stay.

|Interaction class|Target|
|:-----|:-----|
|Instant|<=50 ms|

> [!IMPORTANT]
> [!INCLUDE [Enterprise info](../includes/enterprise.md)]

{FILLER}

<!-- External links -->
[class]: /dotnet/api/class
"""
CMDLET = f"""---
external help file: Microsoft.PowerShell.Commands.Utility.dll-Help.xml
title: Select-Object
---

# Select-Object

## SYNOPSIS
Selects objects or **object** properties of all kinds.

## SYNTAX

### DefaultParameter (Default)

```
Select-Object [-InputObject <PSObject>]
```

## DESCRIPTION

The `Select-Object` cmdlet selects. {FILLER}

```Output
Handles  NPM(K)    PM(K)
-------  ------    -----
2866     320       33432
```
"""


def test_docs_desc(tmp_path: Path) -> None:
    office, powershell = tmp_path / "office-js-docs-pr", tmp_path / "PowerShell-Docs"
    write(office / "docs/concepts/best.md", OFFICE)
    write(office / "docs/concepts/short.md", OFFICE.replace(FILLER, ""))
    write(office / "docs/concepts/twin.md", OFFICE)
    write(office / "docs/toc.md", "# Contents\n" + FILLER)
    write(powershell / "reference/7.4/Utility/Select-Object.md", CMDLET)
    write(powershell / "reference/5.1/Utility/Select-Object.md", CMDLET)
    (powershell / "reference/docs-conceptual").mkdir()
    built = build_docs_desc(tmp_path)

    assert list(built.documents) == [
        "officejs/docs/concepts/best.md",
        "powershell/reference/7.4/Utility/Select-Object.md",
    ]
    assert list(built.queries.values()) == [
        "Apply the best practices when developing Office Add-ins.",
        "Selects objects or object properties of all kinds.",
    ]
    title, text = built.documents["officejs/docs/concepts/best.md"]
    assert title == "Best practices for developing Office Add-ins"
    assert text.replace(FILLER.strip(), "FILLER") == (
        "# Best practices for developing Office Add-ins\n\n"
        "Make it clear by creating a first run, see the class.\n\n"
        "- Use bold and slanted text; `a_b_c` and 2**3 stay.\n\n"
        "|Interaction class|Target|\n\n|Instant|<=50 ms|\n\n"
        "IMPORTANT:\n!INCLUDE [Enterprise info]\n\nFILLER"
    )
    cmdlet = built.documents["powershell/reference/7.4/Utility/Select-Object.md"][1]
    assert cmdlet.startswith("# Select-Object\n\n## DESCRIPTION\n\nThe `Select-Object` cmdlet selects.")
    assert cmdlet.endswith("```Output\nHandles  NPM(K)  PM(K)\n\n2866  320  33432\n```")


def test_the_script_writes_a_set_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = {"id": "q", "question": "How many points?"}
    data = {"data": [{"title": "Super_Bowl_50", "paragraphs": [{"context": "just 308 points", "qas": [question]}]}]}
    write(tmp_path / "sources/xquad/xquad.en.json", json.dumps(data))
    arguments = ["--sources", str(tmp_path / "sources"), "--out", str(tmp_path / "out"), "squad_xquad_en"]
    assert main(arguments) == 0
    assert "squad_xquad_en: 1 documents, 1 queries (CC BY-SA 4.0)" in capsys.readouterr().out
    found = load_evaluation_set(tmp_path / "out/squad_xquad_en")
    assert found.documents[0].title == "Super Bowl 50"
    assert found.qrels == {"q": {"0": 1}}
    with lzma.open(tmp_path / "out/squad_xquad_en/corpus.jsonl.xz", "rt") as file:
        assert json.loads(file.readline()) == {"_id": "0", "title": "Super Bowl 50", "text": "just 308 points"}


def test_the_script_says_how_to_get_missing_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sources", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr().err
    for recipe in RECIPES.values():
        for repository in recipe.repositories:
            assert f"git clone https://github.com/{repository.owner}/{repository.name} " in shown
            assert f"checkout {repository.commit}" in shown
    assert shown.count("git clone") == 8  # CISI and Cranfield share theirs, docs_desc has two
    assert not (tmp_path / "out").exists()


def test_broken_sources_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInput, match=r"has no xquad\.en\.json"):
        build_squad_xquad_en(tmp_path)
    write(tmp_path / "xquad.en.json", "{")
    with pytest.raises(InvalidInput, match=r"xquad\.en\.json is not JSON"):
        build_squad_xquad_en(tmp_path)
    write(tmp_path / "xquad.en.json", '{"data": [{"paragraphs": [{"context": 7, "qas": []}]}]}')
    with pytest.raises(InvalidInput, match=r"data\.0\.paragraphs\.0\.context: Input should be a valid string"):
        build_squad_xquad_en(tmp_path)
    write(tmp_path / "sources/xquad/other.json", "{}")
    assert main(["--sources", str(tmp_path / "sources"), "--out", str(tmp_path), "squad_xquad_en"]) == 1
    assert "has no xquad.en.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--sources", str(tmp_path), "--out", str(tmp_path), "trec"])
    assert "unknown set trec" in capsys.readouterr().err
