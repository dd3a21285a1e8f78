"""Files of buckets, read from a server that answers as S3 does."""

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.documents import Document
from tests.loading.files import load, make_pdf, the_document, the_error
from tests.loading.web_server import serving_bucket


def parquet() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table({"id": ["p"], "text": ["of a table"]}), data)
    return data.getvalue()


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)


def test_a_bucket() -> None:
    objects = {
        "docs/a b%20c.txt": b"A",
        "docs/.hidden.txt": b"x",
        "docs/image.png": b"x",
        "docs/sub/b.pdf": make_pdf("B"),
        "docs/sub/rows.jsonl": json.dumps({"id": "r", "text": "R"}).encode(),
        "docs/sub/table.parquet": parquet(),
        "other/c.txt": b"C",
    }
    with serving_bucket("bucket", objects) as place:
        how = f"?scheme=http&region=us-east-1&endpoint_override={place}"
        found = load(f"s3://bucket/docs/{how}")
        assert [(item.document_id, item.source) for item in found if isinstance(item, Document)] == [
            ("a b%20c.txt", "s3://bucket/docs/a b%20c.txt"),
            ("sub/b.pdf", "s3://bucket/docs/sub/b.pdf"),
            ("r", "s3://bucket/docs/sub/rows.jsonl:1"),
            ("p", "s3://bucket/docs/sub/table.parquet:1"),
        ]
        assert len(found) == 4
        assert the_document(found[:1]).metadata == {"path": "a b%20c.txt"}
        assert the_document(load(f"s3://bucket/other/c.txt{how}")).document_id == "c.txt"
        matched = load(f"s3://bucket/**/[a-b]*.p*{how}")
        assert the_document(matched).document_id == "docs/sub/b.pdf"
        assert "holds no file to read" in the_error(load(f"s3://bucket/**/*.gif{how}"))
        assert "cannot be read" in the_error(load(f"s3://bucket/missing/{how}"))
        assert "cannot be read" in the_error(load(f"s3://nowhere/docs/{how}"))


def test_a_bucket_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    assert the_error(load("s3://bucket/docs")).endswith("install it: pip install 'mamba-search[cloud]'.")


def test_a_bucket_of_another_kind() -> None:
    assert "is read by 'ftp', but allowed here is" in the_error(load("ftp://example.org/a.txt"))
    assert Path("s3:/bucket") == Path("s3://bucket")  # why sources are strings
