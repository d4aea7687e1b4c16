"""DOCX and EPUB: zip archives of XML, read with bounds on size and without resolving entities."""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.markup import parse_html, visible_text
from taskmill.ingest.reader import MEGABYTE, Fault, FaultError, SourceFile, Text, read_whole
from taskmill.record import Reason

__all__ = ["read_docx", "read_epub"]

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SIGNS = {_WORD + "tab": "\t", _WORD + "br": "\n", _WORD + "cr": "\n"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_CORE_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_CORE_LANGUAGE = "{http://purl.org/dc/elements/1.1/}language"


class _Archive:
    """Reads members by name, all of them together within `max_member_mb`; nothing is written to disk."""

    def __init__(self, data: bytes, config: IngestConfig) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise FaultError(
                Reason.UNREADABLE, f"damaged, or not of this format ({error}); save it again"
            ) from None
        self._limit = config.max_member_mb
        self._left = config.max_member_mb * MEGABYTE

    def _too_large(self) -> FaultError:
        return FaultError(
            Reason.TOO_LARGE,
            f"unpacks to more than {self._limit} MB; if it can be trusted, raise max_member_mb",
        )

    def read(self, name: str) -> bytes | None:
        """Return a member's bytes, or None if there is none of that name."""
        try:
            info = self._zip.getinfo(name)
        except KeyError:
            return None
        if info.flag_bits & 1:
            raise FaultError(Reason.ENCRYPTED, "needs a password; save a copy without one")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FaultError(Reason.UNREADABLE, f"{name!r} in it is packed in an unusual way; save it again")
        if info.file_size > self._left:
            raise self._too_large()
        # The declared size may lie, so what is unpacked is bounded as well.
        try:
            with self._zip.open(info) as member:
                data = member.read(self._left + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise FaultError(
                Reason.UNREADABLE, f"{name!r} in it is damaged ({error}); save it again"
            ) from None
        self._left -= len(data)
        if self._left < 0:
            raise self._too_large()
        return data

    def parse(self, name: str) -> Any:
        """Return the root element of an XML member, or None if there is none of that name."""
        data = self.read(name)
        return None if data is None else _parse(data, name)


def _parse(data: bytes, name: str) -> Any:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise FaultError(
            Reason.UNREADABLE, f"{name!r} in it is not valid XML ({error}); save it again"
        ) from None


def read_docx(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield the body of a document; paragraphs and table rows are separated by an empty line."""
    data = read_whole(file, config)
    if data.startswith(b"\xd0\xcf\x11\xe0"):  # the older container, which Office uses to encrypt
        raise FaultError(Reason.ENCRYPTED, "needs a password or is a .doc file; save it as plain .docx")
    archive = _Archive(data, config)
    root = archive.parse("word/document.xml")
    if root is None:
        raise FaultError(Reason.UNREADABLE, "no Word document in it; save it again as .docx")
    core = archive.parse("docProps/core.xml")
    title = "" if core is None else core.findtext(_CORE_TITLE) or ""
    yield Text(_docx_text(root), title=title.strip())


def _docx_text(root: Any) -> str:
    for element in list(root.iter(_FALLBACK)):  # repeats the text of a text box for older programs
        element.getparent().remove(element)
    paragraphs = [""]
    for node in root.iter(_WORD + "p", _WORD + "t", *_SIGNS):
        if node.tag == _WORD + "p":
            paragraphs.append("")
        else:
            paragraphs[-1] += _SIGNS.get(node.tag) or node.text or ""
    return "\n\n".join(text for paragraph in paragraphs if (text := paragraph.strip()))


def read_epub(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield a book as one text, its chapters in reading order."""
    archive = _Archive(read_whole(file, config), config)
    locked = archive.parse("META-INF/encryption.xml")  # lists obfuscated fonts too, which do not matter here
    encrypted = set() if locked is None else {e.get("URI") for e in locked.iter("{*}CipherReference")}
    container = archive.parse("META-INF/container.xml")
    rootfile = None if container is None else next(container.iter("{*}rootfile"), None)
    path = "" if rootfile is None else rootfile.get("full-path") or ""
    package = archive.parse(path)
    if package is None:
        raise FaultError(Reason.UNREADABLE, "no table of contents in it; convert it to EPUB again")
    names = {item.get("id"): unquote(item.get("href") or "") for item in package.iter("{*}item")}
    chapters = []
    for number, reference in enumerate(package.iter("{*}itemref"), 1):
        href = names.get(reference.get("idref"), "")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(path), href))
        if name in encrypted:
            raise FaultError(Reason.ENCRYPTED, "protected by rights management; use a copy without")
        data = archive.read(name)
        if data is None:
            detail = f"chapter {number} ({name}) is missing in it"
            yield Fault(Reason.UNREADABLE, detail, f"#chapter={number}")
        else:
            chapters.append(_chapter_text(data))
    title = " ".join((package.findtext(f".//{_CORE_TITLE}") or "").split())
    language = config.language or (package.findtext(f".//{_CORE_LANGUAGE}") or "").strip()
    yield Text("\n\n".join(filter(None, chapters)), title=title, language=language)


def _chapter_text(data: bytes) -> str:
    # The HTML parser also reads the XHTML that strict parsing refuses, and knows the named entities.
    root = parse_html(data, "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")
    return "" if root is None else visible_text(root)
