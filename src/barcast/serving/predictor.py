"""The prediction engine: symbols in, full typed answers out.

bars and windows → fallback chain (models over gRPC, batched) → context, sizes, advice → prediction log.
Safe to use from several threads; `predict_async` does the same without blocking an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast import clock, intervals, logs, tracing
from barcast.bars.ingest import LIVE_KINDS
from barcast.config import Config
from barcast.decisions.decide import decide
from barcast.decisions.together import decide_together
from barcast.decisions.types import Account, Market
from barcast.errors import ConfigError, ServingError
from barcast.serving.answers import Situation, build, refused, signal_of, tell
from barcast.serving.breaker import Breaker
from barcast.serving.caches import Window
from barcast.serving.chain import Chain, Link, RawAnswer
from barcast.serving.client import ModelClient
from barcast.serving.gaps import Gaps
from barcast.serving.live import LiveReader
from barcast.serving.market import MarketBook
from barcast.serving.metrics import Metrics
from barcast.serving.stores import FeastWindows, empty_account, open_book, rules_may_answer
from barcast.serving.types import Prediction
from barcast.serving.windows import OnlineStore, WindowReader
from barcast.workspace import Workspace

if TYPE_CHECKING:
    from barcast.decisions.portfolio import Allocation

MAX_SYMBOLS = 5000
_log = logs.get("serving.predictor")


class Predictor:
    """Answers for the symbols of one workspace.

    Args:
        workspace: where models, bars and features are.
        config: the configuration its models were made with.
        endpoint: model server, host:port; default from the configuration.
        store: online store; default Feast as configured.
        book: newest bars; default the workspace's bars store.
        client: a model client of one's own, instead of `endpoint`.
        log: where answers are kept (`prediction_log.PredictionLog`); None keeps none.

    Example:
        >>> with Predictor(config.open_workspace(), config) as predictor:  # doctest: +SKIP
        ...     answer = predictor.predict(["AAPL"])[0]
        ...     answer.action, answer.probabilities.BUY, answer.model_version
    """

    def __init__(
        self,
        workspace: Workspace,
        config: Config,
        endpoint: str | None = None,
        *,
        store: OnlineStore | None = None,
        book: MarketBook | None = None,
        client: ModelClient | None = None,
        log: Any = None,
        metrics: Metrics | None = None,
    ) -> None:
        serving = config.serving
        self.workspace = workspace
        self.config = config
        self.metrics = metrics or Metrics()
        self.log = log
        self._endpoint = endpoint or serving.endpoint
        self.client = client or ModelClient(
            self._endpoint,
            deadline_seconds=serving.deadline_seconds,
            retries=serving.retries,
            retry_base_seconds=serving.retry_base_seconds,
            breaker=Breaker(serving.breaker_failures, serving.breaker_open_seconds),
        )
        self.metrics.watch_breaker(self.client.breaker)
        self.book = book or open_book(workspace, config)
        self.live = LiveReader(workspace.models, config.workspace)
        source = store or FeastWindows(workspace, config)
        self._live = config.source.kind in LIVE_KINDS  # the others end in the past
        self.windows = WindowReader(
            source,
            self.book,
            serving,
            config.lookback_bars,
            live=self._live,
            gaps=Gaps(config),
        )
        self._shadows: set[Future[None]] = set()
        self.chain = Chain(
            self.client,
            self.live,
            self.book,
            serving,
            config.horizon_bars,
            self.metrics.count,
            feature_names=tuple(getattr(source, "names", ())),
        )
        self._correlation: tuple[int, tuple[str, ...], tuple[tuple[float, ...], ...]] | None = None

    def close(self) -> None:
        """Close connections and let worker threads go."""
        self.drain()
        self.chain.close()
        self.client.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def symbols(self) -> tuple[str, ...]:
        """All symbols with bars in the workspace."""
        self.book.refresh()
        return self.book.symbols

    def predict(
        self,
        symbols: Sequence[str] | None = None,
        *,
        explain: bool = False,
        account: Account | None = None,
    ) -> list[Prediction]:
        """One answer per symbol, in the order asked (all symbols when None).

        A symbol that cannot be answered gets a `refused` answer with the reason; the others are not touched
        by it.

        Args:
            explain: add the explanation (tens of milliseconds per symbol).
            account: positions and equity for sizes and limits; default an empty account.

        Raises:
            ConfigError: no symbol, too many, or one that is not a name.
        """
        with self.metrics.timed("predict"), tracing.span("predict") as current:
            self.book.refresh()
            wanted = self._wanted(symbols)
            current.set_attribute("symbols", len(wanted))
            situations, refusals = self._situations(wanted)
            market = self.market(tuple(situations))
            use = account or empty_account(self.config)
            answers: dict[str, Prediction] = {s: refused(s, reason) for s, reason in refusals.items()}
            with tracing.span("decision"):
                signals = {s: signal_of(one, self.config) for s, one in situations.items()}
                advice = decide_together(list(signals.values()), use, market, self.config.decisions)
                for symbol, situation in situations.items():
                    answers[symbol] = build(situation, signals[symbol], advice[symbol], market, self.config)
            if explain:
                self._explain(situations, answers)
            with tracing.span("log"):
                answers = self._record(answers)
            self._shadow(situations, use, market)
            for answer in answers.values():
                self.metrics.answered(answer)
                tell(answer)
            return [answers[s] for s in wanted]

    async def predict_async(
        self, symbols: Sequence[str] | None = None, *, explain: bool = False, account: Account | None = None
    ) -> list[Prediction]:
        """As `predict`, in a worker thread."""
        return await asyncio.to_thread(self.predict, symbols, explain=explain, account=account)

    def predict_given(
        self, bars: pl.DataFrame, *, explain: bool = False, account: Account | None = None
    ) -> list[Prediction]:
        """Answers for bars handed over instead of the stored ones; nothing is kept. See `given.predict_given`."""
        from barcast.serving.given import predict_given

        return predict_given(self, bars, explain=explain, account=account)

    def portfolio(self, symbols: Sequence[str] | None = None) -> Allocation:
        """Capital shared between the symbols by their predicted returns and the covariance of their past.

        Raises:
            ConfigError: there are no bars.
            DataError: the symbols have no common past.
        """
        from barcast.decisions.portfolio import allocate

        # no advice, so none in the log: it would stand there for what the account is advised at this bar
        self.book.refresh()
        situations, _ = self._situations(self._wanted(symbols))
        expected = {
            symbol: float(one.raw.outputs["expected_return"])
            for symbol, one in situations.items()
            if one.raw.link.kind != "rules"
        }
        if not expected:
            raise ServingError(
                "No model answered; capital is not shared by rules.", hint="See `barcast predict`."
            )
        names = tuple(sorted(expected))
        returns = self.book.returns(names)
        return allocate(
            names, returns, expected, self.config.decisions, horizon_bars=self.config.horizon_bars
        )

    def observe(self, bars: pl.DataFrame, windows: Sequence[Window]) -> None:
        """Take over what the stream has just computed, before it is written to any store.

        Args:
            bars: the bars that just closed (bars frame, as traded).
            windows: the windows that end with them. From now on answers use these; the writes to the bars
            store
                and the online store may follow after the answer.
        """
        self.book.update(bars)
        self.windows.cache.put(list(windows), self.book.revision)

    def market(self, symbols: tuple[str, ...]) -> Market:
        """Volatility ratios and the correlation matrix of `symbols`, from stored bars only.

        `as_of` is now where bars come in live, since the account may have traded since the last close; else the
        newest bar's close.
        """
        ratios = {}
        newest = None
        for symbol in symbols:
            history = self.book.get(symbol)
            context = self.book.context(symbol, self.config.horizon_bars)
            if context is not None:
                ratios[symbol] = context.volatility_ratio
            if history is not None and (newest is None or history.event_timestamp > newest):
                newest = history.event_timestamp
        known, matrix = self._matrix(symbols)
        if newest is None or self._live:
            newest = max(clock.now(), newest or clock.now())
        return Market(
            as_of=newest,
            interval_seconds=intervals.seconds(self.config.interval),
            symbols=known,
            volatility_ratio=ratios,
            correlation=matrix,
        )

    def _matrix(self, symbols: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
        """Correlations of all symbols with bars, computed anew after the configured hours of bar time."""
        everything = self.book.symbols
        if len(everything) < 2 or not symbols:
            return (), ()
        newest = max(int(h.times[-1]) for s in everything if (h := self.book.get(s)) is not None)
        refresh = int(self.config.decisions.correlation_refresh_hours * 3.6e9)
        kept = self._correlation
        if kept is None or kept[1] != everything or not 0 <= newest - kept[0] < refresh:
            matrix = self.book.correlation(everything, self.config.decisions.correlation_lookback_hours)
            kept = (newest, everything, tuple(tuple(float(v) for v in row) for row in matrix))
            self._correlation = kept
        return kept[1], kept[2]

    def _wanted(self, symbols: Sequence[str] | None) -> list[str]:
        if symbols is None:
            wanted = list(self.book.symbols)
            if not wanted:
                raise ConfigError(
                    f"The workspace {self.config.workspace!r} has no bars.",
                    hint="Run `barcast run` or `barcast ingest`.",
                )
            return wanted
        wanted = list(dict.fromkeys(symbols))
        if not wanted or len(wanted) > MAX_SYMBOLS:
            raise ConfigError(f"{len(wanted)} symbols were asked for; 1 to {MAX_SYMBOLS} are accepted.")
        for symbol in wanted:
            if not isinstance(symbol, str) or not 0 < len(symbol) <= 64 or not symbol.isprintable():
                raise ConfigError(
                    f"{symbol!r} is not a symbol.", hint="Give a name of at most 64 printable characters."
                )
        return wanted

    def _situations(self, wanted: list[str]) -> tuple[dict[str, Situation], dict[str, str]]:
        with tracing.span("windows"):
            windows = self.windows.read(wanted)
        if any(self._ahead(w) for w in windows.values() if not isinstance(w, str)):
            self.book.refresh()  # a bar came while windows were read: its price belongs to them
        # What is wrong with the input itself is refused; what is only missing or late may still be answered
        # by a rule.
        refusals = {s: w for s, w in windows.items() if isinstance(w, str) and not rules_may_answer(w)}
        raws = self.chain.answer({s: w for s, w in windows.items() if s not in refusals})
        files = cache(self.live.files)  # a look at the disk for each version, not for each symbol
        situations: dict[str, Situation] = {}
        for symbol, raw in raws.items():
            if isinstance(raw, str):
                refusals[symbol] = raw
                continue
            window, link = windows[symbol], raw.link
            situations[symbol] = Situation(
                symbol,
                raw,
                None if isinstance(window, str) else window,
                self.book.get(symbol),
                self.book.context(symbol, self.config.horizon_bars),
                files(link.model, link.version) if link.model and link.version is not None else None,
            )
        return situations, refusals

    def _ahead(self, window: Window) -> bool:
        history = self.book.get(window.symbol)
        return history is None or window.event_timestamp > history.event_timestamp

    def _explain(self, situations: dict[str, Situation], answers: dict[str, Prediction]) -> None:
        from barcast.serving.explain import explain

        for symbol, situation in situations.items():
            answers[symbol] = answers[symbol].model_copy(
                update={"explanation": explain(answers[symbol], situation, self.client, self.config)}
            )

    def _shadow(self, situations: dict[str, Situation], account: Account, market: Market) -> None:
        """Send a copy to each canary in shadow mode, off the way of the answer; only the log sees what it
        says."""
        table = self.live.read()
        groups: dict[Link, dict[str, Situation]] = {}
        for symbol, situation in situations.items():
            link = situation.raw.link
            copied = table.canary(link.model, "shadow") if link.model else None
            if copied is not None and situation.window is not None:
                groups.setdefault(replace(link, version=copied[0], variant="canary"), {})[symbol] = situation
        if self.log is None:
            return
        for link, group in groups.items():
            job = self.chain.submit(partial(self._ask_shadow, link, group, account, market))
            self._shadows.add(job)
            job.add_done_callback(self._shadows.discard)

    def _ask_shadow(self, link: Link, group: dict[str, Situation], account: Account, market: Market) -> None:
        try:
            self._copy(link, group, account, market)
        except Exception as error:  # nobody waits for it, and `close` must not meet it
            words = f"{type(error).__name__}: {error}"[:300]
            _log.warning("shadow not recorded", model=link.model, version=link.version, error=words)

    def _copy(self, link: Link, group: dict[str, Situation], account: Account, market: Market) -> None:
        windows = {s: one.window for s, one in group.items() if one.window is not None}
        found = self.chain.ask(link, windows)
        files = self.live.files(str(link.model), int(link.version or 0))
        answers = []
        for symbol, outputs in found.items():
            if isinstance(outputs, str | ServingError):
                continue
            raw = RawAnswer(link, outputs)
            situation = replace(group[symbol], raw=raw, files=files)
            signal = signal_of(situation, self.config)
            advice = decide(signal, account, market, self.config.decisions)
            answers.append(build(situation, signal, advice, market, self.config))
        self.log.append(answers, arm="shadow")

    def drain(self) -> None:
        """Wait for the copies that are still with a canary."""
        for job in list(self._shadows):
            job.result()

    def _record(self, answers: dict[str, Prediction]) -> dict[str, Prediction]:
        if self.log is None or not self.config.serving.log_predictions:
            return answers
        try:
            return dict(zip(answers, self.log.append(list(answers.values())), strict=True))
        except Exception as error:  # an answer is not lost because its record is; the metrics say so
            _log.warning("prediction log failed", error=f"{type(error).__name__}: {error}"[:300])
            self.metrics.count("log_failure", {"error": type(error).__name__})
            return answers


def open_predictor(
    config: Config, workspace: Workspace | None = None, endpoint: str | None = None
) -> Predictor:
    """The predictor of a workspace with its stores, its prediction log and its log of outcomes; close it
    after use."""
    from barcast.serving.prediction_log import PredictionLog

    place = workspace or config.open_workspace()
    log = PredictionLog(place.logs / "predictions.db") if config.serving.log_predictions else None
    return Predictor(place, config, endpoint, log=log)
