"""Shared by the ingest tests: read sources into kept and dropped, and check what must always hold."""

import pytest

from taskmill.ingest import IngestConfig, read_sources
from taskmill.record import DOCUMENT_SCHEMA, Document, Dropped, content_id, dropped_schema, to_table


def _read(*sources, **options):
    options = {"min_chars": 1, **options}
    items = list(read_sources([str(source) for source in sources], IngestConfig(**options)))
    kept = [item for item in items if isinstance(item, Document)]
    dropped = [item for item in items if isinstance(item, Dropped)]
    for document in kept:
        assert document.id == content_id(document.text)
        assert document.source.end - document.source.start == len(document.text)
    for drop in dropped:
        assert drop.filter == "ingest"
        assert drop.detail.startswith(drop.row.source.uri.partition("#")[0])
    assert len({drop.row.id for drop in dropped}) == len(dropped)
    to_table(kept, DOCUMENT_SCHEMA)
    to_table(dropped, dropped_schema(DOCUMENT_SCHEMA))
    return kept, dropped


@pytest.fixture
def read():
    return _read


@pytest.fixture
def fault():
    """Return the one Dropped of sources that give no Document at all."""

    def only(*sources, **options):
        kept, dropped = _read(*sources, **options)
        assert kept == []
        assert len(dropped) == 1
        return dropped[0]

    return only
