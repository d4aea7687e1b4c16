"""Formats that hold one text: plain, HTML, PDF, DOCX, EPUB; and damaged or hostile ones."""

import io
import struct
import zipfile

import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from taskmill.ingest import count_tokens
from taskmill.record import Reason


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_plain_text_is_unaltered(tmp_path, read, encoding):
    text = "Ein Wort.\r\nمرحبا بالعالم\tא\n👩‍👧 e\u0301\u2028 end"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    (document,), _ = read(tmp_path)
    assert document.text == text


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"", Reason.EMPTY, "empty"),
        (b" \n\t \xe2\x80\x83", Reason.EMPTY, "no text"),
        (b"caf\xe9 au lait", Reason.UNDECODABLE, "byte 3"),
        (b"\xff\xfea", Reason.UNDECODABLE, "UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0", Reason.BINARY, "NUL"),
        (b"x" * 1_000_001, Reason.TOO_LARGE, "max_file_mb"),
    ],
)
def test_plain_files_that_give_no_text(tmp_path, fault, data, reason, said):
    (tmp_path / "a.md").write_bytes(data)
    drop = fault(tmp_path, max_file_mb=1)
    assert drop.reason == reason
    assert said in drop.detail


def test_five_megabytes_on_one_line(tmp_path, read):
    (tmp_path / "a.txt").write_text("Some words and no end, " * 220_000)
    kept, dropped = read(tmp_path)
    assert dropped == []
    assert all(count_tokens(document.text) <= 256 for document in kept)


PAGE = """<!doctype html><html lang=fr><head><title> The
 title </title><style>p {color: red}</style></head><body><h1>Head</h1><p>One <b>bold</b>
word.<br>New line<script>alert(1)</script> here.<!-- note --><ul><li>first<li>second</ul>
<table><tr><td>a</td><td>b</td></tr></table><pre>  kept
  lines</pre>tail &amp; &eacute;</body></html>"""


def test_html(tmp_path, read):
    (tmp_path / "a.html").write_text(PAGE)
    (document,), _ = read(tmp_path)
    assert document.text.split("\n\n") == [
        "Head",
        "One bold word.\nNew line here.",
        "first",
        "second",
        "a\tb",
        "  kept\n  lines",
        "tail & é",
    ]
    assert (document.title, document.language) == ("The title", "fr")


def test_html_in_the_encoding_it_declares(tmp_path, read):
    (tmp_path / "a.htm").write_bytes('<meta charset="iso-8859-1"><p>Café</p>'.encode("latin-1"))
    (document,), _ = read(tmp_path)
    assert document.text == "Café"


def test_odd_html(tmp_path, read, fault):
    (tmp_path / "deep.html").write_text("<div>" * 20_000 + "deep" + "</div>" * 20_000)
    (tmp_path / "long.html").write_text("<p>" + "many words " * 1_200_000 + "end</p>")
    kept, (drop,) = read(tmp_path)
    assert drop.reason == Reason.UNREADABLE
    assert "depth" in drop.detail
    assert kept[-1].text.endswith(" end")
    assert sum(len(document.text.split()) for document in kept) == 2_400_001
    for text in ("<script>only code</script>", "<html></html>", "  ", "<!-- -->"):
        (tmp_path / "a.html").write_text(text)
        assert fault(tmp_path / "a.html").reason == Reason.EMPTY


def pdf(*pages, password=""):
    writer = pypdf.PdfWriter()
    font = DictionaryObject({NameObject(k): NameObject(v) for k, v in FONT.items()})
    for text in pages:
        page = writer.add_blank_page(300, 300)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode() if text else b"")
        page[NameObject("/Contents")] = writer._add_object(content)
    writer.add_metadata({"/Title": "A PDF"})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


FONT = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}


def test_pdf(tmp_path, read):
    (tmp_path / "a.pdf").write_bytes(pdf("First page.", "", "Third page."))
    (document,), _ = read(tmp_path)
    assert document.text == "First page.\fThird page."
    assert document.title == "A PDF"


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"", Reason.EMPTY, "empty"),
        (pdf("text", password="secret"), Reason.ENCRYPTED, "password"),
        (pdf("", ""), Reason.EMPTY, "OCR"),
        (b"no pdf at all", Reason.UNREADABLE, "PDF"),
        (b"%PDF-1.7\n" + b"\xaa" * 3000, Reason.UNREADABLE, "PDF"),
    ],
)
def test_pdf_files_that_give_no_text(tmp_path, fault, capfd, data, reason, said):
    (tmp_path / "a.pdf").write_bytes(data)
    drop = fault(tmp_path)
    assert drop.reason == reason
    assert said in drop.detail
    assert capfd.readouterr() == ("", "")


def test_damaged_pdf_never_raises(tmp_path, read):
    whole = pdf("First page.", "Second page.")
    for at in range(0, len(whole), 97):
        (tmp_path / "a.pdf").write_bytes(whole[:at] + b"\xaa" * 20 + whole[at + 20 :])
        kept, dropped = read(tmp_path)
        assert kept or dropped


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def word(body, before=""):
    return f'{before}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'


PARAGRAPH = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"


def test_docx(tmp_path, read):
    body = PARAGRAPH.format("First") + "<w:p><w:r><w:t>Two</w:t><w:tab/><w:t>tabs</w:t></w:r></w:p><w:p/>"
    cell = f"<w:tc>{PARAGRAPH.format('cell')}</w:tc>"
    core = '<c xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A title</dc:title></c>'
    members = {
        "word/document.xml": word(f"{body}<w:tbl><w:tr>{cell}</w:tr></w:tbl>"),
        "docProps/core.xml": core,
    }
    archive(tmp_path / "a.docx", members)
    (document,), _ = read(tmp_path)
    assert document.text == "First\n\nTwo\ttabs\n\ncell"
    assert document.title == "A title"


def test_text_boxes_of_docx_are_read_once(tmp_path, read):
    box = "<mc:Choice>{0}</mc:Choice><mc:Fallback>{0}</mc:Fallback>".format(PARAGRAPH.format("boxed"))
    space = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    body = f'<w:p><w:r><mc:AlternateContent xmlns:mc="{space}">{box}</mc:AlternateContent></w:r></w:p>'
    archive(tmp_path / "a.docx", {"word/document.xml": word(PARAGRAPH.format("before") + body)})
    assert read(tmp_path)[0][0].text == "before\n\nboxed"


def bomb(size):
    return word(PARAGRAPH.format("a" * size))


def test_zip_bombs_are_not_unpacked(tmp_path, fault):
    path = tmp_path / "a.docx"
    archive(path, {"word/document.xml": bomb(2_000_000)})
    assert fault(path, max_member_mb=1).reason == Reason.TOO_LARGE
    # The same with a declared size that lies, in the directory and in the local header.
    data = path.read_bytes()
    true = struct.pack("<L", len(bomb(2_000_000)))
    assert data.count(true) == 2
    path.write_bytes(data.replace(true, struct.pack("<L", 1000)))
    assert fault(path, max_member_mb=1).reason in (Reason.TOO_LARGE, Reason.UNREADABLE)


ENTITIES = (
    '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "{}"><!ENTITY c "{}"><!ENTITY f SYSTEM "file://{}">]>'
)


def test_entities_are_not_expanded(tmp_path, read):
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    before = ENTITIES.format("&a;" * 1000, "&b;" * 1000, secret)
    archive(tmp_path / "a.docx", {"word/document.xml": word(PARAGRAPH.format("text &c; &f; end"), before)})
    kept, dropped = read(tmp_path / "a.docx")
    assert all("secret" not in document.text and len(document.text) < 100 for document in kept)
    assert len(kept) + len(dropped) == 1


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"other.xml": "<a/>"}, Reason.UNREADABLE),
        ({"word/document.xml": "<a><b></a>"}, Reason.UNREADABLE),
        ({"word/document.xml": word("")}, Reason.EMPTY),
        ({"word/document.xml": b"\0\1\2"}, Reason.UNREADABLE),
    ],
)
def test_docx_files_that_give_no_text(tmp_path, fault, members, reason):
    archive(tmp_path / "a.docx", members)
    assert fault(tmp_path).reason == reason


def test_other_containers(tmp_path, fault):
    path = tmp_path / "a.docx"
    path.write_bytes(b"no zip")
    assert fault(path).reason == Reason.UNREADABLE
    path.write_bytes(b"\xd0\xcf\x11\xe0 the container of encrypted files")
    assert fault(path).reason == Reason.ENCRYPTED
    archive(path, {"word/document.xml": word("")}, zipfile.ZIP_LZMA)
    assert "unusual" in fault(path).detail
    archive(path, {"word/document.xml": bomb(5000)}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"aaaaaaaa", b"bbbbbbbb", 1))
    assert "damaged" in fault(path).detail


CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>A book</dc:title><dc:language>en</dc:language></metadata><manifest>
<item id="two" href="text/2%20b.xhtml"/><item id="one" href="text/1.xhtml"/></manifest>
<spine><itemref idref="one"/><itemref idref="two"/><itemref idref="{}"/></spine></package>"""
CHAPTER = (
    '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
)


def book(third="one", **more):
    return {
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": PACKAGE.format(third),
        "OPS/text/1.xhtml": CHAPTER.format("<h1>Chapter 1</h1><p>It was&nbsp;é.</p>"),
        "OPS/text/2 b.xhtml": CHAPTER.format("<p>It ended.</p>"),
        **more,
    }


def test_epub(tmp_path, read):
    archive(tmp_path / "a.epub", book())
    (document,), dropped = read(tmp_path)
    assert dropped == []
    assert document.text == "Chapter 1\n\nIt was é.\n\nIt ended.\n\nChapter 1\n\nIt was é."
    assert (document.title, document.language) == ("A book", "en")


def test_epub_faults(tmp_path, read, fault):
    path = tmp_path / "a.epub"
    package = PACKAGE.format("one").replace("text/1.xhtml", "../../../etc/passwd")
    archive(path, book() | {"OPS/book.opf": package})
    kept, dropped = read(path)
    assert [document.text for document in kept] == ["It ended."]
    assert {drop.reason for drop in dropped} == {Reason.UNREADABLE}
    lock = '<encryption><CipherReference URI="OPS/text/1.xhtml"/></encryption>'
    archive(path, book() | {"META-INF/encryption.xml": lock})
    assert fault(path).reason == Reason.ENCRYPTED
    archive(path, {"mimetype": "application/epub+zip"})
    assert fault(path).reason == Reason.UNREADABLE
    archive(path, book() | {"OPS/text/1.xhtml": "x" * 2_000_000})
    assert fault(path, max_member_mb=1).reason == Reason.TOO_LARGE
