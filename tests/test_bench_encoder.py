"""`mamba-search bench encoder` on the CPU: its tables, lines and plot, what it bounds, skips and refuses."""

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.benchmarking import contenders, measuring
from encoder.benchmarking.ceilings import bytes_per_token, products_of
from encoder.benchmarking.contenders import Contender, read_rows
from encoder.benchmarking.measuring import LengthMeasurement, Limits, expected_seconds
from encoder.benchmarking.models import open_source
from encoder.benchmarking.others import Skipped, make_other
from encoder.benchmarking.results import (
    Agreement,
    Ceilings,
    Cell,
    Latency,
    Machine,
    Made,
    Part,
    System,
    Texts,
    of_kind,
    read_results,
)
from encoder.benchmarking.texts import slices
from encoder.benchmarking.timing import Batch, random_batch
from encoder.checkpoint import build_empty
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.sizes import SIZES
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from services.cli.app import run
from tests.test_evaluation_command import bert as bert  # a fixture

CPU = torch.device("cpu")
SMALL = ["bench", "encoder", "--model", "tiny", "--text-model", "tiny", "--device", "cpu", "--batch-tokens", "64"]
QUICK = ["--rounds", "2", "--seconds", "0.2", "--calls", "3", "--texts", "3"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of everything, but for what is slow without a GPU."""
    folder = tmp_path_factory.mktemp("bench")
    page = folder / "page.md"
    page.write_text("# Speed\n\n<!-- encoder-speed -->\nof before\n<!-- /encoder-speed -->\n\nThe end.\n")
    chosen = ["fused", "fused-fp8", "mamba_ssm", "cpu", "torch", "mamba_ssm-mixer", "bert", "modernbert-flash"]
    names = [word for name in chosen for word in ("--contender", name)]
    files = ["--results", f"{folder}/rows.jsonl", "--plot", f"{folder}/speed.svg", "--report", str(page)]
    assert run([*SMALL, *QUICK, *names, "--length", "32", "--length", "16", "--check", *files]) == 0
    return folder


def test_every_figure_is_a_line(measured: Path) -> None:
    rows = read_results(measured / "rows.jsonl")
    (machine,) = of_kind(rows, Machine)
    assert (machine.cuda, machine.batch_tokens) == (False, 64)
    assert machine.model == "tiny, weights at random"
    cells = of_kind(rows, Cell)
    made = {each.system: each for each in of_kind(rows, Made)}
    able = [System.CPU, System.TORCH, System.BERT]
    assert [each for each, row in made.items() if not row.skipped] == able
    assert made[System.CPU].about == "factored scan, packs of 1,024 tokens"
    assert made[System.TORCH].about == "plain torch, packs of 1,024 tokens"
    assert sorted((cell.length, cell.system) for cell in cells) == sorted(itertools.product((16, 32), able))
    for cell in cells:
        assert cell.rows == 64 // cell.length
        assert 1 <= cell.passes <= 2
        assert cell.fastest is not None
        assert cell.slowest is not None
        assert cell.seconds is not None
        assert 0 < cell.fastest <= cell.seconds <= cell.slowest
        assert cell.tokens_per_s == pytest.approx(64 / cell.seconds)
        assert cell.latency_s is not None
        assert cell.peak_bytes is None  # a GPU's alone
    latencies = of_kind(rows, Latency)
    assert [(each.system, each.queries, each.tokens, each.calls) for each in latencies] == [
        (system, queries, 16, 3) for system in (System.CPU, System.TORCH) for queries in (1, 8)
    ]
    assert all(0 < each.median_ms <= each.p99_ms for each in latencies)


def test_contenders_that_cannot_be_made_say_why(measured: Path) -> None:
    reasons = {each.system: each.skipped for each in of_kind(read_results(measured / "rows.jsonl"), Made)}
    assert "fused" in reasons[System.FUSED]
    assert "CUDA" in reasons[System.MAMBA_SSM]
    assert reasons[System.MIXER] == "no CUDA device"
    assert reasons[System.MODERNBERT_FLASH] == "the package flash_attn is not installed"
    page = (measured / "page.md").read_text()
    assert re.search(r"^\| our blocks over mamba_ssm \| skipped: .*CUDA.* \|", page, re.MULTILINE)


def test_the_page_is_renewed_between_its_marks_and_shows_every_part(measured: Path) -> None:
    page = (measured / "page.md").read_text()
    assert page.startswith("# Speed\n\n<!-- encoder-speed -->\nCPU, ")
    assert page.endswith("\n\n![tokens per second by length of text](speed.svg)\n<!-- /encoder-speed -->\n\nThe end.\n")
    assert "of before" not in page
    heads = re.findall(r"^\| ([^|]+) \|.*\n\| ---", page, re.MULTILINE)
    assert heads == [
        "tokens/s, by tokens of a text",
        "ms for one text alone",
        "the device",
        "what a token takes at least",
        "share of the ceiling (of the roofline)",
        "queries",
        "texts to embeddings",
        "cosine with plain torch in float32",
    ]
    assert "| tokens/s, by tokens of a text | 16 | 32 |" in page
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_the_plot_has_a_line_per_contender_and_the_ceiling(measured: Path) -> None:
    drawn = (measured / "speed.svg").read_text()
    for label in ("our kernels for CPUs", "plain torch", "BERT, SDPA", "ceiling, 16 bits", "tokens of a text"):
        assert f">{label}</text>" in drawn
    assert ">fused</text>" not in drawn


def test_ceilings_follow_from_the_rates(measured: Path) -> None:
    (found,) = of_kind(read_results(measured / "rows.jsonl"), Ceilings)
    assert [(rate.what, rate.m) for rate in found.rates] == [("square", 512), ("in_proj", 64), ("out_proj", 64)]
    expected = sum(2 * rate.k * rate.n / (rate.flops_per_s or 0) for rate in found.rates[1:])
    assert found.products_s_per_token == pytest.approx(2 * expected)  # layers
    assert found.traffic_s_per_token == pytest.approx(found.bytes_per_token / found.copy_bytes_per_s)
    assert found.products_s_per_token_fp8 is None
    assert found.seconds_per_token(System.FUSED_FP8) is None
    assert found.rates[0].fp8_missing == "no CUDA device"


def test_products_and_activations_are_those_of_the_layers() -> None:
    config = SIZES["mamba2-130m"]
    assert [(product.k, product.n) for product in products_of(config)] == [(768, 3352), (1536, 768)]
    # The residual, in_proj's input and output, out_proj's input: read and written.
    assert bytes_per_token(config) == 24 * 2 * (768 * 4 + 768 * 2 + 3352 * 2 + 1536 * 2)
    assert bytes_per_token(config, fp8=True) == 24 * 2 * (768 * 2 + 768 + 3352 * 2 + 1536)
    widths = {"mamba2-370m": ["in_proj", "out_proj"], "mamba-130m": ["in_proj", "x_proj", "dt_proj", "out_proj"]}
    for name, parts in widths.items():
        mixer = build_empty(SIZES[name]).backbone.layers[0].mixer
        shapes = [(part, *getattr(mixer, part).weight.shape[::-1]) for part in parts]
        assert shapes == [tuple(product) for product in products_of(SIZES[name])]


def test_checks_compare_with_float32(measured: Path) -> None:
    found = of_kind(read_results(measured / "rows.jsonl"), Agreement)
    assert [(each.length, each.system) for each in found] == [
        (length, system) for length in (16, 32) for system in (System.CPU, System.TORCH)
    ]
    for each in found:
        assert each.cosine_min is not None
        assert each.cosine_between is not None
        assert each.cosine_between < 0.95 < 0.999 < each.cosine_min <= 1.0001
    least = min(each.cosine_min or 0 for each in found)
    assert f"The smallest cosine of all: {least:.6f}." in (measured / "page.md").read_text()


def test_an_earlier_run_is_shown_without_measuring(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (measured / "page.md").read_text()
    assert run(["bench", "encoder", "--show", str(measured / "rows.jsonl")]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.rstrip("\n") in page


def test_whole_texts_beside_sentence_transformers(bert: Path, tmp_path: Path) -> None:
    """Its model reads 128 tokens at most and cuts off what is longer, so nothing but the bare passes fails."""
    results = tmp_path / "rows.jsonl"
    options = ["--part", "texts", "--sentence-transformers", str(bert), "--results", str(results)]
    assert run([*SMALL, *QUICK, *options]) == 0
    found = of_kind(read_results(results), Texts)
    assert [(each.ours, each.batch_size) for each in found] == [(True, 1024), (False, 32), (False, 256), (False, 1024)]
    assert {each.texts for each in found} == {3}
    assert 3 * 200 < found[0].tokens <= 3 * 250
    for each in found:
        assert each.texts_per_s is not None
        assert each.tokens_per_s == pytest.approx(each.texts_per_s * found[0].tokens / 3)
    assert found[0].bare_tokens_per_s
    assert found[1].bare_tokens_per_s is None  # 256 tokens are beyond this model's positions


def test_texts_are_slices_of_whole_words_and_no_two_are_equal() -> None:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    text = " ".join(f"word{number} and others," for number in range(200))
    found = slices(text, tokenizer, 50, 40)
    assert len(set(found)) == 50
    for each in found:
        assert 30 < tokenizer.count(each) <= 40
        assert f" {each} " in f" {text} "
    with pytest.raises(Exception, match=r"texts is 601; at most \d+ of 40 tokens can be cut"):
        slices(text, tokenizer, 601, 40)


@pytest.mark.parametrize("length", [7, 1500])
def test_rows_are_read_as_the_encoder_reads_them(length: int) -> None:
    """1,500 tokens are more than a pack of the CPU's path: those are read in pieces."""
    source = open_source("tiny")
    encoder = TextEncoder(source.build(CPU, torch.float32), source.tokenizer, "x", torch.float32)
    batch = random_batch(3, length, source.tokenizer.vocabulary_size, CPU)
    found = read_rows(encoder, torch.float32, batch)
    expected = encoder.embed_passages(encoder.token_rows(batch.ids.tolist()))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_equal_names_give_equal_weights() -> None:
    one, other = (open_source("tiny").build(CPU, torch.float32).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rounded = open_source("tiny").build(CPU, torch.bfloat16)
    assert rounded.backbone.embedding.weight.dtype == torch.bfloat16
    assert rounded.backbone.norm_f.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("system", "layers"),
    [(System.BERT, 1), (System.MODERNBERT, 1), (System.HF_MAMBA, 2), (System.HF_MAMBA2, 2)],
)
def test_others_have_our_width_and_give_a_vector_a_row(system: System, layers: int) -> None:
    config = open_source("tiny").config
    other = make_other(system, config, CPU, torch.float32, tokens_max=600)
    batch = random_batch(2, 600 if system is System.BERT else 20, config.vocabulary_size, CPU)
    with torch.inference_mode():
        found = other.pool(other.model, batch.tokens)
    assert found.shape == (2, config.d_model)
    assert other.about == f"{layers} layer{'s' if layers > 1 else ''} of 64"
    assert not torch.equal(found[0], found[1])


def test_beside_a_mamba_of_130m_stand_the_base_sizes() -> None:
    config = SIZES["mamba2-130m"]
    meta = torch.device("meta")
    sizes = {}
    for system in (System.BERT, System.MODERNBERT, System.HF_MAMBA, System.HF_MAMBA2):
        model = make_other(system, config, meta, torch.bfloat16, tokens_max=512).model
        sizes[system] = sum(parameter.numel() for parameter in model.parameters())
    vocabulary = (config.vocabulary_size - 30_522) * 768
    assert sizes[System.BERT] - vocabulary == 108_891_648  # BERT-base without its pooler
    assert sizes[System.HF_MAMBA2] == 128_989_632
    assert sizes[System.HF_MAMBA] == pytest.approx(129_135_360, rel=1e-3)
    assert sizes[System.MODERNBERT] == pytest.approx(149e6, rel=0.01)
    with pytest.raises(Skipped, match="flash_attn"):
        make_other(System.MODERNBERT_FLASH, config, meta, torch.bfloat16, tokens_max=512)


def cell(length: int, seconds: float, rows: int = 1) -> Cell:
    return Cell(system=System.BERT, length=length, rows=rows, seconds=seconds, fastest=seconds)


def test_a_pass_is_estimated_from_those_before() -> None:
    assert expected_seconds([], 512, 1024, linear=False) == 0
    assert expected_seconds([cell(128, 1.0, rows=8)], 512, 1024, linear=True) == pytest.approx(1)
    assert expected_seconds([cell(128, 1.0, rows=8)], 512, 1024, linear=False) == pytest.approx(4)
    # A token cost 1 ms and 2 ms at 100 and 300 tokens: 1 ms for each 200 more.
    both = [cell(100, 0.1), cell(300, 0.6)]
    assert expected_seconds(both, 700, 700, linear=False) == pytest.approx(700 * 0.004)
    failed = Cell(system=System.BERT, length=500, rows=1, stopped="failed")
    assert expected_seconds([*both, failed], 700, 700, linear=False) == pytest.approx(700 * 0.004)
    # Whatever noise says, cost is at most quadratic.
    assert expected_seconds([cell(100, 0.0001), cell(200, 0.2)], 400, 400, linear=False) == pytest.approx(0.8)


def measure(read: measuring.Callable[[Batch], object], lengths: Sequence[int], **changes: float) -> list[Cell]:
    limits = Limits(**({"rounds": 3, "seconds": 10.0, "seconds_max": 10.0} | changes))  # type: ignore[arg-type]
    contender = Contender(System.BERT, read, encoder=None)  # type: ignore[arg-type]
    measurement = LengthMeasurement([contender], CPU, 100, limits, lambda line: None)
    return [found for length in lengths for found in measurement.measure(length, 64)]


def test_who_would_take_too_long_stops_and_is_not_called_again() -> None:
    seen = []
    cells = measure(lambda batch: seen.append(batch.ids.shape), [8, 16, 32], seconds_max=1e-12)
    assert [found.stopped for found in cells] == ["", "over 1e-12 s, estimated", "over 1e-12 s, estimated"]
    assert cells[0].tokens_per_s
    assert set(seen) == {(8, 8), (1, 8)}


def test_a_cell_ends_with_its_rounds_or_its_seconds() -> None:
    assert [found.passes for found in measure(lambda batch: batch, [8])] == [3]
    assert [found.passes for found in measure(lambda batch: batch, [8], seconds=0.0)] == [1]


def test_out_of_memory_stays_so_and_other_failures_are_one_lengths() -> None:
    def read(batch: Batch) -> None:
        if batch.ids.shape[1] == 16:
            raise RuntimeError("no kernel\nfor this")
        if batch.ids.shape[1] >= 32:
            raise torch.OutOfMemoryError("CUDA out of memory")

    cells = measure(read, [8, 16, 24, 32, 64])
    assert [found.stopped for found in cells] == [
        "", "failed: RuntimeError: no kernel for this", "", "out of memory", "out of memory",
    ]  # fmt: skip


def test_contenders_take_turns() -> None:
    order: list[str] = []
    pair = [
        Contender(system, lambda batch, name=name: order.append(name))  # type: ignore[arg-type, misc]
        for system, name in ((System.BERT, "a"), (System.TORCH, "b"))
    ]
    limits = Limits(rounds=2, seconds=10, seconds_max=10)
    assert len(list(LengthMeasurement(pair, CPU, 100, limits, lambda line: None).measure(64, 64))) == 2
    assert "".join(order) == "ab" + "ab" * 2


def test_what_cannot_be_made_is_skipped_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise OSError("the library is damaged")

    monkeypatch.setattr(contenders, "make_other", broken)
    source = open_source("tiny")
    (found,) = contenders.make_contenders([System.BERT], source, CPU, torch.float32, 64)
    assert (found.read, found.skipped) == (None, "failed: OSError: the library is damaged")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--length", "0"], 2, "length is 0 tokens; 1 to 16,777,216 are allowed"),
        (["--model", "mamba3"], 2, "model is 'mamba3'; give a folder, or one of default, mamba-130m"),
        (["--model", "{empty}"], 6, "config.json"),
        (["--device", "tpu"], 2, "device is 'tpu'; give auto, cpu or cuda"),
        (["--contender", "gru"], 2, "'gru' is not one of"),
        (["--sentence-transformers", "{empty}"], 6, "has no modules.json"),
        (["--texts", "100000"], 2, "texts is 100000; at most"),
        (["--results", "{empty}/no/rows.jsonl"], 2, "rows.jsonl cannot be written"),
        (["--plot", "{empty}/no/speed.svg"], 2, "is not a folder"),
        (["--report", "{empty}/page.md"], 2, "page.md cannot be read"),
        (["--report", "{page}"], 2, "are not both there"),
        (["--show", "{page}"], 2, "page.md line 1"),
        (["--show", "{page}", "--results", "x"], 2, "exclude each other"),
    ],
)
def test_wrong_calls_are_refused(
    tmp_path: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"empty": tmp_path / "empty", "page": tmp_path / "page.md"}
    places["empty"].mkdir()
    places["page"].write_text("# Without marks\n")
    given = [argument.format_map(places) for argument in arguments]
    defaults = {"--model": "tiny", "--text-model": "tiny", "--device": "cpu", "--length": "16", "--texts": "2"}
    rest = [word for option, value in defaults.items() if option not in given for word in (option, value)]
    assert run(["bench", "encoder", *given, *rest]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_a_cuda_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert run(["bench", "encoder", "--device", "cuda"]) == 2
    assert "torch sees no such CUDA device" in capsys.readouterr().err


def test_a_run_that_breaks_off_keeps_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "rows.jsonl"

    def interrupted(*arguments: object) -> None:
        assert json.loads(results.read_text().splitlines()[0])["kind"] == "machine"
        raise KeyboardInterrupt

    monkeypatch.setattr("encoder.benchmarking.running.measure_ceilings", interrupted)
    assert run([*SMALL, "--part", Part.CEILINGS, "--results", str(results)]) == 130
    assert [row.kind for row in read_results(results)] == ["machine"]
