"""Growth: datasets come and go, versions stay; what of the old is trained on again; what was forgotten."""

__all__: list[str] = []
