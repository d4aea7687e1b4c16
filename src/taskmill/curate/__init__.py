"""Example → verdict. A filter says keep or why not; nothing here rewrites."""

__all__: list[str] = []
