"""Who answers: the fallback chain, tried link by link until one gives a usable answer.

own model → its previous version → ensemble → its previous version → universal → its previous version →
linear (served) → linear (in this process) → rules → refuse. Symbols whose next link is the same model version
go out as one batch; different models at the same time. A server that does not answer is asked once, then all its
links are passed over. Nothing is invented: a link either gives its own numbers or a reason.
"""

from __future__ import annotations

import contextvars
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from barcast import logs, names
from barcast.config.serving import ServingConfig
from barcast.decisions import sanity
from barcast.errors import BarcastError, ServingError
from barcast.serving import local_models
from barcast.serving.caches import Lru, Window
from barcast.serving.client import ModelCallError, ModelClient
from barcast.serving.live import PREVIOUS, LiveReader, LiveTable
from barcast.serving.market import MarketBook
from barcast.serving.types import LinkName

Kind = Literal["specific", "universal", "linear", "rules"]
Outputs = Mapping[str, NDArray[Any]]
VOTES = ("member_probabilities", "member_weights")
_log = logs.get("serving.chain")


@dataclass(frozen=True)
class Link:
    """One candidate answerer; `model` and `version` are None for what runs in this process."""

    name: LinkName
    kind: Kind
    model: str | None = None
    version: int | None = None
    variant: Literal["champion", "canary"] = "champion"


@dataclass(frozen=True)
class RawAnswer:
    """What answered, its outputs for this one symbol (leading axis removed), and what was tried before."""

    link: Link
    outputs: Outputs
    reasons: tuple[str, ...] = ()
    intended: bool = True


@dataclass
class _Case:
    """One symbol on its way down the chain."""

    window: Window | None
    links: list[Link]
    first: LinkName
    reasons: list[str] = field(default_factory=list)


class Chain:
    """Asks models for windows.

    Args:
        client: the model server.
        live: what is live.
        book: newest bars, for the links that need no server.
        observe: called with (what, labels) for the metrics.
        feature_names: (F,) of the windows; a model made for other names is passed over. Empty: not checked.
    """

    def __init__(
        self,
        client: ModelClient,
        live: LiveReader,
        book: MarketBook,
        config: ServingConfig,
        horizon_bars: int,
        observe: Callable[[str, dict[str, str]], None] = lambda *_: None,
        *,
        feature_names: tuple[str, ...] = (),
    ) -> None:
        self.client = client
        self.live = live
        self.book = book
        self.config = config
        self.horizon_bars = horizon_bars
        self.answers: Lru[Outputs] = Lru(config.cache_predictions)
        self._observe = observe
        self._names = feature_names
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="barcast-predict")

    def close(self) -> None:
        """Let the worker threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def links(self, symbol: str, table: LiveTable, key: str = "") -> list[Link]:
        """The chain for `symbol` as `models.config` stands now.

        Args:
            key: what decides the arm of a canary comparison; the same key always gets the same arm.
        """
        workspace = table.workspace
        chain: list[Link] = []
        own = names.model_name(workspace, symbol)
        universal = names.model_name(workspace, None)
        for model, kind, first, second in (
            (own, "specific", "own", "previous"),
            (names.ensemble_name(workspace), "universal", "ensemble", "ensemble_previous"),
            (universal, "universal", "universal", "universal_previous"),
        ):
            stable = table.stable(model)
            if stable is None:
                continue
            compared = table.canary(model, "ab")
            if compared is not None and not chain and _drawn(f"{model}:{key}", compared[1]):
                chain.append(Link(first, kind, model, compared[0], "canary"))  # type: ignore[arg-type]
            chain.append(Link(first, kind, model, stable))  # type: ignore[arg-type]
            previous = table.labels(model).get(PREVIOUS)
            if previous is not None and previous != stable:
                chain.append(Link(second, kind, model, previous))  # type: ignore[arg-type]
        linear = names.linear_name(workspace)
        version = table.stable(linear)
        if version is not None:
            chain.append(Link("linear", "linear", linear, version))
        chain.append(Link("linear_local", "linear"))
        chain.append(Link("rules", "rules"))
        return chain

    def answer(self, windows: Mapping[str, Window | str]) -> dict[str, RawAnswer | str]:
        """An answer for each symbol, or the reason of the refusal.

        Args:
            windows: by symbol the window, or (a string) why there is none: then only rules can answer.
        """
        table = self.live.read()
        cases: dict[str, _Case] = {}
        for symbol, window in windows.items():
            if isinstance(window, str):
                cases[symbol] = _Case(None, [Link("rules", "rules")], "rules", [window])
            else:
                chain = self.links(symbol, table, f"{symbol}:{window.event_timestamp.isoformat()}")
                cases[symbol] = _Case(window, chain, chain[0].name)
                if not table.models:
                    cases[symbol].reasons.append("no model is live")
        done: dict[str, RawAnswer | str] = {}
        down: list[str] = []
        while cases:
            self._round(cases, table, done, down)
        return done

    def _round(
        self, cases: dict[str, _Case], table: LiveTable, done: dict[str, RawAnswer | str], down: list[str]
    ) -> None:
        """Try the next link of every open case."""
        groups: dict[Link, list[str]] = {}
        for symbol, case in list(cases.items()):
            while case.links and down and case.links[0].model is not None:
                case.links.pop(0)
            if down and down[0] not in case.reasons:
                case.reasons.append(down[0])
            if not case.links:
                done[symbol] = "; ".join(case.reasons) or "nothing could answer"
                del cases[symbol]
                continue
            groups.setdefault(case.links.pop(0), []).append(symbol)
        parts = [
            (link, {s: cases[s] for s in some})
            for link, symbols in groups.items()
            for some in _shares(symbols, max(self.config.batch_sizes) if link.model else len(symbols))
        ]
        jobs = []
        for link, part in parts:
            remote = link.model is not None and len(parts) > 1
            job = None
            if remote:  # the trace goes along into the worker thread
                job = self._pool.submit(contextvars.copy_context().run, self._try, link, part, table)
            jobs.append((link, part, job))
        for link, part, job in jobs:
            found = job.result() if job is not None else self._try(link, part, table)
            for symbol, result in found.items():
                case = cases[symbol]
                if isinstance(result, ModelCallError) and result.absent:
                    down.append(f"model server: {result.code}")
                    continue
                if isinstance(result, BaseException | str):
                    case.reasons.append(f"{_name(link)}: {result}")
                    continue
                intended = link.name == case.first and not case.reasons
                done[symbol] = RawAnswer(link, result, tuple(case.reasons), intended)
                self._observe(
                    "answer", {"link": link.name, "kind": link.kind, "fallback": str(not intended).lower()}
                )
                del cases[symbol]

    def _try(
        self, link: Link, cases: dict[str, _Case], table: LiveTable
    ) -> dict[str, Outputs | ModelCallError | str]:
        """Outputs by symbol, or what was wrong."""
        try:
            if link.name == "rules":
                return {s: self._rules(s) for s in cases}
            windows = {s: case.window for s, case in cases.items() if case.window is not None}
            if link.name == "linear_local":
                return {s: self._linear(s, w, table) for s, w in windows.items()}
            return self.ask(link, windows)
        except ModelCallError as error:
            if error.absent:
                _log.warning("model server absent", code=error.code, link=link.name)
            return dict.fromkeys(cases, error)
        except (BarcastError, ValueError) as error:
            return {s: str(error) for s in cases}

    def submit(self, job: Callable[[], None]) -> Future[None]:
        """Run `job` on a worker thread, off the way of the answer."""
        return self._pool.submit(job)

    def ask_as(
        self, link: Link, windows: Mapping[str, Window], symbol: str
    ) -> dict[str, Outputs | ModelCallError | str]:
        """As `ask`, for many windows of one symbol under any keys; raises what the call raises."""
        assert link.model is not None
        assert link.version is not None
        number = self.live.files(link.model, link.version).symbol_id(symbol)
        found: dict[str, Outputs | ModelCallError | str] = {}
        items = [(key, number, window) for key, window in windows.items()]
        largest = max(self.config.batch_sizes)
        for start in range(0, len(items), largest):
            found.update(self._batch(link, items[start : start + largest]))
        return found

    def ask(self, link: Link, windows: Mapping[str, Window]) -> dict[str, Outputs | ModelCallError | str]:
        """Ask one served version for the windows, in batches; answers already known are not asked again."""
        assert link.model is not None
        assert link.version is not None
        files = self.live.files(link.model, link.version)
        found: dict[str, Outputs | ModelCallError | str] = {}
        asked: dict[tuple[int, ...], list[tuple[str, int, Window]]] = {}
        # Its judgement of the window belongs to the answer: damaged, the next link is asked.
        _ = files.reference
        known = len(files.feature_names)
        if known and self._names and files.feature_names != self._names:
            return dict.fromkeys(windows, "the model was made for other features; train again")
        for symbol, window in windows.items():
            if known and window.values.shape[1] != known:
                found[symbol] = f"the window has {window.values.shape[1]} features, the model knows {known}"
                continue
            number = files.symbol_id(symbol)
            kept = self.answers.get((link.model, link.version, number, window.digest))
            if kept is not None:
                found[symbol] = kept
                self._observe("cache", {"result": "hit"})
                continue
            asked.setdefault(window.values.shape, []).append((symbol, number, window))
        largest = max(self.config.batch_sizes)
        for items in asked.values():
            for start in range(0, len(items), largest):
                found.update(self._batch(link, items[start : start + largest]))
        return found

    def _batch(
        self, link: Link, items: list[tuple[str, int, Window]]
    ) -> dict[str, Outputs | ModelCallError | str]:
        window = np.stack([w.values for _, _, w in items])  # the server pads to a size it has compiled
        ids = np.array([n for _, n, _ in items], dtype=np.int32)
        answer = self.client.predict(
            str(link.model),
            {"window": window, "symbol_id": ids},
            version=link.version,
            deadline_seconds=self.config.deadline_seconds,
        )
        arrays = {name: array for name, array in answer.outputs.items() if array.shape[:1] == (len(items),)}
        votes: dict[str, NDArray[Any]] | None = {}
        if self.live.files(str(link.model), int(link.version or 0)).members:
            votes = self._votes(link, window, ids)
        found: dict[str, Outputs | ModelCallError | str] = {}
        for i, (symbol, number, one) in enumerate(items):
            outputs = {name: array[i] for name, array in {**arrays, **(votes or {})}.items()}
            fault = _fault(outputs)
            found[symbol] = fault or outputs
            if not fault and votes is not None:  # an answer without its votes is asked for again
                self.answers.put((link.model, link.version, number, one.digest), outputs)
        return found

    def _votes(
        self, link: Link, window: NDArray[np.float32], ids: NDArray[np.int32]
    ) -> dict[str, NDArray[Any]] | None:
        """What each member of an ensemble says, by its signature `members`; None when it does not say."""
        try:
            answer = self.client.predict(
                str(link.model),
                {"window": window, "symbol_id": ids},
                version=link.version,
                signature="members",
                deadline_seconds=self.config.deadline_seconds,
            )
            votes = {name: answer.outputs[name] for name in VOTES}
            if all(len(v) == len(ids) and np.isfinite(v).all() for v in votes.values()):
                return votes
            reason = "not finite, or of another size"
        except (ModelCallError, KeyError) as error:
            reason = str(error)
        _log.warning("members not heard", model=link.model, version=link.version, reason=reason)
        return None

    def _rules(self, symbol: str) -> Outputs | str:
        history = self.book.get(symbol)
        if history is None:
            return "no bars"
        outputs = local_models.rules(history, self.book.context(symbol, self.horizon_bars), self.horizon_bars)
        if outputs is None:
            return f"{history.closes.size} bars are too few for a rule"
        return {name: array[0] for name, array in outputs.items()}

    def _linear(self, symbol: str, window: Window, table: LiveTable) -> Outputs | str:
        """The first live version that carries linear parameters, nearest to the symbol first."""
        workspace = table.workspace
        candidates = (
            names.linear_name(workspace),
            names.model_name(workspace, symbol),
            names.model_name(workspace, None),
        )
        damaged = ""
        for model in candidates:
            for version in dict.fromkeys(table.labels(model).values()):
                files = self.live.files(model, version)
                try:
                    names_known, reference = files.feature_names, files.reference
                except ServingError as error:
                    damaged = str(error)
                    continue
                if self._names and names_known not in ((), self._names):
                    continue
                if (
                    not local_models.has_linear(reference)
                    or reference["mean"].shape != window.values.shape[1:]
                ):
                    continue
                around = self.book.context(symbol, self.horizon_bars)
                if around is None:
                    return "no bars to take a volatility from"
                volatility = around.bar_volatility * float(np.sqrt(self.horizon_bars))
                outputs = local_models.linear(
                    window.values[None], reference, volatility, files.baseline_calibration
                )
                one = {name: array[0] for name, array in outputs.items()}
                return _fault(one) or one
        return damaged or "no live version carries linear parameters"


def _fault(outputs: Outputs) -> str:
    missing = [n for n in ("probabilities", "expected_return", "expected_volatility") if n not in outputs]
    if missing:
        return f"the answer lacks {missing}"
    fault = sanity.output_fault(
        np.asarray(outputs["probabilities"], dtype=np.float64),
        float(outputs["expected_return"]),
        float(outputs["expected_volatility"]),
    )
    if fault:
        return fault
    broken = [name for name, value in outputs.items() if not np.isfinite(value).all()]
    return f"{', '.join(broken)} not finite" if broken else ""


def _shares(symbols: list[str], largest: int) -> list[list[str]]:
    """As few equal parts as fit: they are asked for at the same time, so that every core has one."""
    count = -(-len(symbols) // largest)
    size = -(-len(symbols) // count)
    return [symbols[at : at + size] for at in range(0, len(symbols), size)]


def _drawn(key: str, share: float) -> bool:
    """Whether this key falls into `share`; stable over processes."""
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    return number / 2**64 < share


def _name(link: Link) -> str:
    return f"{link.name} {link.model}/{link.version}" if link.model else link.name
