"""Learning rate over the steps of a run, and the optimiser itself."""

from __future__ import annotations

import math
from typing import Any

from barcast.config.models import TrainingConfig

# Variables with one of these in their name do not shrink towards zero.
KEEPS = ("bias", "gamma", "beta", "embeddings")


def learning_rate(
    step: int, total_steps: int, *, peak: float, warmup_share: float, last_share: float
) -> float:
    """Linear warm-up to `peak`, then a half cosine down to `last_share` of it (Loshchilov and Hutter, 2017)."""
    warmup = max(1, round(total_steps * warmup_share))
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return peak * (last_share + (1 - last_share) * 0.5 * (1 + math.cos(math.pi * done)))


def adamw(config: TrainingConfig) -> Any:
    """AdamW with decoupled decay on kernels only (Loshchilov and Hutter, 2019)."""
    import keras

    optimiser = keras.optimizers.AdamW(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        gradient_accumulation_steps=config.accumulate_steps if config.accumulate_steps > 1 else None,
    )
    optimiser.exclude_from_weight_decay(var_names=list(KEEPS))
    if config.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimiser)
    return optimiser


def decays(variable: Any) -> bool:
    """Whether the weight decay reaches a variable."""
    return not any(word in variable.name for word in KEEPS)
