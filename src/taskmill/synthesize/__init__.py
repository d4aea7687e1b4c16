"""Document + task type + Generator → Example. Nothing here judges."""

__all__: list[str] = []
