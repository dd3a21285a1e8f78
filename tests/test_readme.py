"""What README.md and docs say is so: their commands run, the settings are the code's, files and targets exist."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from encoder.checkpoint import load_model, save_model
from encoder.errors import InvalidInput
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import TOKENIZER_FILE
from services.settings_table import BEGIN, END, render_table
from services.status import _EXIT_CODES
from tests.fakes import FakeEncoder
from tests.serving import services_running
from tests.tiny_model import save_tiny_model

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}
BLOCKS = {
    found["name"]: found["code"]
    for page in PAGES.values()
    for found in re.finditer(r"<!-- run: (?P<name>[\w-]+) -->\n```\w+\n(?P<code>.*?)```", page, re.DOTALL)
}


def run(command: list[str], **changes: str) -> str:
    environment = os.environ | changes  # noqa: TID251 - for a process of its own
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(code: str, **changes: str) -> str:
    with_commands = f'PATH="{Path(sys.executable).parent}:$PATH"\n{code}'
    return run(["bash", "-euo", "pipefail", "-c", with_commands], **changes)


def test_the_quick_start_without_a_service_works(tmp_path: Path) -> None:
    code = BLOCKS["quick-start"].replace("build/quick-start", str(tmp_path / "data"))
    model = save_tiny_model(tmp_path / "model")
    shown = shell(code, MAMBASEARCH_MODEL=str(model), MAMBASEARCH_ENCODER_THREADS="1")
    assert "1 document ingested" in shown
    assert " 1. Kenya (The World Factbook)" in shown


def test_the_default_model_is_fine_tuned_on_pairs_of_ones_own(tmp_path: Path) -> None:
    """All of the tutorial, with the default model's first layer in its place: it, too, gets better."""
    model = save_first_layer(tmp_path / "first-layer")
    changes = {"model.start": model, "out": tmp_path / "tuned", "cache": tmp_path / "cache"}
    changes["sources.0.path"] = tmp_path / "pairs.jsonl"
    changed = " ".join(["train tutorial", *(f"--set {key}={value}" for key, value in changes.items())])
    code = BLOCKS["fine-tune"].replace("build/tutorial/model", str(changes["out"])).replace("train tutorial", changed)
    code = code.replace("build/tutorial", str(tmp_path))
    shown = shell(code, MAMBASEARCH_MODEL=str(model), MAMBASEARCH_ENCODER_THREADS="1", OMP_NUM_THREADS="1")
    assert re.search(r"^\d{3,4} pairs to learn from and \d{3} questions held out", shown, re.MULTILINE)
    before, after = (float(found) for found in re.findall(r"^heldout +dense +nDCG@10 (0\.\d+)", shown, re.MULTILINE))
    assert after > before + 0.05


def save_first_layer(folder: Path) -> Path:
    """Write the default model with one of its layers: it knows words, and a run takes seconds."""
    whole = load_model(DEFAULT_MODEL_FOLDER, torch.device("cpu"))
    model = EncoderModel(whole.config.model_copy(update={"n_layers": 1}))
    model.load_state_dict({name: whole.state_dict()[name] for name in model.state_dict()})
    save_model(folder, model)
    shutil.copy(DEFAULT_MODEL_FOLDER / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    return folder


def test_a_document_is_read_in_one_pass_and_continued() -> None:
    shown = "print(embeddings.shape, more.shape, len(state) // 100_000, abs(embeddings[1] - more[0]).max() < 0.02)"
    assert run([sys.executable, "-c", BLOCKS["one-pass"] + shown]).strip() == "(2, 384) (2, 384) 33 True"


def test_quality_is_measured_and_compared(tmp_path: Path) -> None:
    code = BLOCKS["evaluate"].replace("build/runs", str(tmp_path / "runs"))
    model = save_tiny_model(tmp_path / "model")
    shown = shell(code, MAMBASEARCH_MODEL=str(model), MAMBASEARCH_ENCODER_THREADS="1")
    assert "from squad_xquad_en.sparse, p " in shown


def test_the_client_works_with_nothing_of_ours(tmp_path: Path) -> None:
    """Stubs from the .proto file alone, grpcio and protobuf from site-packages, our own packages out of reach."""
    shell(BLOCKS["stubs"].replace("_out=.", f"_out={tmp_path}"))
    packages = sysconfig.get_path("purelib")
    # -S: the editable installation's .pth file is not read, so that site-packages holds no package of ours.
    python = [sys.executable, "-S", "-P", "-c"]
    isolated = {"PYTHONPATH": f"{tmp_path}:{packages}"}
    where = run([*python, "import mambasearch.v1 as v1; print(list(v1.__path__))"], **isolated)
    assert where.strip() == str([str(tmp_path / "mambasearch" / "v1")])
    with services_running(tmp_path / "data", FakeEncoder) as targets:
        shell(f"mamba-search ingest demo/documents/factbook-kenya.md --target {targets.ingest}")
        shown = run([*python, BLOCKS["client"].replace("127.0.0.1:50051", targets.search)], **isolated)
    assert re.search(r"^1\. \d\.\d+ Kenya \(The World Factbook\), characters \d+ to \d+$", shown, re.MULTILINE)
    assert "geothermal: 47.2% of total installed capacity" in shown
    assert re.search(r"^\[factbook-kenya\.md \d+-\d+\] ", shown, re.MULTILINE)


def test_the_settings_table_is_the_codes() -> None:
    _, _, rest = PAGES["docs/settings.md"].partition(BEGIN + "\n")
    table, _, _ = rest.partition("\n" + END)
    assert table == render_table(), "run `make settings-table`"


def test_every_make_target_they_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = {
        word
        for page in PAGES.values()
        for word in re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)(?![\w*-])", page, re.MULTILINE)
    }
    assert {"demo", "setup", "test", "check", "evaluate"} <= named
    assert named <= targets


def test_every_file_on_the_map_exists_and_every_module_is_on_it() -> None:
    section = PAGES["docs/map.md"].partition("```")[2].partition("```")[0]
    assert section
    room, named = "", set()
    for line in section.splitlines():
        first = line.split()[0] if line.split() else ""
        if line.startswith(tuple("abcdefghijklmnopqrstuvwxyz")):
            room = first
            named.add(first)
        elif first.endswith(("/", ".py")):
            named.add(room + first)
        named |= {room + word for word in re.findall(r"\b\w+\.py\b", line)}
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing
    modules = {
        str(path.relative_to(ROOT))
        for folder in ("encoder", "ingest", "services")
        for path in (ROOT / folder).glob("*.py")
        if path.name != "__init__.py"
    }
    assert not sorted(modules - named)


def test_files_that_the_architecture_names_exist() -> None:
    kinds = r"`((?:encoder|ingest|services|tests|proto|demo)/[\w./]+\.(?:py|proto))`"
    named = set(re.findall(kinds, PAGES["ARCHITECTURE.md"]))
    assert len(named) > 15
    assert not sorted(name for name in named if not (ROOT / name).exists())


@pytest.mark.parametrize("kind", _EXIT_CODES)
def test_every_exit_code_is_named(kind: type[InvalidInput]) -> None:
    section = PAGES["docs/commands.md"].partition("Exit codes:")[2].partition("\n\n")[0]
    assert re.search(rf"\b{_EXIT_CODES[kind]}\b", section), f"exit code of {kind.__name__}"
