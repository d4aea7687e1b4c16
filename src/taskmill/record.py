"""The records: Document and Example, and the verdict on one; their Arrow schemas, ids and reason codes.

The Arrow schemas are the truth and the dataclasses follow them. Ids are hashes of content, so the
same input has the same id on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from taskmill.ids import content_id, draw

__all__ = [
    "DOCUMENT_SCHEMA",
    "EXAMPLE_SCHEMA",
    "VERDICT_SCHEMA",
    "DatasetMeta",
    "Document",
    "Dropped",
    "Example",
    "FieldMeta",
    "Origin",
    "Reason",
    "Source",
    "Span",
    "content_id",
    "draw",
    "dropped_schema",
    "to_table",
]


class Reason(StrEnum):
    """The closed set of reasons for which a row is dropped, grouped by the stage that uses them."""

    # ingest
    EMPTY = "empty"  # a file or row without text
    ENCRYPTED = "encrypted"  # a document that needs a password
    BINARY = "binary"  # bytes where text was expected
    UNDECODABLE = "undecodable"  # not valid in the declared or detected encoding
    TOO_LARGE = "too_large"  # over the size bound for one file, line or archive member
    UNREADABLE = "unreadable"  # a damaged or unsupported file
    OUTSIDE_ROOT = "outside_root"  # a link that leaves the given folder
    NULL_TEXT = "null_text"  # the text column holds no value
    MISSING_COLUMN = "missing_column"  # the text column does not exist in this file or row
    TOO_SHORT = "too_short"  # fewer characters than `min_chars`
    DUPLICATE = "duplicate"  # same content as a row already kept
    # synthesize
    CALL_FAILED = "call_failed"  # the model call failed after all retries
    EMPTY_REPLY = "empty_reply"  # the model wrote nothing, or no response
    TRUNCATED = "truncated"  # the model was cut off before the reply was complete
    MALFORMED = "malformed"  # the reply has not the parts the task needs
    NOT_APPLICABLE = "not_applicable"  # the passage lacks what the task type needs
    OVER_CONTEXT = "over_context"  # the text and its reply are longer than the model reads
    # curate: the task types' own checks
    UNGROUNDED = "ungrounded"  # the passage is neither quoted nor needed, or the answer is not in it
    OFF_LABEL = "off_label"  # the label is outside the label set
    NOT_A_QUESTION = "not_a_question"  # the question does not ask
    BAD_OPTIONS = "bad_options"  # too few or repeated options, or the answer is none of them
    COPY = "copy"  # the output repeats its source
    TOO_LONG = "too_long"  # the output is longer than the task type allows
    TRIVIAL = "trivial"  # nothing is asked or answered (too short, answer repeats the question)
    LEAKED_ANSWER = "leaked_answer"  # the instruction already states the response
    MARKER = "marker"  # a wire marker or placeholder is left in the text
    REPETITIVE = "repetitive"  # the output repeats itself
    # curate: whole data sets
    OFF_LANGUAGE = "off_language"  # the response is not in the script or language of what it answers
    NEAR_DUPLICATE = "near_duplicate"  # shares most of its n-grams with a row that is kept
    SEMANTIC_DUPLICATE = "semantic_duplicate"  # lies as close as the threshold to a row that is kept
    OVER_SKELETON_CAP = "over_skeleton_cap"  # more rows of one template's skeleton than the cap allows
    OVER_SOURCE_CAP = "over_source_cap"  # more rows of one source family than the cap allows
    CONTAMINATED = "contaminated"  # holds an item of an evaluation set
    BENCHMARK_TASK = "benchmark_task"  # its task is known to be made from a benchmark
    PERSONAL_DATA = "personal_data"  # holds an e-mail address, phone number, account or network address
    # verify: checks that need a model
    NOT_REPRODUCED = "not_reproduced"  # an independent answerer gives another response
    NEEDS_NO_PASSAGE = "needs_no_passage"  # an answerer solves it without the passage
    UNFAITHFUL = "unfaithful"  # a judge says the response does not follow from the passage
    LOW_SCORE = "low_score"  # a judge scores it below the threshold
    TOXIC = "toxic"  # a judge finds insults, threats or hatred in it
    UNREADABLE_VERDICT = "unreadable_verdict"  # the judge's reply holds no score
    # pack
    OVER_LENGTH = "over_length"  # more tokens than a packed sequence holds
    # grow: tasks proposed over the fields of a dataset
    PARSE = "parse"  # a reply, or a part of it, that holds no task
    SCHEMA = "schema"  # a task without instruction, input fields or output field, or of another kind
    UNKNOWN_FIELD = "unknown_field"  # names a field the dataset does not have
    OVERLAP = "overlap"  # the output field is among the input fields
    MULTI_OUTPUT = "multi_output"  # names more than one output field
    CONSTANT_OUTPUT = "constant_output"  # all rows, or nearly all, have the same output
    LEAK = "leak"  # the output stands in the input of too many rows
    METADATA_TARGET = "metadata_only_target"  # asks for an id, a path or other book-keeping
    INSTANCE_WORDING = "instance_specific_wording"  # the instruction quotes one row
    MISSING_OPTIONS = "missing_option_field"  # speaks of options that no input field holds
    LICENCE = "licence"  # the licence policy does not admit the dataset
    # yield
    OVER_TARGET = "over_target"  # accepted, but more than `--target` asked for


@dataclass(frozen=True, slots=True)
class Span:
    """Where a Document's text lies: `uri[start:end]` in characters; `parent` is the whole text's id."""

    uri: str = ""
    start: int = 0
    end: int = 0
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A passage of source text. `meta` is a JSON object as text."""

    id: str
    text: str
    source: Span = Span()
    title: str = ""
    language: str = ""
    licence: str = ""
    meta: str = "{}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where an Example comes from: a document span (`document`, `start`, `end`, `url`) or a dataset row."""

    document: str = ""
    start: int = 0
    end: int = 0
    dataset: str = ""
    config: str = ""
    split: str = ""
    row: int = -1
    licence: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """How an Example was made: `template` is name#hash, `call` the ledger key, `parents` Example ids."""

    method: str = ""
    template: str = ""
    model: str = ""
    call: str = ""
    seed: int = 0
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One task: `instruction` (with `{{context}}` where it quotes `context`) and its `response`."""

    id: str
    task: str
    context: str
    instruction: str
    response: str
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    rationale: str = ""
    source: Source = Source()
    origin: Origin = Origin()
    meta: str = "{}"


@dataclass(frozen=True, slots=True)
class FieldMeta:
    """One field of a dataset: `type` in the words of `ingest.fields`, `labels` its closed set of values.

    A field of type "label" holds numbers, and `labels` are the names of classes 0, 1, … in their order.
    `hidden` says why a task should not be made of it (an id, a constant), or is empty.
    """

    name: str
    type: str
    labels: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    hidden: str = ""


@dataclass(frozen=True, slots=True)
class DatasetMeta:
    """One configuration of a dataset, as its card and its rows describe it.

    `samples` are rows as JSON objects; `rows` and `bytes` are -1 where unknown; `licence` is a name or an
    SPDX expression; `lineage` names the datasets it was made of; `files` are (split, path). `role` is
    "benchmark" for data that must not be trained on, "own" for a table without a card. `digest` changes
    with what it describes and its rows.
    """

    name: str
    config: str = ""
    summary: str = ""
    fields: tuple[FieldMeta, ...] = ()
    samples: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licence: str = ""
    rows: int = -1
    bytes: int = -1
    lineage: tuple[str, ...] = ()
    uri: str = ""
    digest: str = ""
    files: tuple[tuple[str, str], ...] = ()
    role: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """Return the dataset's name with its configuration."""
        return f"{self.name}:{self.config}" if self.config else self.name


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that left the river, with the reason and the evidence in one sentence."""

    row: Document | Example
    filter: str
    reason: Reason
    detail: str = ""
    score: float | None = field(default=None)


_SPAN = pa.struct([("uri", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("parent", pa.string())])
_SOURCE = pa.struct(
    [
        ("document", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("dataset", pa.string()),
        ("config", pa.string()),
        ("split", pa.string()),
        ("row", pa.int64()),
        ("licence", pa.string()),
        ("url", pa.string()),
    ]
)
_ORIGIN = pa.struct(
    [
        ("method", pa.string()),
        ("template", pa.string()),
        ("model", pa.string()),
        ("call", pa.string()),
        ("seed", pa.int64()),
        ("parents", pa.list_(pa.string())),
    ]
)
DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", _SPAN),
        ("title", pa.string()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("meta", pa.string()),
    ]
)
EXAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("context", pa.string()),
        ("instruction", pa.string()),
        ("response", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer_index", pa.int32()),
        ("rationale", pa.string()),
        ("source", _SOURCE),
        ("origin", _ORIGIN),
        ("meta", pa.string()),
    ]
)

VERDICT_SCHEMA = pa.schema(
    [("filter", pa.string()), ("reason", pa.string()), ("detail", pa.string()), ("score", pa.float64())]
)
"""What a filter says of one row. `reason` is null where the row is kept; `score` is stored where a
filter has one, so that thresholds can be applied later."""


def dropped_schema(row: pa.Schema) -> pa.Schema:
    """Return the schema of a stage's dropped rows: the row's own columns, then the verdict's."""
    for f in VERDICT_SCHEMA:
        row = row.append(f)
    return row


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        children = [_column([getattr(v, f.name) for v in values], f.type) for f in fields]
        return pa.StructArray.from_arrays(children, fields=fields)
    return pa.array(values, kind)


def to_table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Turn records (or Dropped records, for a dropped schema) into an Arrow table of `schema`."""
    columns = []
    for f in schema:
        if rows and isinstance(rows[0], Dropped):
            own = f.name in VERDICT_SCHEMA.names
            values = [getattr(r if own else r.row, f.name) for r in rows]
        else:
            values = [getattr(r, f.name) for r in rows]
        columns.append(_column(values, f.type))
    return pa.Table.from_arrays(columns, schema=schema)


def documents(table: pa.Table) -> Iterable[Document]:
    """Read a table of DOCUMENT_SCHEMA (extra columns are ignored) back into Documents."""
    spans = [Span(**s) for s in table["source"].to_pylist()]
    names = ("id", "text", "title", "language", "licence", "meta")
    plain = [table[n].to_pylist() for n in names]
    for i, (text_id, text, title, language, licence, meta) in enumerate(zip(*plain, strict=True)):
        yield Document(text_id, text, spans[i], title, language, licence, meta)


def examples(table: pa.Table, *, provenance: bool = True) -> Iterable[Example]:
    """Read a table of EXAMPLE_SCHEMA (extra columns are ignored) back into Examples.

    Without `provenance`, source and origin are left empty: half the time, for who judges text only.
    """
    names = ("id", "task", "context", "instruction", "response", "answer_index", "rationale", "meta")
    plain = zip(*(table[n].to_pylist() for n in names), strict=True)
    options = table["options"].to_pylist()
    sources, origins = (), ()
    if provenance:
        sources, origins = table["source"].to_pylist(), table["origin"].to_pylist()
    for i, (name, task, context, instruction, response, index, rationale, meta) in enumerate(plain):
        source, origin = Source(), Origin()
        if provenance:
            source = Source(**sources[i])
            made: dict[str, Any] = origins[i]
            made["parents"] = tuple(made["parents"] or ())
            origin = Origin(**made)
        choices = tuple(options[i] or ())
        yield Example(
            name, task, context, instruction, response, choices, index, rationale, source, origin, meta
        )
