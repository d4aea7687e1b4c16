"""PDF files with a text layer; pages are joined by a form feed."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

from taskmill.ingest.config import IngestConfig
from taskmill.ingest.reader import Fault, FaultError, SourceFile, Text, read_whole
from taskmill.record import Reason

__all__ = ["read_pdf"]

PAGE_BREAK = "\f"


def read_pdf(file: SourceFile, config: IngestConfig) -> Iterator[Text | Fault]:
    """Yield the text of all pages as one text; a page that cannot be read is a Fault of its own."""
    import pypdf
    from pypdf.errors import DependencyError, PyPdfError

    # pypdf logs each irregularity it works around; what it cannot work around becomes a Fault.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        document = pypdf.PdfReader(io.BytesIO(read_whole(file, config)))
        if document.is_encrypted and not document.decrypt(""):
            raise FaultError(Reason.ENCRYPTED, "needs a password; save a copy without one")
        count = len(document.pages)
        title = (document.metadata.title if document.metadata else None) or ""
    except DependencyError:  # AES, for which pypdf needs a package of its own
        raise FaultError(Reason.ENCRYPTED, "encrypted; save a copy without encryption") from None
    except PyPdfError as error:
        raise FaultError(Reason.UNREADABLE, f"damaged or not a PDF file ({error}); save it again") from None
    pages = []
    for number in range(count):
        try:
            pages.append(_mended(document.pages[number].extract_text()).strip())
        except Exception as error:  # a damaged page raises anything; the others are still good
            detail = f"page {number + 1} cannot be read ({type(error).__name__}: {error})"
            yield Fault(Reason.UNREADABLE, detail, f"#page={number + 1}")
    text = PAGE_BREAK.join(filter(None, pages))
    if text:
        yield Text(text, title=str(title))
    else:
        yield Fault(Reason.EMPTY, "no text layer: the pages are pictures; run OCR on it first")


def _mended(text: str) -> str:
    """Replace halves of surrogate pairs, which broken fonts give, so that no glyph costs the file."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
