"""Sizes of the network: presets, and the frozen description every saved model carries.

A ModelConfig names a preset and may override its fields; `architecture` resolves both into an Architecture,
which is all that is needed to build the same network again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from barcast.config.models import ModelConfig
from barcast.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the network's variables.

    `selected` holds the positions of the features used, inside the generation's `num_features`; `columns` counts
    progressive columns; `int8` stores recurrent matrices in eight bits; `specialists` names an ensemble's
    specialists with their features' positions.
    """

    num_features: int
    lookback_bars: int
    selected: tuple[int, ...]
    lstm_units: tuple[int, ...]
    lstm_dropout: float
    recurrent_dropout: float
    attention_heads: int
    attention_key_dim: int
    attention_dropout: float
    dense_units: tuple[int, ...]
    dense_dropout: float
    symbol_embedding_dim: int
    symbol_capacity: int
    bayesian_samples: int
    recurrence: str
    columns: int = 0
    int8: bool = False
    specialists: tuple[tuple[str, tuple[int, ...]], ...] = ()
    precision: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """The architecture that `to_dict` wrote.

        Raises:
            ModelError: a field is missing or unknown: the file belongs to another version.
        """
        try:
            plain: dict[str, Any] = {k: _tuples(v) for k, v in values.items()}
            return cls(**plain)
        except TypeError as error:
            raise ModelError(
                f"The saved architecture is not understood: {error}.", hint="Train again."
            ) from error


def _tuples(value: Any) -> Any:
    """JSON's lists back to tuples, at every depth."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Preset:
    """A named set of sizes with the training settings that suit it.

    `epoch_rows` and `validation_rows` bound what one epoch draws and looks at: windows of neighbouring bars say nearly
    the same, so on long histories a share of them, drawn anew each epoch, teaches as well.
    """

    lstm_units: tuple[int, ...]
    lstm_dropout: float
    recurrent_dropout: float
    attention_heads: int
    attention_key_dim: int
    attention_dropout: float
    dense_units: tuple[int, ...]
    dense_dropout: float
    symbol_embedding_dim: int
    bayesian_samples: int
    batch_size: int
    max_epochs: int
    patience_epochs: int
    epoch_rows: int | None = None
    validation_rows: int | None = None


# Networks whose widest LSTM layer has this many units train long enough to repay the compiling of unrolled steps.
WIDE = 128

PRESETS = {
    # Small enough for two cores.
    "laptop": Preset((64, 32, 16), 0.2, 0.0, 4, 16, 0.1, (64, 32, 16), 0.3, 8, 16, 256, 8, 3, 40_000, 10_000),
    # The documented sizes.
    "standard": Preset((128, 64, 32), 0.2, 0.1, 8, 64, 0.1, (64, 32, 16), 0.3, 16, 32, 64, 100, 15),
    # About 2.5 million parameters at 160 features.
    "large": Preset((448, 256, 128), 0.2, 0.1, 8, 64, 0.1, (256, 128, 64), 0.3, 32, 32, 64, 100, 15),
}


def architecture(
    config: ModelConfig,
    *,
    num_features: int,
    lookback_bars: int,
    selected: tuple[int, ...] | None = None,
    precision: str = "float32",
) -> Architecture:
    """The architecture that `config` means for this feature generation."""
    preset = PRESETS[config.preset]
    fields = (
        "lstm_units",
        "lstm_dropout",
        "recurrent_dropout",
        "attention_heads",
        "attention_key_dim",
        "attention_dropout",
        "dense_units",
        "dense_dropout",
        "symbol_embedding_dim",
        "bayesian_samples",
    )
    chosen: dict[str, Any] = {
        name: getattr(preset, name) if getattr(config, name) is None else getattr(config, name)
        for name in fields
    }
    return Architecture(
        num_features=num_features,
        lookback_bars=lookback_bars,
        selected=tuple(range(num_features)) if selected is None else selected,
        symbol_capacity=config.symbol_capacity,
        recurrence=config.recurrence,
        precision=precision,
        **chosen,
    )
