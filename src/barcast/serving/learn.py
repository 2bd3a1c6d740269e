"""One look at the outcomes of a served model: its shadow learns, and a weak model asks once for a retraining.

prediction log (answers with their outcomes, trades with their rewards) + features of the same bars →
samples → `Shadow`. Every logged answer counts, not only those that were traded; a trade's reward changes its weight.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import clock, names
from barcast.bars import adjusted, calendars_of
from barcast.config import Config
from barcast.config.decisions import DecisionsConfig
from barcast.decisions.confidence import side_of
from barcast.decisions.learning import Retrain, retrain
from barcast.decisions.rewards import missed
from barcast.durable import alone
from barcast.errors import ServingError
from barcast.known_outcomes import known_outcomes
from barcast.quiet_tensorflow import load_tensorflow
from barcast.serving.live import LiveReader
from barcast.serving.online import Samples, Shadow, Update, weights_of
from barcast.serving.prediction_log import PredictionLog, with_times
from barcast.wording import count
from barcast.workspace import Workspace

REPLAY_ROWS = 2000
SHADOW, CHAMPION = "judged_shadow.parquet", "judged_champion.parquet"


@dataclass(frozen=True)
class Learnt:
    """What was done.

    Attributes:
        parent: model and version learnt from.
        outcomes: logged answers of that version with a known outcome.
    """

    parent: str
    outcomes: int
    update: Update
    retrain: Retrain


def learn(workspace: Workspace, config: Config, log: PredictionLog, bars: pl.DataFrame) -> Learnt:
    """Let the shadow of the live universal model look at all its outcomes.

    Args:
        bars: bars frame, as traded, with the history that features need.

    Raises:
        ServingError: no universal model is live.
        RefusedError: another learns now.
    """
    with shadow_alone(workspace):
        return _learn(workspace, config, log, bars)


def _learn(workspace: Workspace, config: Config, log: PredictionLog, bars: pl.DataFrame) -> Learnt:
    model = names.model_name(config.workspace, None)
    version = LiveReader(workspace.models, config.workspace).read().stable(model)
    if version is None:
        raise ServingError(
            "No universal network is live, and only its copy learns.",
            hint="See `barcast models list`: the gate may have kept it out.",
        )
    load_tensorflow()
    from barcast.training import TrainedModel

    log.join_outcomes(bars, config.horizon_bars)
    folder = workspace.models / model / str(version)
    learning = config.decisions.learning
    shadow = Shadow(
        folder_of(workspace),
        f"{model}/{version}",
        lambda: TrainedModel.load(folder),
        learning,
        seed=config.seed,
    )
    rows = _answers(log, model, version, config.decisions)
    table = _table(bars, config, shadow)
    outcomes, replay, facts = _samples(table, rows, shadow)
    update = shadow.learn(outcomes, _keys(facts), replay)
    _keep_judged(shadow, update, facts[update.fresh], outcomes.labels[update.fresh])
    if update.done == "updated":
        log.mark_learned(rows["trade_id"].drop_nulls().to_list())
    verdict = retrain(_acted(rows), clock.now(), shadow.state, learning)
    if verdict.ask:
        shadow.remember(retrain_asked_at=clock.now(), retrain_accuracy=verdict.accuracy)
    return Learnt(f"{model}/{version}", len(outcomes), update, verdict)


def shadow_alone(workspace: Workspace) -> AbstractContextManager[None]:
    """One program at a time at the shadow: two that learn at once would mix their weights, states and judgements.

    Raises:
        RefusedError: another is at it.
    """
    return alone(
        workspace.state / "shadow.lock",
        f"`barcast feedback learn` or `offer` of workspace {workspace.name!r}",
        "Let it finish, then ask again.",
    )


def look(config: str) -> str:
    """`learn` for a whole workspace, from its configuration as JSON: what was done, in words."""
    from barcast.bars.ingest import open_store

    settings = Config.model_validate_json(config)
    workspace = settings.open_workspace()
    log = PredictionLog(workspace.logs / "predictions.db")
    try:
        done = learn(workspace, settings, log, open_store(settings, workspace).read())
    finally:
        log.close()
    asked = "is asked for" if done.retrain.ask else "is not asked for"
    lines = [
        f"{done.parent}: {count(done.outcomes, 'outcome')}; {done.update.done} ({done.update.reason}).",
        f"Retraining {asked}: {done.retrain.reason}.",
    ]
    if done.update.judged is not None:
        lines.append(
            "The shadow has answered outcomes unseen: `barcast feedback offer` takes it to the gate."
        )
    return "\n".join(lines)


def folder_of(workspace: Workspace) -> Path:
    """Where the shadow, its state and what it was judged by are kept."""
    return workspace.state / "shadow"


def _keys(facts: pl.DataFrame) -> pl.Series:
    """A name for each outcome: its symbol and bar."""
    stamp = pl.col("event_timestamp").dt.epoch("us").cast(pl.Utf8)
    return facts.select(key=pl.concat_str("symbol", stamp, separator=" "))["key"]


def _keep_judged(shadow: Shadow, update: Update, facts: pl.DataFrame, labels: np.ndarray) -> None:
    """Two predictions frames, shadow's and champion's, over all outcomes that the shadow answered unseen.

    They begin anew with a shadow that begins anew: a first update, or a return to the champion.
    """
    files = [shadow.folder / name for name in (SHADOW, CHAMPION)]
    if update.done == "reverted" or (update.done == "updated" and update.judged is None):
        for file in files:
            file.unlink(missing_ok=True)
    if update.judged is None:
        return
    before = read_judged(shadow.folder)
    for file, kept, p in zip(files, before, update.judged, strict=True):
        said = pl.DataFrame(p, schema=["p_sell", "p_hold", "p_buy"], orient="row")
        frame = facts.with_columns(pl.Series("label", labels, dtype=pl.Int8)).hstack(said)
        temporary = file.with_name(f".{file.name}")
        pl.concat([kept, frame] if kept.height else [frame]).write_parquet(temporary)
        temporary.replace(file)


def read_judged(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What shadow and champion answered to the same outcomes, row by row; both empty before the first.

    A kill between the two writes leaves one of them longer: what the other lacks is cut, so that they stay pairs.
    """
    files = (folder / SHADOW, folder / CHAMPION)
    mine, theirs = (pl.read_parquet(file) if file.exists() else pl.DataFrame() for file in files)
    both = min(mine.height, theirs.height)
    return mine.head(both), theirs.head(both)


def _answers(log: PredictionLog, model: str, version: int, decisions: DecisionsConfig) -> pl.DataFrame:
    """Answers of this version with their outcome, oldest first, with the reward of the trade that followed.

    Where none followed, with the reward of not trading: a light penalty if the side would have paid.
    """
    known = with_times(log.predictions(with_outcome=True)).filter(
        (pl.col("model") == model) & (pl.col("version") == version)
    )
    trades = log.trades().filter(pl.col("prediction_id").is_not_null())
    points = trades.group_by("prediction_id").agg(pl.col("reward", "trade_id").last())
    rows = known.join(points, on="prediction_id", how="left").sort("outcome_timestamp", "symbol")
    untraded = [
        missed(side_of(sell, buy), forward, decisions).total
        for sell, buy, forward in rows.select("p_sell", "p_buy", "forward_log_return").iter_rows()
    ]
    traded = pl.col("trade_id").is_not_null()
    return rows.with_columns(
        reward=pl.when(traded).then("reward").otherwise(pl.Series(untraded, dtype=pl.Float64))
    )


def _acted(rows: pl.DataFrame) -> np.ndarray:
    """Of each answer that advised a trade, whether the price went its way."""
    acted = rows.filter(pl.col("advised_size") > 0)
    side = pl.when(pl.col("advised") == "BUY").then(1).otherwise(-1)
    return acted.select(side * pl.col("forward_log_return") > 0).to_series().to_numpy()


def _table(bars: pl.DataFrame, config: Config, shadow: Shadow) -> pl.DataFrame:
    """Features and labels of every bar, in the order of the model's features."""
    from barcast import labels
    from barcast.features import compute

    info = shadow.champion.info
    whole = adjusted(bars)
    features = compute(whole, interval=config.interval, calendar=calendars_of(config), config=config.features)
    # What training leaves out is no lesson here either.
    known = labels.classify(known_outcomes(whole, config), info.thresholds).select(
        "symbol", "event_timestamp", "label_end_timestamp", "label"
    )
    return features.select("symbol", "event_timestamp", *info.feature_names).join(
        known, on=["symbol", "event_timestamp"], how="left"
    )


def _samples(
    table: pl.DataFrame, rows: pl.DataFrame, shadow: Shadow
) -> tuple[Samples, Samples, pl.DataFrame]:
    """Outcomes in the order of `rows`, a sample of the training rows for replay, and whose outcomes they are."""
    info = shadow.champion.info
    lookback, columns = info.lookback_bars, list(info.feature_names)
    answered = rows.select("symbol", "feature_timestamp", "reward")
    reward: dict[tuple[str, Any], float | None] = {(s, at): points for s, at, points in answered.iter_rows()}
    cutoff = pl.Series([info.cutoff]).str.to_datetime(time_unit="us", time_zone="UTC")[0]
    taught: dict[tuple[str, Any], tuple[np.ndarray, int, int]] = {}
    old: list[tuple[np.ndarray, int, int]] = []
    for part in table.sort("symbol", "event_timestamp").partition_by("symbol", maintain_order=True):
        symbol = str(part["symbol"][0])
        number = info.symbols.index(symbol) + 1 if symbol in info.symbols else 0
        values = part.select(columns).to_numpy().astype(np.float32)
        times, ends, marks = (part[c].to_list() for c in ("event_timestamp", "label_end_timestamp", "label"))
        whole = np.isfinite(values).all(axis=1)
        run = 0
        for i, ok in enumerate(whole):
            run = run + 1 if ok else 0
            if run < lookback or marks[i] is None:
                continue
            window = values[i - lookback + 1 : i + 1]
            if (symbol, times[i]) in reward:
                taught[(symbol, times[i])] = (window, number, marks[i])
            elif ends[i] is not None and ends[i] < cutoff:
                old.append((window, number, marks[i]))
    keys = [key for key in reward if key in taught]
    points = np.array([reward[key] or 0.0 for key in keys], dtype=np.float64)
    picked = old[:: max(1, len(old) // REPLAY_ROWS)]
    shape = (lookback, len(columns))
    return (
        _pack([taught[key] for key in keys], weights_of(points), shape),
        _pack(picked, np.ones(len(picked)), shape),
        _facts(rows, keys),
    )


def _facts(rows: pl.DataFrame, keys: list[tuple[str, Any]]) -> pl.DataFrame:
    """Symbol, bar, end and size of each outcome, in the order of `keys`."""
    wanted = pl.DataFrame(
        keys, schema={n: rows.schema[n] for n in ("symbol", "feature_timestamp")}, orient="row"
    )
    known = rows.unique(["symbol", "feature_timestamp"], keep="last")
    return wanted.join(known, on=["symbol", "feature_timestamp"], how="left", maintain_order="left").select(
        "symbol",
        pl.col("feature_timestamp").alias("event_timestamp"),
        pl.col("outcome_timestamp").alias("label_end_timestamp"),
        "forward_log_return",
    )


def _pack(items: list[tuple[np.ndarray, int, int]], weights: np.ndarray, shape: tuple[int, int]) -> Samples:
    windows = np.stack([w for w, _, _ in items]) if items else np.empty((0, *shape), np.float32)
    return Samples(
        windows,
        np.array([n for _, n, _ in items], dtype=np.int32),
        np.array([m for _, _, m in items], dtype=np.int64),
        weights,
    )


def feature_names(workspace: Workspace, config: Config) -> tuple[str, ...]:
    """Features of the live universal model, in its order."""
    model = names.model_name(config.workspace, None)
    reader = LiveReader(workspace.models, config.workspace)
    return reader.files(model, reader.read().stable(model) or 0).feature_names


def export_shadow(workspace: Workspace, config: Config, path: Path) -> Path:
    """The shadow of the live universal model as a SavedModel, to be registered as a candidate.

    Raises:
        ServingError: there is none yet.
    """
    load_tensorflow()
    from barcast.training import TrainedModel

    model = names.model_name(config.workspace, None)
    version = LiveReader(workspace.models, config.workspace).read().stable(model)
    folder = workspace.models / model / str(version)
    if version is None or not (folder_of(workspace) / "model").is_dir():
        raise ServingError("There is no shadow yet.", hint="`barcast feedback learn` makes it from outcomes.")
    learning = config.decisions.learning
    shadow = Shadow(folder_of(workspace), f"{model}/{version}", lambda: TrainedModel.load(folder), learning)
    if not shadow.state.updates:
        raise ServingError("The shadow is its champion's copy.", hint="It learns from the next outcomes.")
    return shadow.export(path)
