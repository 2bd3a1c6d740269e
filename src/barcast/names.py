"""Names of models and files made from symbols: stable, reversible, accepted by MLflow and file systems."""

from __future__ import annotations

import re
import string

from barcast.errors import ConfigError

_PLAIN = frozenset(string.ascii_letters + string.digits + "-")
UNIVERSAL = "universal"
LINEAR = "_linear"  # the baseline served as a fallback; no slug can begin like this, nor the next
ENSEMBLE = "_ensemble"
SHARED = (UNIVERSAL, LINEAR, ENSEMBLE)  # words of models that answer for every symbol


def slug(symbol: str) -> str:
    """`symbol` with every byte outside [A-Za-z0-9-] written as `_` and two hex digits.

    "BTC/USDT" becomes "BTC_2fUSDT". A symbol named like the universal model has its first letter escaped.
    """
    if not symbol:
        raise ConfigError("A symbol is empty.", hint="Give every series a name, such as 'AAPL'.")
    if symbol == UNIVERSAL:
        return f"_{ord(symbol[0]):02x}{symbol[1:]}"
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"_{byte:02x}" for byte in symbol.encode())


def unslug(text: str) -> str:
    """The symbol that `slug` wrote as `text`.

    Raises:
        ConfigError: `text` was not written by `slug`.
    """
    if not re.fullmatch(r"(?:[A-Za-z0-9-]|_[0-9a-f]{2})+", text):
        raise ConfigError(
            f"{text!r} is not a symbol's file name.", hint="Use names.slug(symbol) to make one."
        )
    raw = re.sub(r"_([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), text)
    return raw.encode("latin-1").decode()


def model_name(workspace: str, symbol: str | None) -> str:
    """The registered and served name: `<workspace>.universal`, or `<workspace>.<slug>` of a symbol's own model."""
    return f"{workspace}.{UNIVERSAL if symbol is None else slug(symbol)}"


def linear_name(workspace: str) -> str:
    """The registered and served name of the workspace's linear baseline."""
    return f"{workspace}.{LINEAR}"


def ensemble_name(workspace: str) -> str:
    """The registered and served name of the workspace's ensemble."""
    return f"{workspace}.{ENSEMBLE}"


def word_of(name: str) -> str:
    """How a person names a registered model: the symbol, or one of `SHARED`."""
    tail = name.rpartition(".")[2]
    return tail if tail in SHARED else unslug(tail)


def symbol_of(name: str) -> str | None:
    """The symbol that a model name belongs to; None for a model of all symbols."""
    tail = name.rpartition(".")[2]
    return None if tail in SHARED else unslug(tail)
