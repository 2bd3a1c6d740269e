"""Settings of evaluation: trading costs, what is measured, and what the gate asks of a candidate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from barcast.config.base import Section


class CostsConfig(Section):
    """What trading costs and how far a position may go. Basis points are of the traded notional."""

    fee_bps: float = Field(default=1.0, ge=0, description="Commission per side.")
    spread_bps: float = Field(
        default=2.0, ge=0, description="Full bid-ask spread; half of it is paid per side."
    )
    slippage_bps: float = Field(default=0.5, ge=0, description="Extra price concession per side.")
    funding_bps_per_day: float = Field(
        default=0.0, description="Funding that a long position pays and a short receives (perpetual futures)."
    )
    borrow_bps_per_year: float = Field(
        default=50.0, ge=0, description="Borrow fee on the notional of a short position."
    )
    side: Literal["short", "exit_only"] = Field(
        default="short", description="What SELL does: opens a short, or only closes a long (exit_only)."
    )
    trade_at: Literal["next_open", "next_close"] = Field(
        default="next_open",
        description="The price a decision of bar t trades at: bar t+1's open or its close.",
    )
    position_rule: Literal["tranches", "latest", "keep"] = Field(
        default="tranches",
        description="tranches: each decision holds 1/horizon of the position for horizon bars; latest: the "
        "last decision is the whole position, HOLD is flat; keep: as latest, but HOLD changes nothing.",
    )
    sizing: Literal["unit", "model"] = Field(
        default="unit",
        description="Size of a decision: the whole allowed position, or the model's position_size of it.",
    )
    min_confidence: float = Field(
        default=0.0, ge=0, le=1, description="A BUY or SELL below this confidence is a HOLD."
    )
    max_position: float = Field(
        default=1.0, gt=0, description="Largest position of a symbol, in parts of its own equity."
    )
    max_gross_exposure: float = Field(
        default=1.0,
        gt=0,
        description="Largest sum of absolute positions over all symbols, in parts of all capital.",
    )
    max_participation: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Largest share of the decision bar's traded value that one trade may take.",
    )
    capital: float = Field(
        default=0.0, ge=0, description="Starting capital; 0 leaves trades unlimited by volume."
    )

    @property
    def one_way(self) -> float:
        """Cost of trading one unit of notional once, as a fraction."""
        return (self.fee_bps + self.spread_bps / 2 + self.slippage_bps) / 1e4


class EvaluationConfig(Section):
    """What is measured and how the sliced analysis judges."""

    confidence_levels: int = Field(default=10, ge=2, description="Bands of confidence and of calibration.")
    cost_levels_bps: tuple[float, ...] = Field(
        default=(0.0, 1.0, 2.0, 5.0, 10.0, 20.0),
        description="One-way costs at which the cost curve is drawn.",
    )
    horizon_multiples: tuple[float, ...] = Field(
        default=(0.5, 1.0, 2.0),
        description="Holding times, in parts of the horizon, at which break-even and capacity are shown.",
    )
    value_at_risk_share: float = Field(
        default=0.05, gt=0, lt=0.5, description="Tail share of value at risk and shortfall."
    )
    risk_free_rate: float = Field(default=0.0, description="Yearly risk-free rate, as a simple return.")
    bootstrap_samples: int = Field(
        default=1000, ge=100, description="Resamples behind each confidence interval."
    )
    block_days: float = Field(
        default=5.0, gt=0, description="Least length of a bootstrap block in calendar days."
    )
    learning_periods: int = Field(
        default=8, ge=2, description="Equal spans of time in which learning metrics are shown."
    )
    tfma: bool = Field(
        default=True, description="Run TFX's sliced model analysis (tens of seconds, once per run)."
    )
    tfma_max_rows: int = Field(
        default=20_000,
        ge=100,
        description="Rows that the sliced model analysis sees, shared by all models, drawn from the whole window.",
    )
    tfma_min_slice_rows: int = Field(
        default=100, ge=1, description="Slices with fewer rows are shown, not judged."
    )
    min_slice_accuracy: float = Field(
        default=0.15, ge=0, le=1, description="Value threshold: accuracy of any judged slice."
    )
    max_slice_accuracy_drop: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Change threshold: accuracy lost, beyond chance, against the incumbent.",
    )
    lightgbm_rounds: int = Field(default=150, ge=1, description="Boosting rounds of the LightGBM baseline.")
    seed: int = Field(default=7, description="Seed of bootstraps, baselines and permutations.")


class GateConfig(Section):
    """What a candidate must show before it replaces the incumbent."""

    false_promotions_per_year: float = Field(
        default=0.03,
        gt=0,
        lt=1,
        description="Budget: bound on the chance of promoting at least one equal model in a year of attempts.",
    )
    attempts_per_year: int = Field(
        default=52, ge=1, description="Attempts the yearly budget is divided over."
    )
    block_days: float = Field(
        default=3.0, gt=0, description="Least length of a bootstrap block in calendar days."
    )
    min_blocks: int = Field(
        default=12, ge=4, description="Fewer blocks of calendar time than this decide nothing."
    )
    min_trades: int = Field(
        default=30, ge=1, description="Fewer BUY or SELL rows than this say nothing about returns."
    )
    bootstrap_samples: int = Field(
        default=20_000, ge=1000, description="Resamples of blocks behind the test."
    )
    non_inferiority_share: float = Field(
        default=0.20,
        gt=0,
        lt=0.5,
        description="A promotion on one measure must not be worse on the other at this level.",
    )
    min_deflated_sharpe: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Least deflated Sharpe probability for a promotion that rests on net return.",
    )
    seed_noise_multiple: float = Field(
        default=1.0, ge=0, description="The gain must exceed this many times the spread between seeds."
    )
    max_accuracy: float = Field(
        default=0.60, gt=0, le=1, description="Leak alarm: share of acted rows with the right side above."
    )
    max_sharpe: float = Field(default=3.0, gt=0, description="Leak alarm: yearly net Sharpe above.")
    max_rank_ic: float = Field(
        default=0.20, gt=0, le=1, description="Leak alarm: rank correlation with the outcome above."
    )
    max_calibration_error: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Largest expected calibration error, beyond what chance explains.",
    )
    min_slice_rows: int = Field(default=200, ge=1, description="Slices with fewer rows are not judged.")
    max_slice_harm_share: float = Field(
        default=0.05, gt=0, lt=1, description="Level of the no-harm test per slice, over all slices together."
    )
    require_blessing: bool = Field(default=True, description="Ask for TFX's blessing where it was computed.")
    require_infrastructure: bool = Field(
        default=True, description="Ask that a model server loaded and answered."
    )
    infrastructure: Literal["embedded", "tensorflow_serving"] = Field(
        default="embedded",
        description="Who loads the candidate for that: the embedded server, or, in a step of Kubeflow Pipelines, "
        "TensorFlow Serving in a pod that TFX's InfraValidator starts.",
    )
    infrastructure_image: str = Field(
        default="tensorflow/serving:2.19.1",
        pattern=r"^\S+:[\w.-]+$",
        description="Image of that pod, with its tag.",
    )
    seed: int = Field(default=11, description="Seed of the bootstrap.")
