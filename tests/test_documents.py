"""What a document may hold, and when two of them are the same."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from encoder.errors import InvalidInput
from ingest.documents import Document, MetadataValue, check_document

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FULL: dict[str, MetadataValue] = {
    "name": "x" * 1024,
    "pages": -(2**63),
    "score": 0.5,
    "public": True,
    "created": NOON,
    "tags": ("a",) * 64,
}


def test_a_document_within_all_limits() -> None:
    check_document(Document("a", "text", metadata=FULL, tenant="Team_7-" + "x" * 57))
    check_document(Document("a", "text", metadata={f"f{number}": number for number in range(64)}))


@pytest.mark.parametrize(
    ("metadata", "field", "message"),
    [
        ({"a": "x" * 1025}, "metadata.a", r"metadata\.a has 1025 characters; the limit is 1024"),
        ({"a": "\ud800"}, "metadata.a", "is not whole Unicode"),
        ({"a": 2**63}, "metadata.a", "is beyond 64 bits"),
        ({"a": float("nan")}, "metadata.a", "is not a finite number"),
        ({"a": float("inf")}, "metadata.a", "is not a finite number"),
        ({"a": NOON.replace(tzinfo=None)}, "metadata.a", "is not a time in UTC"),
        ({"a": NOON.astimezone(timezone(timedelta(hours=1)))}, "metadata.a", "is not a time in UTC"),
        ({"a": ("x",) * 65}, "metadata.a", "has 65 entries; the limit is 64"),
        ({"a": ("x", 5)}, "metadata.a", "has a value of type int at 1"),
        ({"a": ("x", "y" * 1025)}, "metadata.a", r"metadata\.a\[1\] has 1025 characters"),
        ({"a": None}, "metadata.a", "is of type NoneType; it must be a string"),
        ({"a": ["x"]}, "metadata.a", "is of type list"),
        ({"A": "x"}, "metadata.A", "a name is 1 to 64 small letters"),
        ({"": "x"}, "metadata.", "a name is 1 to 64 small letters"),
        ({"x" * 65: "x"}, f"metadata.{'x' * 65}", "a name is 1 to 64 small letters"),
        ({f"f{number}": number for number in range(65)}, "metadata", "has 65 fields; the limit is 64"),
    ],
)
def test_metadata_beyond_a_limit(metadata: dict[str, MetadataValue], field: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        check_document(Document("a", "text", metadata=metadata))
    assert error.value.field == field


@pytest.mark.parametrize("tenant", ["", "a b", "a/b", "é", "x" * 65, "a\n"])
def test_a_tenant_with_another_name(tenant: str) -> None:
    with pytest.raises(InvalidInput, match="is not 1 to 64 letters") as error:
        check_document(Document("a", "text", tenant=tenant))
    assert error.value.field == "tenant"


def test_only_what_is_encoded_is_content() -> None:
    document = Document("a", "text", title="T")
    same = Document("b", "text", title="T", source="S", metadata={"a": 1}, tenant="t")
    assert document.content_hash() == same.content_hash()
    others = [Document("a", "text"), Document("a", "tex", title="tT"), Document("a", "T", title="text")]
    assert len({other.content_hash() for other in [document, *others]}) == 4


def test_metadata_differ_by_names_values_types_and_source() -> None:
    values: list[MetadataValue] = [1, 1.0, True, "1", "True", ("1",), ("1", "1"), (), "", NOON, NOON.isoformat()]
    hashes = {Document("a", "text", metadata={"a": value}).metadata_hash() for value in values}
    hashes |= {Document("a", "text", source=source).metadata_hash() for source in ("", "a")}
    hashes.add(Document("a", "text", metadata={"b": 1}).metadata_hash())
    assert len(hashes) == len(values) + 3
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    first = Document("a", "text", metadata=one)
    assert first.metadata_hash() == Document("b", "other", title="T", metadata=other, tenant="t").metadata_hash()
    assert hash(first) == hash(Document("a", "text", metadata=other))
