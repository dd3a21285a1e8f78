"""PDF, Word, web pages and mail as documents: text, title, metadata."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.loading.files import load, make_docx, make_pdf, paragraph, the_document, the_error, write

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAGE = """<!doctype html><html lang=en><head><title> Sea
 turtles</title><style>p {}</style><script>var x = "no"</script><meta name="author" content="Ann"></head>
<body><nav>Home | About</nav><header>Site</header><main><h1>Turtles</h1><p>They <b>swim</b>
far.<br>And dive.</p><h2>Food</h2><ul><li>Jellyfish<li>Grass</ul>
<table><tr><th>name<th>age<tr><td>Tor<td>90</table><pre>  as
    it is</pre><p hidden>gone</p><p>Last.</p></main><footer>Imprint</footer></body></html>"""
MAIL = b"""From: =?utf-8?q?J=C3=B6rg?= <j@example.org>
To: a@example.org
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Date: Sun, 01 Mar 2026 13:00:00 +0100
Message-ID: <1@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: multipart/alternative; boundary=y

--y
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6ne Gr=FC=DFe
--y
Content-Type: text/html

<p>other</p>
--y--
--x
Content-Type: text/plain
Content-Disposition: attachment; filename=a.txt

attached
--x--
"""


def test_a_pdf(tmp_path: Path) -> None:
    pdf = make_pdf(
        "First page.", "", "Third.", Title="The  title", Author="Ann", CreationDate="D:20260301130000+01'00'"
    )
    document = the_document(load(write(tmp_path / "a.pdf", pdf)))
    assert (document.document_id, document.title, document.text) == ("a.pdf", "The title", "First page.\n\nThird.")
    assert document.metadata == {"path": "a.pdf", "page_count": 3, "author": "Ann", "created": NOON}
    assert document.source == (tmp_path / "a.pdf").as_posix()


def test_a_pdf_that_says_little_of_itself(tmp_path: Path) -> None:
    pdf = make_pdf("Text", CreationDate="yesterday", Title=" ", Author="x" * 1025)
    document = the_document(load(write(tmp_path / "a.pdf", pdf)))
    assert (document.title, document.metadata) == ("a", {"path": "a.pdf", "page_count": 1})


def test_a_pdf_that_forbids_only_changes_is_read(tmp_path: Path) -> None:
    found = load(write(tmp_path / "a.pdf", make_pdf("Text", password="", owner="secret")))
    assert the_document(found).text == "Text"


def test_a_word_file(tmp_path: Path) -> None:
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in ("one", "two"))
    body = (
        paragraph("Chapter", "berschrift1")
        + paragraph("Some text &amp; more.")
        + f"<w:sdt><w:sdtContent>{paragraph('In a field.')}</w:sdtContent></w:sdt>"
        + paragraph("Part", "H2")
        + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
        + "<w:p><w:ins><w:r><w:t>Inserted.</w:t></w:r></w:ins>"
        + "<w:del><w:r><w:delText>Gone.</w:delText></w:r></w:del></w:p>"
    )
    document = the_document(load(write(tmp_path / "a.docx", make_docx(body))))
    assert document.text == "# Chapter\n\nSome text & more.\n\nIn a field.\n\n## Part\n\none | two\n\nInserted."
    assert (document.title, document.metadata) == (
        "The report",
        {"path": "a.docx", "author": "Ann", "created": NOON},
    )


def test_a_word_file_without_properties_has_its_first_heading_as_title(tmp_path: Path) -> None:
    body = paragraph("Text.") + paragraph("Chapter", "berschrift1")
    document = the_document(load(write(tmp_path / "a.docx", make_docx(body, core="<no"))))
    assert (document.title, document.metadata) == ("Chapter", {"path": "a.docx"})


def test_a_web_page(tmp_path: Path) -> None:
    document = the_document(load(write(tmp_path / "a.html", PAGE)))
    assert document.text == (
        "# Turtles\n\nThey swim far.\nAnd dive.\n\n## Food\n\n- Jellyfish\n- Grass\n\n"
        "name | age\nTor | 90\n\n  as\n    it is\n\nLast."
    )
    assert (document.title, document.metadata) == ("Sea turtles", {"path": "a.html", "author": "Ann"})


@pytest.mark.parametrize(
    ("page", "title", "text"),
    [
        ("<p>a<p>b<footer>f</footer><aside>s</aside><nav>n</nav>", "page", "a\n\nb"),
        ("<footer>only</footer>", "page", "only"),
        ("<main></main><p>outside", "page", "outside"),
        ("<body><article><h1>One</h1>text</article>more</body>", "One", "# One\n\ntext"),
        ("<article>one</article><article>two</article>", "page", "one\n\ntwo"),
        ("just &lt;words&gt;", "page", "just <words>"),
        ("<svg><title>Icon</title></svg><h1>H</h1><p style='display: none'>x</p><p aria-hidden=true>y</p>", "H", "# H"),
        ("<title>" + "x" * 3000 + "</title><p>a", "page", "a"),
        ("<ul><li><p>a</p></li><li>b<ul><li>c</li></ul></li></ul>", "page", "- a\n\n- b\n\n- c"),
        ("<h2></h2><p>a<br><br>b<p><li></li>c", "page", "a\n\nb\n\nc"),
        ("<table><tr><td>a<td><p>b</p><p>c</p><tr><td><td>d<td><td>e</table>", "page", "a | b\n\nc\n\n | d |  | e"),
        ("<div>" * 2000 + "deep" + "</div>" * 2000, "page", "deep"),
    ],
)
def test_the_main_part_of_a_page(tmp_path: Path, page: str, title: str, text: str) -> None:
    document = the_document(load(write(tmp_path / "page.htm", page)))
    assert (document.title, document.text) == (title, text)


@pytest.mark.parametrize(
    "page",
    [
        "<p>Größe".encode(),
        "\ufeff<p>Größe".encode("utf-16"),
        '<meta charset="iso-8859-1"><p>Größe'.encode("cp1252"),
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"><p>Größe'.encode("cp1252"),
        '<meta charset="utf-16"><p>Größe'.encode(),
        '<?xml version="1.0" encoding="utf-8"?><html><p>Größe</p></html>'.encode(),
    ],
)
def test_the_encoding_of_a_page(tmp_path: Path, page: bytes) -> None:
    assert the_document(load(write(tmp_path / "a.html", page))).text == "Größe"


def test_a_message(tmp_path: Path) -> None:
    document = the_document(load(write(tmp_path / "a.eml", MAIL)))
    assert (document.title, document.text) == ("Grüße", "Schöne Grüße")
    assert document.metadata == {
        "path": "a.eml",
        "from": "Jörg <j@example.org>",
        "to": "a@example.org",
        "message_id": "<1@example.org>",
        "date": NOON,
    }


def test_a_message_that_is_a_page(tmp_path: Path) -> None:
    mail = b"From: a\nDate: some day\nContent-Type: text/html\n\n<h1>Hello</h1><p>text</p>"
    document = the_document(load(write(tmp_path / "a.eml", mail)))
    assert (document.title, document.text) == ("a", "# Hello\n\ntext")
    assert document.metadata == {"path": "a.eml", "from": "a"}


def test_a_mailbox(tmp_path: Path) -> None:
    mails = [b"Subject: One\n\nfirst\n>From here\nFrom there\n", b"Subject: Two\n\n\n", MAIL]
    box = b"\n".join(b"From a@example.org Sun Mar  1 12:00:00 2026\n" + mail for mail in mails)
    path = write(tmp_path / "a.mbox", box)
    one, two, three = load(path)
    document = the_document([one])
    assert (document.document_id, document.source) == ("a.mbox:1", f"{path}:1")
    assert (document.title, document.text) == ("One", "first\nFrom here\nFrom there")
    assert the_error([two]) == f"{path}:2 has no text; attachments are not read."
    assert the_document([three]).title == "Grüße"


def test_many_files_are_read_by_one_process_in_their_order(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"{number:02}.html", f"<p>{number}")
        write(tmp_path / f"{number:02}.pdf", make_pdf(str(number)) if number % 2 else b"broken")
    found = load(tmp_path)
    texts = [item.text for item in found if not hasattr(item, "error")]
    assert texts == [text for number in range(20) for text in [str(number)] * (1 + number % 2)]
