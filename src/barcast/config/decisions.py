"""Settings of the decision layer: thresholds, sizes, limits, rewards, learning from feedback.

Confidence here is the SIDE confidence: calibrated p(side) / (p(side) + p(opposite)). HOLD's share does not
enter it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from barcast.config.base import Section


class RewardConfig(Section):
    """The documented schedule of rewards and penalties (points)."""

    profitable: float = Field(default=1.0, description="A trade with a net profit.")
    high_profit: float = Field(
        default=2.0, description="Added when the net return exceeds high_profit_return."
    )
    high_profit_return: float = Field(
        default=0.05, gt=0, description="Net simple return above which a profit is high."
    )
    quick_profit: float = Field(
        default=0.5, description="Added when a profit took less than quick_profit_hours."
    )
    quick_profit_hours: float = Field(
        default=1.0, gt=0, description="Duration below which a profit is quick."
    )
    low_risk: float = Field(
        default=0.3, description="Added to a profit whose risk level was low_risk_level or less."
    )
    low_risk_level: int = Field(
        default=2, ge=1, le=5, description="Highest risk level (1-5) that counts as low."
    )
    consistency: float = Field(
        default=0.5, description="Added when this and the consistency_trades before it were profits."
    )
    consistency_trades: int = Field(
        default=3, ge=1, description="Earlier profits in a row needed for consistency."
    )
    volatility_adaptation: float = Field(
        default=0.3,
        description="Added to a profit made in high volatility with a size within the volatility target.",
    )
    losing: float = Field(default=-0.5, description="A trade with a net loss.")
    big_loss: float = Field(default=-2.0, description="Added when the net return is below -big_loss_return.")
    big_loss_return: float = Field(
        default=0.03, gt=0, description="Net simple loss above which a loss is big."
    )
    missed: float = Field(
        default=-0.1, description="No trade where the predicted side would have earned more than costs."
    )
    early_stop: float = Field(
        default=-0.2, description="A trade closed before its horizon that would have earned more."
    )
    overconfidence: float = Field(default=-1.0, description="A loss taken with high confidence.")


class LearningConfig(Section):
    """Learning from outcomes: when the shadow copy is updated, and when a retraining is asked for."""

    enabled: bool = Field(default=True, description="Update a shadow copy from outcomes.")
    update_every_trades: int = Field(default=50, ge=1, description="Outcomes between two updates.")
    min_samples: int = Field(default=100, ge=1, description="Outcomes needed before the first update.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Learning rate of the first update.")
    learning_rate_decay: float = Field(
        default=0.95, gt=0, le=1, description="Factor on the learning rate after each update."
    )
    replay_share: float = Field(
        default=0.5, ge=0, le=0.95, description="Share of each update taken from the training rows."
    )
    drift_bound: float = Field(
        default=0.10,
        gt=0,
        description="Largest allowed relative distance of the shadow's weights from the champion's.",
    )
    revert_margin: float = Field(
        default=0.05,
        ge=0,
        description="The shadow returns to the champion when its log loss is worse by this much (nats).",
    )
    retrain_accuracy: float = Field(
        default=0.6, ge=0, le=1, description="Accuracy of acted decisions below which retraining is asked."
    )
    retrain_window_trades: int = Field(
        default=100, ge=1, description="Acted decisions over which that accuracy is measured."
    )
    retrain_min_hours: float = Field(
        default=24.0, ge=0, description="Least time between two requests for one model."
    )
    retrain_min_drop: float = Field(
        default=0.02,
        ge=0,
        description="A further request needs the accuracy to be lower than at the last one by this much.",
    )


class DecisionsConfig(Section):
    """From a prediction to advice. barcast sends no orders."""

    act_threshold: float = Field(default=0.65, ge=0.5, le=1, description="Least side confidence to act.")
    normal_threshold: float = Field(
        default=0.70, ge=0.5, le=1, description="Side confidence from which the size is not reduced."
    )
    high_threshold: float = Field(
        default=0.80, ge=0.5, le=1, description="Side confidence from which the size is raised."
    )
    low_confidence_size: float = Field(
        default=0.5, ge=0, description="Factor on the size below normal_threshold."
    )
    high_confidence_size: float = Field(
        default=1.5, ge=0, description="Factor on the size from high_threshold on."
    )
    min_move_probability: float = Field(
        default=0.10, ge=0, le=1, description="Least p(BUY) + p(SELL) to act at all."
    )
    min_edge_bps: float = Field(
        default=0.0, description="Least expected return of the side after costs, in basis points."
    )
    cost_bps: float = Field(
        default=10.0, ge=0, description="Round-trip cost assumed in the edge, in basis points."
    )
    allow_short: bool = Field(
        default=True, description="SELL may open a short position; else it only closes a long one."
    )
    kelly_fraction: float = Field(
        default=0.25, ge=0, le=1, description="Share of the full Kelly size that is used."
    )
    kelly_cap: float = Field(
        default=0.25, ge=0, le=1, description="Largest Kelly size, as a share of equity."
    )
    target_volatility: float = Field(
        default=0.02,
        gt=0,
        description="Volatility over one horizon that a full position may bring to equity.",
    )
    consensus_share: float = Field(
        default=0.5, ge=0, le=1, description="Least weighted share of ensemble members on the side."
    )
    max_expected_return: float = Field(
        default=0.25, gt=0, description="Predicted absolute return above which it is not believed."
    )
    max_return_sigmas: float = Field(
        default=5.0, gt=0, description="Same, in units of the expected volatility."
    )
    outlier_quantile: float = Field(
        default=0.995, gt=0, le=1, description="Training distance quantile above which we abstain."
    )
    outlier_factor: float = Field(default=1.5, gt=0, description="Factor on that quantile.")
    max_trades_per_hour: int = Field(
        default=4, ge=1, description="Most trades in any hour, all symbols together."
    )
    max_trades_per_symbol_hour: int = Field(
        default=2, ge=1, description="Most trades in any hour in one symbol."
    )
    cooldown_losses: int = Field(default=3, ge=1, description="Losses in a row after which trading pauses.")
    cooldown_bars: float = Field(default=12.0, ge=0, description="Length of that pause, in bars.")
    max_volatility_ratio: float = Field(
        default=3.0, gt=0, description="No trade when volatility is this many times its median."
    )
    max_position_share: float = Field(
        default=0.20, gt=0, le=1, description="Largest position, as a share of equity."
    )
    max_capital_share: float = Field(
        default=0.80, gt=0, le=5, description="Largest gross exposure, as a share of equity."
    )
    max_drawdown: float = Field(
        default=0.15, gt=0, le=1, description="Drawdown at which no position is opened."
    )
    emergency_drawdown: float = Field(
        default=0.25, gt=0, le=1, description="Drawdown that pulls the emergency stop."
    )
    max_correlation: float = Field(
        default=0.7, ge=0, le=1, description="Correlation from which two symbols count as one bet."
    )
    max_correlated_share: float = Field(
        default=0.30, gt=0, le=5, description="Largest net exposure of one such group."
    )
    min_size_share: float = Field(
        default=0.001, ge=0, description="Sizes below this share of equity are not worth a trade."
    )
    correlation_lookback_hours: float = Field(
        default=720.0, gt=0, description="History behind the correlation matrix."
    )
    correlation_refresh_hours: float = Field(default=24.0, gt=0, description="How often it is computed anew.")
    stress_loss: float = Field(
        default=0.30, gt=0, le=1, description="Largest share of equity a stress test may lose."
    )
    portfolio_method: Literal["mean_risk", "risk_parity", "inverse_volatility"] = Field(
        default="mean_risk", description="How capital is shared between symbols."
    )
    starting_equity: float = Field(
        default=100_000.0, gt=0, description="Equity a new paper account begins with."
    )
    reward: RewardConfig = RewardConfig()
    learning: LearningConfig = LearningConfig()

    @model_validator(mode="after")
    def _ordered(self) -> DecisionsConfig:
        if not self.act_threshold <= self.normal_threshold <= self.high_threshold:
            raise ValueError("thresholds must rise: act_threshold <= normal_threshold <= high_threshold")
        if self.emergency_drawdown < self.max_drawdown:
            raise ValueError("emergency_drawdown must be at least max_drawdown")
        return self
