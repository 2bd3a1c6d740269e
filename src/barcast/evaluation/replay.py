"""History replayed as it would have happened: scheduled retraining, calibration and gate, each with what was
known.

At every retraining time T the injected trainer gets the rows whose labels had ended by T, holds some back,
and answers with a model; the gate compares it with the model in force on the rows held back; what it promotes
answers from the next bar after T on. Rows served that way, and those of two simpler policies (the first model
for ever, the newest model without a gate), go to `evaluate` like any predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.errors import DataError, RefusedError
from barcast.evaluation import gate
from barcast.evaluation.gate_types import Attempt, History, Scored, Verdict

GATED, NEWEST, FIRST = "retrained, gated", "retrained, no gate", "trained once"


class Trained(Protocol):
    """A model as the replay sees it."""

    @property
    def name(self) -> str: ...

    @property
    def seen_until(self) -> datetime:
        """End of the last label that training, validation or calibration saw."""

    @property
    def held_out(self) -> np.ndarray:
        """Positions of the rows it was not shown, on which the gate judges."""

    @property
    def thresholds(self) -> Any:
        """Class thresholds fitted on its training rows."""

    def predict(self, positions: np.ndarray, thresholds: Any) -> pl.DataFrame:
        """Predictions frame of these rows, labelled with the given thresholds."""


Trainer = Callable[[np.ndarray, datetime, int], Trained]


@dataclass(frozen=True)
class Replay:
    """What happened.

    Attributes:
        served: policy -> predictions frame of every bar served; column `fold` is the number of the model that
            answered.
        log: one row per retraining: at, candidate, in_force, outcome, decided, net_gain_bps, log_loss_gain,
            reason.
        verdicts: of the gate, in order; None where the first model started.
    """

    served: dict[str, pl.DataFrame]
    log: pl.DataFrame
    verdicts: tuple[Verdict | None, ...]

    @property
    def num_promotions(self) -> int:
        """Changes of the model in force after the first."""
        return sum(v is not None and v.outcome == "promote" for v in self.verdicts)


def schedule(rows: pl.DataFrame, *, first_share: float, every: timedelta) -> list[datetime]:
    """Retraining times: the close at `first_share` of the times, then every `every`, while rows remain to be
    served.

    Raises:
        DataError: fewer than two times.
    """
    times = rows["event_timestamp"].unique().sort()
    if len(times) < 2:
        raise DataError("A replay needs more than one bar of labelled rows.", hint="Use a longer history.")
    moment: datetime = times[max(1, min(len(times) - 2, int(len(times) * first_share)))]
    last: datetime = times[-1]
    out = []
    while moment < last:
        out.append(moment)
        moment = moment + every
    return out


def run(
    rows: pl.DataFrame,
    trainer: Trainer,
    *,
    retrain_at: Sequence[datetime],
    policy: GateConfig | None = None,
    costs: CostsConfig | None = None,
    horizon_bars: int,
    on_step: Callable[[str], None] | None = None,
) -> Replay:
    """Replay the schedule.

    Args:
        rows: label rows (symbol, event_timestamp, label_end_timestamp, ...); positions refer to their order.
        trainer: (positions of known rows, as_of, number of the retraining) -> model. It never gets a row
            whose label had not ended at as_of.
        retrain_at: from `schedule`.
        policy: the gate's; its infrastructure check is left out, since history has no model server.
        on_step: told one line per retraining.

    Raises:
        DataError: no row is known at the first retraining, or no row is left to serve.
    """
    policy = (policy or GateConfig()).model_copy(update={"require_infrastructure": False})
    costs = costs or CostsConfig()
    event, end = rows["event_timestamp"], rows["label_end_timestamp"]
    served: dict[str, list[pl.DataFrame]] = {GATED: [], NEWEST: [], FIRST: []}
    attempts: list[Attempt] = []
    verdicts: list[Verdict | None] = []
    log: list[dict[str, Any]] = []
    champion: Trained | None = None
    champion_number = 0
    first: Trained | None = None
    for number, moment in enumerate(retrain_at):
        known = np.flatnonzero((end <= moment).to_numpy())
        if len(known) == 0:
            raise DataError(f"No label had ended by {moment}.", hint="Begin the replay later.")
        candidate = trainer(known, moment, number)
        _check_honest(candidate, known, moment)
        until = retrain_at[number + 1] if number + 1 < len(retrain_at) else None
        later = event > moment if until is None else (event > moment) & (event <= until)
        to_serve = np.flatnonzero(later.to_numpy())
        if champion is None or first is None:
            champion = first = candidate
            verdict = None
        else:
            verdict = _judge(candidate, champion, policy, attempts, costs, horizon_bars, moment)
            attempts.append(verdict.attempt(moment))
            if verdict.outcome == "promote":
                champion, champion_number = candidate, number
        verdicts.append(verdict)
        log.append(_entry(moment, candidate, champion, verdict))
        if on_step is not None:
            on_step(f"{moment:%Y-%m-%d %H:%M} {candidate.name}: {log[-1]['outcome']}")
        if len(to_serve) == 0:
            continue
        for policy_name, model, fold in (
            (GATED, champion, champion_number),
            (NEWEST, candidate, number),
            (FIRST, first, 0),
        ):
            # all policies are labelled with the first model's thresholds: the same truth for all, known at
            # the start
            frame = model.predict(to_serve, first.thresholds)
            served[policy_name].append(
                frame.with_columns(
                    pl.lit(policy_name).alias("model"), pl.lit(fold, dtype=pl.Int32).alias("fold")
                )
            )
    if not served[GATED]:
        raise DataError(
            "No bar was left to serve after the first training.", hint="Begin the replay earlier."
        )
    frames_by_policy = {
        name: pl.concat(parts).sort("symbol", "event_timestamp") for name, parts in served.items()
    }
    return Replay(frames_by_policy, pl.DataFrame(log, infer_schema_length=None), tuple(verdicts))


def _judge(
    candidate: Trained,
    champion: Trained,
    policy: GateConfig,
    attempts: Sequence[Attempt],
    costs: CostsConfig,
    horizon_bars: int,
    moment: datetime,
) -> Verdict:
    window = candidate.held_out
    ours = Scored(candidate.name, candidate.predict(window, candidate.thresholds), candidate.seen_until)
    theirs = Scored(champion.name, champion.predict(window, candidate.thresholds), champion.seen_until)
    return gate.decide(
        ours, theirs, policy, History(tuple(attempts)), costs=costs, horizon_bars=horizon_bars, as_of=moment
    )


def _check_honest(candidate: Trained, known: np.ndarray, moment: datetime) -> None:
    """A trainer that reached past `moment`, or judges a model on rows it saw, would make the whole replay
    worthless.
    """
    if not np.isin(candidate.held_out, known).all():
        raise RefusedError(
            f"{candidate.name} holds back rows that were not known at {moment}.",
            hint="Train and hold back only from the positions that the trainer is given.",
        )
    if candidate.seen_until > moment:
        raise RefusedError(
            f"{candidate.name} says it saw labels up to {candidate.seen_until}, after its training time {moment}.",
            hint="Train only on the positions that the trainer is given.",
        )


def _entry(
    moment: datetime, candidate: Trained, champion: Trained, verdict: Verdict | None
) -> dict[str, Any]:
    numbers = {} if verdict is None else verdict.numbers
    return {
        "at": moment,
        "candidate": candidate.name,
        "in_force": champion.name,
        "outcome": "first" if verdict is None else verdict.outcome,
        "decided": True if verdict is None else verdict.decided,
        "net_gain_bps": numbers.get("net_gain_bps"),
        "log_loss_gain": numbers.get("log_loss_gain"),
        "reason": "The first model starts." if verdict is None else verdict.reasons[0],
    }
