"""Training sets in the cache: each text once, groups by number, complete or not there, in memory that does not grow."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from encoder.training import building
from encoder.training.examples import TrainingSet, open_set, prepare
from encoder.training.numbering import Numbering
from encoder.training.sampling import DocumentShape, PairShape, document_batch, pair_batch
from encoder.training.sources import SourceConfig
from encoder.training.token_store import RaggedArray, RaggedWriter, TokenStore, token_dtype
from ingest.chunking import Chunker
from ingest.documents import Document
from tests.training_sets import prepared, write_rows

ROWS = [
    {
        "query": "what are ships",
        "positive": "Ships sail.",
        "title": "Ships",
        "doc_id": "d1",
        "negatives": ["Snow falls."],
    },
    {"query": "what are ships", "positive": "They float.", "doc_id": "d1"},
    {"query": "what is snow", "positive": "Snow falls.", "doc_id": "d2", "negatives": ["They float.", "Snow falls."]},
]


def decoded(store: TokenStore) -> list[str]:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    return [tokenizer.decode(store[number].tolist()) for number in range(len(store))]


def rows_of(array: RaggedArray) -> list[list[int]]:
    return [array[number].tolist() for number in range(len(array))]


def test_texts_are_kept_once_and_groups_by_number(tmp_path: Path) -> None:
    found = prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", ROWS))
    assert decoded(found.queries) == ["what are ships", "what is snow"]
    assert decoded(found.passages) == ["ships ships sail.", "snow falls.", "they float."]
    assert rows_of(found.groups.positives) == [[0, 2], [1]]
    # What is a positive elsewhere in the file is no negative.
    assert rows_of(found.groups.negatives) == [[1], [2]]
    assert found.documents is None


def test_passages_of_one_document_share_a_group(tmp_path: Path) -> None:
    rows = [{"query": f"q{n}", "positive": f"Part {n}.", "doc_id": f"d{n // 2}"} for n in range(4)]
    rows.append({"query": "q", "positive": "Alone."})
    found = prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", rows))
    first, second, third, fourth, alone = found.passage_groups.tolist()
    assert first == second != third == fourth
    assert alone == -1


def test_documents_are_cut_as_ingestion_cuts_them(tmp_path: Path) -> None:
    text = "\n\n".join(
        f"Part {n}. " + "Words follow words, and then some more of them. " * (n % 7 + 3) for n in range(40)
    )
    write_rows(tmp_path / "a.docs.jsonl", [{"doc_id": "d", "text": text}])
    found = prepared(
        tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", [{"query": "q", "doc_id": "d"}])
    )
    assert found.chunk_ends is not None
    assert found.documents is found.passages
    chunks = Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER)).chunk(Document(document_id="d", text=text))
    assert np.diff(found.chunk_ends[0].astype(int), prepend=0).tolist() == [chunk.token_count for chunk in chunks]
    assert len(chunks) > 10


def test_a_document_without_words_is_kept_and_never_drawn(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.docs.jsonl", [{"doc_id": "blank", "text": " "}, {"doc_id": "d", "text": "Words."}])
    path = write_rows(tmp_path / "a.jsonl", [{"query": "q", "doc_id": "blank"}, {"query": "r", "doc_id": "d"}])
    found = prepared(tmp_path / "cache", format="jsonl", path=path)
    assert found.passages.lengths.tolist() == [0, 2]
    shapes = (PairShape(2, (16,), (16,), negatives=1), DocumentShape(2, (16,), 102, query_widths=(16,)))
    for step in range(8):
        pairs, documents = pair_batch(found, shapes[0], 0, step, 0), document_batch(found, shapes[1], 0, step, 0)
        assert pairs.passage_numbers.tolist() == [1, 1, 1, 1]
        assert pairs.query_numbers.tolist() == documents.query_numbers.tolist() == [1, 1]
        assert documents.documents.tolist() == [1, 1]


def test_several_processes_write_what_one_does(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ({"text": f"Text {n} of many. " * (n % 9 + 1)} for n in range(1500)))
    source = SourceConfig(name="a", format="jsonl", path=path)
    (one,) = prepare([source], DEFAULT_MODEL_FOLDER, tmp_path / "one", processes=1)
    seen: list[tuple[object, ...]] = []
    (two,) = prepare(
        [source],
        DEFAULT_MODEL_FOLDER,
        tmp_path / "two",
        processes=2,
        report_of=lambda name: lambda *step: seen.append((name, *step)),
    )
    np.testing.assert_array_equal(one.passages.values, two.passages.values)
    np.testing.assert_array_equal(one.passages.starts, two.passages.starts)
    assert seen[-1] == ("a", "rows read", 1500, 0)


def test_a_set_is_made_once_and_again_when_anything_changes(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROWS)
    first = prepared(tmp_path / "cache", format="jsonl", path=path)
    made = (first.folder / "set.json").stat().st_mtime_ns
    again = prepared(tmp_path / "cache", format="jsonl", path=path, weight=3.0)
    assert again.folder == first.folder
    assert (again.folder / "set.json").stat().st_mtime_ns == made
    assert again.weight == 3.0
    prompted = prepared(tmp_path / "cache", format="jsonl", path=path, query_prompt="query: ")
    assert prompted.folder != first.folder
    assert decoded(prompted.queries)[0] == "query : what are ships"
    write_rows(path, ROWS[:1])
    assert prepared(tmp_path / "cache", format="jsonl", path=path).folder != first.folder


def test_an_interrupted_set_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROWS)
    write_groups = building._Builder._write_groups

    def interrupt(builder: building._Builder) -> None:
        write_groups(builder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(building._Builder, "_write_groups", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path / "cache", format="jsonl", path=path)
    whole = prepared(tmp_path / "cache", format="jsonl", path=path)
    assert len(whole.queries) == 2
    # Killed in the middle, with no chance to tidy up: what is left over is not taken for a set.
    (whole.folder / "set.json").rename(whole.folder / "set.json.lost")
    with pytest.raises(InvalidInput, match="is no whole training set"):
        open_set(whole.folder)
    shutil.copytree(whole.folder, whole.folder.with_name(whole.folder.name + ".partial"))
    assert len(prepared(tmp_path / "cache", format="jsonl", path=path).queries) == 2


def test_a_store_cut_short_is_refused(tmp_path: Path) -> None:
    found = prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", ROWS))
    (values,) = (found.folder / "passages").glob("values.*")
    values.write_bytes(values.read_bytes()[:-2])
    with pytest.raises(InvalidInput, match=r"passages.*has \d+ bytes where \d+ belong; delete the cache"):
        open_set(found.folder)
    with pytest.raises(InvalidInput, match="is no token store"):
        TokenStore.open(tmp_path)


def test_unknown_ids_and_sources_without_rows_are_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.docs.jsonl", [{"doc_id": "d", "text": "x"}])
    path = write_rows(tmp_path / "a.jsonl", [{"query": "q", "doc_id": "e"}])
    with pytest.raises(InvalidInput, match=r"a\.jsonl line 1: no document has the id 'e'"):
        prepared(tmp_path / "cache", format="jsonl", path=path)
    write_rows(tmp_path / "a.docs.jsonl", [{"doc_id": "d", "text": "x"}, {"doc_id": "d", "text": "y"}])
    with pytest.raises(InvalidInput, match="the id 'd' occurs twice"):
        prepared(tmp_path / "cache", format="jsonl", path=path)
    with pytest.raises(InvalidInput, match=r"source 'facts' \(.*none\.jsonl\) holds no rows"):
        prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "none.jsonl", []))
    with pytest.raises(InvalidInput, match="nothing was mined for source 'facts'; run `mamba-search mine`"):
        prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "b.jsonl", ROWS), mined=True)


def test_the_files_of_a_folder_share_its_weight_by_their_sizes(tmp_path: Path) -> None:
    for name, count in (("few", 1), ("many", 3)):
        write_rows(tmp_path / "all" / f"{name}.jsonl", ({"text": f"{name} {n}"} for n in range(count)))
    source = SourceConfig(name="all", format="jsonl", path=tmp_path / "all", weight=2.0)
    found = prepare([source], DEFAULT_MODEL_FOLDER, tmp_path / "cache", processes=1)
    assert {each.name: each.weight for each in found} == {"all-few": 0.5, "all-many": 1.5}


def test_a_set_travels_to_other_processes_as_the_name_of_its_folder(tmp_path: Path) -> None:
    rows = ({"text": "A long text. " * 50 + str(n)} for n in range(200))
    found = prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", rows), weight=2.0)
    packed = pickle.dumps(found)
    assert len(packed) < 1000
    copy: TrainingSet = pickle.loads(packed)
    np.testing.assert_array_equal(copy.passages.values, found.passages.values)
    assert copy.weight == 2.0


MEASURE = """
import sys
from pathlib import Path
from tests.training_sets import prepared
prepared(Path(sys.argv[2]), format="tevatron", path=Path(sys.argv[1]))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def rows(count: int) -> Iterator[dict[str, object]]:
        for n in range(count):
            # A long word is one token: many bytes are read in little time. Words that have been met are remembered.
            digits = " ".join(str(n))
            passage = {"docid": str(n), "text": f"{digits} {'word' * 800}"}
            yield {"query": f"q {digits}", "positive_passages": [passage]}

    peaks_kb = []
    for count in (600, 12000):
        path = write_rows(tmp_path / f"{count}.jsonl", rows(count))
        command = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / f"cache{count}")]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
        peaks_kb.append(int(done.stdout))
    assert (tmp_path / "12000.jsonl").stat().st_size > 35e6
    assert peaks_kb[1] - peaks_kb[0] < 6_000, peaks_kb


def test_the_type_of_a_store_follows_from_the_vocabulary(tmp_path: Path) -> None:
    assert token_dtype(2**16) == np.uint16
    assert token_dtype(2**16 + 1) == np.uint32
    with pytest.raises(InvalidInput, match="the tokenizer has 4294967297 tokens"):
        token_dtype(2**32 + 1)
    with RaggedWriter(tmp_path / "s", np.uint32) as writer:
        writer.extend(np.array([70000, 1, 2]), np.array([1, 0, 2]))
    assert rows_of(TokenStore.open(tmp_path / "s")) == [[70000], [], [1, 2]]


@given(st.lists(st.lists(st.text(max_size=3), max_size=30), max_size=12))
def test_numbering_is_that_of_a_dictionary(batches: list[list[str]]) -> None:
    numbering, expected = Numbering(), dict[str, int]()
    for batch in batches:
        known = len(expected)
        numbers, new = numbering.number(batch)
        for key in batch:
            expected.setdefault(key, len(expected))
        assert numbers.tolist() == [expected[key] for key in batch]
        assert [batch[i] for i in new] == list(expected)[known:]
    assert len(numbering) == len(expected)
    assert numbering.find([*expected, "something else"]).tolist() == [*expected.values(), -1]


def test_what_a_set_is_made_of_is_written_down(tmp_path: Path) -> None:
    found = prepared(tmp_path / "cache", format="jsonl", path=write_rows(tmp_path / "a.jsonl", ROWS))
    about = json.loads((found.folder / "set.json").read_text())
    assert (about["name"], about["queries"], about["passages"]) == ("facts", 2, 3)
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    assert {tokenizer.token_id(mark) for mark in ".?!:"} <= set(found.sentence_ends.tolist())
    assert tokenizer.token_id("ship") not in found.sentence_ends
