"""Raw text and existing datasets in, instruction-tuning data out, with proof that it helps.

Importing this package is cheap, silent and offline. The journeys are in `taskmill.recipes`, the
drop-in for `bonito-llm` is `taskmill.bonito.Bonito`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
