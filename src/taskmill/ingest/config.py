"""The options of the ingest stage; flags, YAML keys and help are made from these fields."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmill.errors import UsageError

__all__ = ["IngestConfig"]


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """How sources are read and cut; raises UsageError for values that cannot work."""

    text_column: str = field(default="text", metadata={"help": "column that holds the text of a row"})
    title_column: str = field(
        default="title", metadata={"help": "column that holds the title, if there is one"}
    )
    language_column: str = field(default="", metadata={"help": "column that holds the language of a row"})
    licence_column: str = field(default="", metadata={"help": "column that holds the licence of a row"})
    licence: str = field(default="", metadata={"help": "licence of the sources where no column gives one"})
    language: str = field(default="", metadata={"help": "language of the sources where no column gives one"})
    chunk_tokens: int = field(default=256, metadata={"help": "most tokens (estimated) in one document"})
    overlap: int = field(
        default=0, metadata={"help": "tokens of whole sentences repeated from chunk to chunk"}
    )
    min_chars: int = field(default=40, metadata={"help": "drop documents of fewer characters"})
    max_file_mb: int = field(default=512, metadata={"help": "largest file that has to be read whole, in MB"})
    max_line_mb: int = field(default=32, metadata={"help": "longest line or cell of a table, in MB"})
    max_member_mb: int = field(
        default=256, metadata={"help": "largest unpacked part of a docx or epub, in MB"}
    )
    glob: str = field(default="", metadata={"help": "only files of a folder that match, such as '**/*.md'"})
    limit: int = field(default=0, metadata={"help": "stop after this many documents; 0 reads all"})
    split: str = field(default="train", metadata={"help": "split of a Hugging Face dataset"})

    def __post_init__(self) -> None:
        if not self.text_column:
            raise UsageError("text_column is empty; name the column that holds the text, such as 'text'")
        for name in ("chunk_tokens", "max_file_mb", "max_line_mb", "max_member_mb"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("overlap", "min_chars", "limit"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if self.overlap >= self.chunk_tokens:
            raise UsageError(f"overlap ({self.overlap}) must be below chunk_tokens ({self.chunk_tokens})")
