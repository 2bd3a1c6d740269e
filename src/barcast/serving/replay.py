"""Past or newly arrived bars through the same model, decisions, costs and limits into the paper account.

stored bars → features (batch) → windows → the live model, in batches → signals per bar → `decide_together`
→ paper account. A bar's decision knows that bar's close and nothing after it; market facts (volatility
ratios, correlations) are taken from bars up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl

from barcast import intervals
from barcast.bars import adjusted, calendars_of
from barcast.config import Config
from barcast.decisions.paper import PaperAccount, PaperBar, PaperDecision
from barcast.decisions.together import decide_together
from barcast.decisions.types import Advice, Market, Signal
from barcast.errors import ServingError
from barcast.serving.answers import Situation, signal_of
from barcast.serving.caches import Window
from barcast.serving.chain import RawAnswer
from barcast.serving.gaps import Gaps
from barcast.serving.market import MarketBook, micros
from barcast.serving.predictor import Predictor

Signals = Mapping[datetime, list[Signal]]


def model_signals(
    predictor: Predictor, bars: pl.DataFrame, *, after: datetime | None = None, batch: int = 64
) -> dict[datetime, list[Signal]]:
    """What the live models say at every bar of `bars` that has a full window without long gaps.

    Args:
        bars: bars frame, as traded, with the history that features need.
        after: only bars that closed later than this.

    Raises:
        ServingError: a model does not answer (a replay must not change models half-way).
    """
    from barcast.features import compute, feature_names

    config = predictor.config
    names = feature_names(config.interval, config.features)
    frame = compute(
        adjusted(bars),
        interval=config.interval,
        calendar=calendars_of(config),
        config=config.features,
    )
    table, gaps = predictor.live.read(), Gaps(config)
    found: dict[datetime, list[Signal]] = {}
    for part in frame.sort("symbol", "event_timestamp").partition_by("symbol", maintain_order=True):
        symbol = str(part["symbol"][0])
        links = predictor.chain.links(symbol, table)
        # a comparison draws its arm anew for each bar; the past is told by what stays
        link = next((k for k in links if k.model is not None and k.variant == "champion"), None)
        if link is None:
            raise ServingError(
                "No model is live; there is nothing to replay.", hint="Run `barcast run` first."
            )
        files = predictor.live.files(str(link.model), int(link.version or 0))
        for chunk in _chunks(_windows(part, names, config.lookback_bars, after, gaps), batch):
            keyed = {f"{symbol}\x00{i}": w for i, w in enumerate(chunk)}
            answers = predictor.chain.ask_as(link, keyed, symbol)
            for key, window in keyed.items():
                outputs = answers[key]
                if isinstance(outputs, str | ServingError):
                    raise ServingError(f"{link.model}/{link.version} at {window.event_timestamp}: {outputs}")
                one = Situation(symbol, RawAnswer(link, outputs), window, None, None, files)
                found.setdefault(window.event_timestamp, []).append(signal_of(one, config))
    return found


def run(
    account: PaperAccount,
    bars: pl.DataFrame,
    signals: Signals,
    config: Config,
    *,
    since: datetime | None = None,
    emergency_reason: Callable[[PaperAccount], str] = lambda _: "",
    seen: Callable[[datetime, Mapping[str, Advice]], None] = lambda *_: None,
) -> PaperAccount:
    """Step the account through every bar that is newer than it.

    Args:
        bars: bars frame, as traded; those up to the account's last bar only feed volatility and correlations.
        since: the same for a new account: it begins after this time.
        signals: by bar close.
        emergency_reason: asked at every bar; why everything is stopped, or an empty text.
        seen: told the advice of every bar.
    """
    book = MarketBook(config.interval)
    frame = adjusted(bars).sort("event_timestamp", "symbol")
    raw = bars.sort("event_timestamp", "symbol")
    start = account.last or since
    _restate(account, raw)
    if start is not None:
        past = raw.filter(pl.col("event_timestamp") <= start)
        if past.height:
            book.update(past)
        frame, raw = (bars.filter(pl.col("event_timestamp") > start) for bars in (frame, raw))
    matrix = _Correlations(book, config)
    closes = [bars.partition_by("event_timestamp", maintain_order=True) for bars in (frame, raw)]
    for part, traded in zip(*closes, strict=True):
        at: datetime = part["event_timestamp"][0]
        book.update(traded)
        paper_bars = {
            row["symbol"]: PaperBar(
                row["open"], row["close"], row["volume"] / row["volume_factor"], row["price_factor"]
            )
            for row in part.iter_rows(named=True)
            if row["symbol"] in account.symbols
        }
        account.step(at, paper_bars, config.costs)
        today = [
            replace(s, price=_price(paper_bars, s)) for s in signals.get(at, []) if s.symbol in paper_bars
        ]
        advice = decide_together(
            today,
            account.view(emergency_reason=emergency_reason(account)),
            matrix.market(at, tuple(paper_bars)),
            config.decisions,
        )
        account.decide(at, decisions_of(advice, today, len(account.symbols), config), config.costs)
        seen(at, advice)
    return account


def decisions_of(
    advice: Mapping[str, Advice], signals: list[Signal], num_symbols: int, config: Config
) -> dict[str, PaperDecision]:
    """Advice in shares of all equity as positions of each symbol's own account (an equal share of the
    capital); flat where the advice is to get out and no more."""
    by_symbol = {s.symbol: s for s in signals}
    found = {}
    for symbol, one in advice.items():
        position = one.side * min(1.0, one.size * num_symbols / config.costs.max_position)
        if one.only_closes or (one.side < 0 and config.costs.side == "exit_only"):
            position = 0.0
        found[symbol] = PaperDecision(
            position, one.band, by_symbol[symbol].regime, by_symbol[symbol].model_version
        )
    return found


def _restate(account: PaperAccount, bars: pl.DataFrame) -> None:
    """Bring the account to the factors that the bars it has met carry by now."""
    last = {s: own.last for s, own in account.accounts.items() if own.last is not None}
    if not last:
        return
    keys = {n: bars.schema[n] for n in ("symbol", "event_timestamp")}
    met = pl.DataFrame(list(last.items()), schema=keys, orient="row").join(bars, on=list(keys))
    for symbol, factor in met.select("symbol", "price_factor").iter_rows():
        account.accounts[symbol].restate(factor)


class _Correlations:
    """Market facts of a replay; the matrix is computed anew after the configured hours of bar time."""

    def __init__(self, book: MarketBook, config: Config) -> None:
        self._book, self._config = book, config
        self._made: tuple[int, tuple[str, ...], tuple[tuple[float, ...], ...]] | None = None

    def market(self, at: datetime, symbols: tuple[str, ...]) -> Market:
        """What is known of the market at the close `at`."""
        decisions = self._config.decisions
        everything = self._book.symbols
        made, refresh = self._made, decisions.correlation_refresh_hours * 3.6e9
        if made is None or made[1] != everything or micros(at) - made[0] >= refresh:
            matrix = self._book.correlation(everything, decisions.correlation_lookback_hours)
            made = (micros(at), everything, tuple(tuple(float(v) for v in row) for row in matrix))
            self._made = made
        ratios = {}
        for symbol in symbols:
            context = self._book.context(symbol, self._config.horizon_bars)
            if context is not None:
                ratios[symbol] = context.volatility_ratio
        return Market(at, intervals.seconds(self._config.interval), made[1], ratios, made[2])


def _windows(
    part: pl.DataFrame, names: tuple[str, ...], lookback_bars: int, after: datetime | None, gaps: Gaps
) -> Iterator[Window]:
    values = part.select(names).to_numpy().astype(np.float32)
    whole = np.isfinite(values).all(axis=1)
    run = 0
    times = part["event_timestamp"].to_list()
    symbol = str(part["symbol"][0])
    broken = gaps.before(symbol, part["event_timestamp"].dt.timestamp("us").to_numpy()) > 0
    for i, ok in enumerate(whole):
        run = 0 if not ok else 1 if broken[i] else run + 1
        if run >= lookback_bars and (after is None or times[i] > after):
            yield Window.of(symbol, times[i], values[i - lookback_bars + 1 : i + 1])


def _chunks(items: Iterator[Window], size: int) -> Iterator[list[Window]]:
    chunk: list[Window] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _price(bars: Mapping[str, PaperBar], signal: Signal) -> float:
    bar = bars[signal.symbol]
    return bar.close / bar.factor
