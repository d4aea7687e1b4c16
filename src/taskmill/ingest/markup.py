"""HTML to text: blocks are separated by an empty line, scripts and styles left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.plain import decode, encoding_of
from taskmill.ingest.reader import Fault, FaultError, SourceFile, Text, read_whole
from taskmill.record import Reason

__all__ = ["parse_html", "read_html", "visible_text"]

_HIDDEN_NAMES = "script style template noscript head title svg math iframe object canvas select"
_BLOCK_NAMES = (
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption "
    "figure footer form h1 h2 h3 h4 h5 h6 header hr html legend li main menu nav ol p pre section summary "
    "table tbody tfoot thead tr ul"
)
_HIDDEN = frozenset(_HIDDEN_NAMES.split())
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_BREAKS = {"br": "\n", "td": "\t", "th": "\t"}
_DECLARED = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w-]{1,40})""", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_SEVERAL = re.compile(r" {2,}")
_EDGES = re.compile(r" ?([\n\t]) ?")


def read_html(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield the visible text of a page."""
    markup = _decode(read_whole(file, config))
    root = parse_html(markup.encode("utf-8", "replace"), "utf-8")
    if root is None:
        raise FaultError(Reason.EMPTY, "the page is empty")
    title = root.findtext(".//title") or ""
    language = config.language or root.get("lang") or ""
    yield Text(visible_text(root), title=" ".join(title.split()), language=language)


def parse_html(markup: bytes, encoding: str) -> Any:
    """Return the root element or None; raises FaultError where the parser would cut text off silently."""
    from lxml import etree, html

    # HTML has no entities to expand, so a huge tree is no danger; without it text over 10 MB would be lost.
    parser = html.HTMLParser(
        encoding=encoding, no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    try:
        root = html.document_fromstring(markup, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError):
        return None
    fatal = parser.error_log.filter_from_fatals()
    if fatal:
        raise FaultError(Reason.UNREADABLE, f"not readable to its end ({fatal[0].message.strip()})")
    return root


def _decode(data: bytes) -> str:
    """Decode a page: by its byte order mark, else the charset it declares, else as UTF-8."""
    declared = _DECLARED.search(data[:4096])
    if declared and encoding_of(data) == "utf-8":
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data)


def visible_text(root: Any) -> str:
    """Return the text under an lxml element; works on XHTML (with namespaces) as well."""
    blocks: list[str] = []
    parts: list[str] = []
    preformatted = 0
    for event, element in _events(root):
        name = _name(element)
        if name in _BLOCKS:
            blocks.append(_block(parts, preformatted > 0))
            parts.clear()
            preformatted += (name == "pre") * (1 if event == "start" else -1)
        elif event == "start":
            parts.append(_BREAKS.get(name, ""))
        text = element.tail if event == "end" else None if name in _HIDDEN else element.text
        if text and not (event == "end" and element is root):
            parts.append(text if preformatted else _SPACES.sub(" ", text))
    blocks.append(_block(parts, preformatted=False))
    return "\n\n".join(filter(None, blocks))


def _block(parts: list[str], preformatted: bool) -> str:
    text = "".join(parts)
    return text.strip("\r\n").rstrip() if preformatted else _EDGES.sub(r"\1", _SEVERAL.sub(" ", text)).strip()


def _name(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else "script"  # comments have no string tag


def _events(root: Any) -> Iterator[tuple[str, Any]]:
    """Walk the tree without recursion (pages nest deeper than the stack); hidden elements are not entered."""
    stack = [(root, iter(root))]
    yield "start", root
    while stack:
        element, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            yield "end", element
        elif _name(child) in _HIDDEN:
            yield "start", child
            yield "end", child
        else:
            stack.append((child, iter(child)))
            yield "start", child
