"""Who features belong to."""

from generation import definitions

symbol = definitions.symbol
