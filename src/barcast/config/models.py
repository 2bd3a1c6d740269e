"""Settings of labels, time splits, the network and its training."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from barcast.config.base import Section


class LabelsConfig(Section):
    """How the outcome after a bar becomes SELL, HOLD or BUY."""

    scheme: Literal["fixed_horizon", "triple_barrier", "user"] = Field(
        default="fixed_horizon",
        description="Exit after a fixed number of bars, at the first barrier touched, or as the user's file says.",
    )
    user_labels: str | None = Field(
        default=None,
        description="A Python file with the user's own labels (see the guide `add a feature`); with scheme `user`.",
    )
    volatility_span_bars: int = Field(
        default=60,
        ge=5,
        description="Span of the exponentially weighted volatility that scales thresholds and barriers.",
    )
    hold_share: float = Field(
        default=1 / 3,
        gt=0,
        lt=0.95,
        description="Share of training rows that the fitted thresholds put into HOLD.",
    )
    barrier_width: float = Field(
        default=1.0,
        gt=0,
        description="Distance of the triple barriers, in units of the horizon's volatility.",
    )
    max_gap_bars: int = Field(
        default=6,
        ge=0,
        description="A window or label that spans more missing bars than this is dropped and counted.",
    )
    weighting: Literal["uniqueness", "none"] = Field(
        default="uniqueness",
        description="Weight training rows by average uniqueness, since their horizons overlap.",
    )

    @model_validator(mode="after")
    def _file_of_user(self) -> Self:
        if (self.scheme == "user") != (self.user_labels is not None):
            raise ValueError("labels: scheme `user` and user_labels go together")
        return self


class SplitsConfig(Section):
    """How time is cut into training, validation, calibration and test spans, the same for all symbols."""

    test_share: float = Field(
        default=0.2, gt=0, lt=0.8, description="Share of the times held out for the test, at the end."
    )
    validation_share: float = Field(
        default=0.2, gt=0, lt=0.8, description="Share of the times before the test used for early stopping."
    )
    calibration_share: float = Field(
        default=0.1,
        gt=0,
        lt=0.8,
        description="Share of the times before the test used to calibrate confidence.",
    )
    embargo_bars: int = Field(
        default=1,
        ge=0,
        description="Times skipped at the start of each span, after the purge by the labels' own ends.",
    )
    folds: int = Field(default=4, ge=1, description="Number of walk-forward test spans.")
    walk_forward_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Share of the times, at the end, that the walk-forward test spans cover.",
    )
    min_train_rows: int = Field(
        default=200, ge=1, description="Fewest training rows of a fold; fewer is an error."
    )
    tuning_folds: int = Field(
        default=3, ge=2, description="Purged folds each trial of a search is scored on."
    )

    @model_validator(mode="after")
    def _some_training(self) -> Self:
        if self.validation_share + self.calibration_share >= 1:
            raise ValueError("validation_share and calibration_share leave no times to train on")
        return self


class ModelConfig(Section):
    """The network. A preset sets every size; a field given here overrides it."""

    preset: Literal["laptop", "standard", "large"] = Field(
        default="laptop", description="Set of sizes to start from."
    )
    lstm_units: tuple[PositiveInt, ...] | None = Field(
        default=None, description="Units of each LSTM layer, first to last."
    )
    lstm_dropout: float | None = Field(default=None, ge=0, lt=1, description="Dropout between LSTM layers.")
    recurrent_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout on the recurrent state."
    )
    attention_heads: int | None = Field(default=None, ge=1, description="Number of attention heads.")
    attention_key_dim: int | None = Field(
        default=None, ge=1, description="Size of each attention head's key."
    )
    attention_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout on attention weights."
    )
    dense_units: tuple[PositiveInt, ...] | None = Field(
        default=None, description="Units of the decision layers."
    )
    dense_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout in the decision layers."
    )
    symbol_embedding_dim: int | None = Field(default=None, ge=1, description="Size of the symbol embedding.")
    bayesian_samples: int | None = Field(
        default=None, ge=1, description="Saved dropout masks that an answer is averaged over."
    )
    symbol_capacity: int = Field(
        default=64,
        ge=2,
        description="Rows of the symbol embedding; id 0 is the unknown symbol, ids are append-only.",
    )
    recurrence: Literal["auto", "fused", "unrolled"] = Field(
        default="auto",
        description="How LSTM steps run: TensorFlow's one fused operation, unrolled keras.ops, or (auto) fused, with "
        "wide networks trained through steps that use all cores and compile longer.",
    )


class LossConfig(Section):
    """Weights and costs of the parts of the training loss."""

    class_weight: float = Field(default=1.0, ge=0, description="Weight of the class cross-entropy.")
    profit_weight: float = Field(
        default=0.1, ge=0, description="Weight of the net profit of the implied position."
    )
    return_weight: float = Field(
        default=0.1, ge=0, description="Weight of the Huber loss of the expected return."
    )
    volatility_weight: float = Field(
        default=0.05, ge=0, description="Weight of the expected volatility's likelihood."
    )
    regime_weight: float = Field(
        default=0.05, ge=0, description="Weight of the regime, volatility regime and trend heads."
    )
    confidence_weight: float = Field(
        default=0.05, ge=0, description="Weight of the confidence head's cross-entropy."
    )
    cost_bps: float = Field(
        default=2.0, ge=0, description="Cost of each side of a trade in the profit term, basis points."
    )
    l2: float = Field(default=1e-5, ge=0, description="L2 penalty on kernels.")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="Share of probability spread over all classes."
    )
    balance_classes: bool = Field(
        default=True, description="Weight classes inversely to their share of training rows."
    )
    balance_regimes: bool = Field(
        default=False, description="Weight rows inversely to the share of their regime."
    )


class SelectionConfig(Section):
    """Which features a model reads, decided on its training rows only; the FeatureService stays whole."""

    enabled: bool = Field(
        default=True, description="Off: a model reads every feature that varies in its training rows."
    )
    folds: int = Field(
        default=3, ge=2, description="Purged folds inside the training rows on which importance must hold."
    )
    sample_rows: int = Field(
        default=20_000, ge=500, description="Most rows, evenly spread, that each sieve and fold reads."
    )
    max_correlation: float = Field(
        default=0.98,
        gt=0,
        le=1,
        description="Of two features with a higher absolute rank correlation one is left out.",
    )
    min_stability: float = Field(
        default=0.5, ge=0, le=1, description="Least share of folds in which shuffling a feature must hurt."
    )
    min_features: int = Field(
        default=40, ge=1, description="The best are kept up to this number, whatever the sieves say."
    )
    max_features: int | None = Field(default=None, ge=1, description="Most features kept; None has no limit.")


class TrainingConfig(Section):
    """How models are fitted."""

    batch_size: int | None = Field(default=None, ge=1, description="Rows a step; None takes the preset's.")
    accumulate_steps: int = Field(
        default=1, ge=1, description="Batches whose gradients are added before one update."
    )
    max_epochs: int | None = Field(default=None, ge=1, description="Most epochs; None takes the preset's.")
    patience_epochs: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without a better validation loss before stopping; None takes the preset's.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate of AdamW.")
    min_learning_rate_share: float = Field(
        default=0.05, ge=0, le=1, description="Last learning rate as a share of the peak."
    )
    warmup_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of all steps over which the rate rises."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay of AdamW.")
    clip_norm: float = Field(default=1.0, gt=0, description="Largest global norm of a gradient.")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32", description="Number format of the layers' products."
    )
    max_epoch_rows: int | None = Field(
        default=None, ge=1, description="Most rows drawn for each epoch; None takes the preset's."
    )
    max_validation_rows: int | None = Field(
        default=None,
        ge=1,
        description="Most rows, evenly spread, that early stopping looks at; None takes the preset's.",
    )
    nan_restarts: int = Field(
        default=2, ge=0, description="Restores of the last checkpoint after a NaN loss, then an error."
    )
    noise_seeds: int = Field(
        default=1,
        ge=0,
        description="Further trainings of the universal network with other seeds, which show the gate how much of a "
        "gain is luck; each costs as much as the first. 0 leaves it unknown.",
    )
    checkpoint_epochs: int = Field(default=1, ge=1, description="Epochs between checkpoints.")
    min_rows: int = Field(default=100, ge=1, description="Fewest training rows; fewer is an error.")
    loss: LossConfig = LossConfig()
    selection: SelectionConfig = SelectionConfig()
    transfer_mode: Literal["staged", "head", "full"] = Field(
        default="staged",
        description="A symbol's fit: gradual unfreezing, a new head only, or everything at once.",
    )
    transfer_epochs: int = Field(default=6, ge=1, description="Most epochs of a symbol's fine-tuning.")
    transfer_learning_rate: float = Field(
        default=5e-4, gt=0, description="Peak learning rate of a symbol's fine-tuning."
    )
    transfer_from: Literal["universal", "most_correlated", "best"] = Field(
        default="universal",
        description="The parent of a symbol's model: the universal one, the model of the symbol that moves most like "
        "it, or whichever of the two gives the lower validation loss (twice the time).",
    )
    min_symbol_rows: int = Field(
        default=1000, ge=1, description="Training rows a symbol needs for a model of its own."
    )
    symbols_per_step: int = Field(default=16, ge=1, description="Symbols trained in one pipeline step.")
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Worker processes that train symbols side by side; None for one a core.",
    )
    ensemble: bool = Field(
        default=True, description="Join network, linear model and specialists into a further candidate."
    )
    continual: Literal["plain", "replay", "ewc", "distillation", "progressive"] = Field(
        default="replay", description="How an existing model learns new bars without losing the old ones."
    )
    replay_share: float = Field(
        default=0.5, ge=0, lt=1, description="Share of old rows in each batch of replay."
    )
    ewc_strength: float = Field(default=100.0, ge=0, description="Strength of elastic weight consolidation.")
    distillation_weight: float = Field(
        default=1.0, ge=0, description="Weight of the old model's answers in distillation."
    )
    distillation_temperature: float = Field(
        default=2.0, gt=0, description="Temperature of the answers distilled."
    )
    compress: Literal["none", "student", "int8", "student_int8"] = Field(
        default="none",
        description="What is exported of a network: itself, a small student distilled from it, itself with recurrent "
        "weights in eight bits, or both.",
    )
    pretrain_epochs: int = Field(
        default=0, ge=0, description="Epochs of masked-bar pre-training of the encoder; 0 is off."
    )
    pretrain_mask_share: float = Field(
        default=0.15, gt=0, lt=1, description="Share of bars masked in pre-training."
    )

    curriculum_epochs: int = Field(
        default=0, ge=0, description="Epochs until unclear outcomes are all learned too; 0 is off."
    )
    adversarial_size: float = Field(
        default=0.0,
        ge=0,
        description="How far adversarial training moves each feature, in its deviations; 0 is off.",
    )

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.loss.class_weight + self.loss.profit_weight <= 0:
            raise ValueError("loss: give class_weight or profit_weight a value above 0")
        return self


class Bounds(Section):
    """Log-uniform bounds of a searched value."""

    low: float = Field(gt=0, description="Lowest value.")
    high: float = Field(gt=0, description="Highest value.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self


class TuningConfig(Section):
    """How hyper-parameters are searched."""

    sampler: Literal["tpe", "random", "grid"] = Field(
        default="tpe", description="How the next trial is chosen: by what the earlier ones found, or not."
    )
    trials: int = Field(default=20, ge=1, description="Trials that one search adds to its study.")
    space: dict[str, list[int | float | str] | Bounds] = Field(
        default={},
        description="What is searched: lists of values, or bounds `{low: ..., high: ...}`, by the name of a setting "
        'of model, training or training.loss (`dropout` sets all; `lstm_units` as text, "64,32"). Empty: the '
        "documented space.",
    )

    def axes(self) -> dict[str, list[Any] | tuple[float, float]] | None:
        """The space as `training.tuning` takes it; None for the documented one."""
        found = {k: (v.low, v.high) if isinstance(v, Bounds) else list(v) for k, v in self.space.items()}
        return found or None
