"""The gateway's routes: thin, typed, one call into the prediction engine each.

GET  /v1/predictions/{symbol}   GET /v1/predictions   GET /v1/stream   GET /v1/models   GET /v1/portfolio
POST /v1/feedback               GET/PUT /v1/account   POST /v1/stop    GET /healthz     GET /metrics
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from barcast import __version__, clock, logs
from barcast.decisions.types import Account
from barcast.errors import BarcastError, ConfigError, RefusedError
from barcast.serving import feedback as feedback_service
from barcast.serving import state
from barcast.serving.client import ModelCallError
from barcast.serving.gateway.middleware import Door
from barcast.serving.gateway.security import KeyFile, RateLimit
from barcast.serving.gateway.stream import events
from barcast.serving.prediction_log import PredictionLog, TradeReport
from barcast.serving.predictor import MAX_SYMBOLS, Predictor
from barcast.serving.types import Prediction

_log = logs.get("serving.gateway")
_SYMBOL = r"^[^\x00-\x1f\x7f]+$"
Symbol = Annotated[
    str, InPath(min_length=1, max_length=64, pattern=_SYMBOL, description="As in the universe, e.g. AAPL.")
]
Symbols = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64, pattern=_SYMBOL)]] | None,
    Query(max_length=MAX_SYMBOLS, description="Repeat for several; none for all."),
]
Explain = Annotated[bool, Query(description="Add the explanation (slower).")]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"description": "No valid API key."},
    413: {"description": "Body too large."},
    429: {"description": "Too many requests; see Retry-After."},
    503: {"description": "The model table, a store or the log cannot be read."},
}
_BREAKER = {"closed": "in use", "open": "left alone", "half-open": "tried again"}
_WRITE: dict[int | str, dict[str, Any]] = {403: {"description": "This key may only read."}}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FeedbackAnswer(_Body):
    """What became of a reported trade."""

    trade_id: str
    accepted: bool = Field(description="False when this very report was known already.")
    net_return: float
    reward: float
    parts: dict[str, float]


class LiveModel(_Body):
    """One live model."""

    name: str
    symbol: str | None = Field(description="None for the universal and the linear model.")
    labels: dict[str, int] = Field(description="Version by label: stable, canary, previous.")
    traffic: dict[str, Any] = Field(description="What the canary gets.")
    server: dict[str, str] = Field(
        description="State of each version on the model server; empty when it is down."
    )


class Allocated(_Body):
    """Shares of equity by symbol, signed."""

    weights: dict[str, float]
    method: str
    expected_return: float
    volatility: float
    note: str


class Stop(_Body):
    """Pull the emergency stop."""

    by: str = Field(min_length=1, max_length=64)
    reason: str = Field(min_length=1, max_length=300)


class StopAnswer(_Body):
    """The emergency stop as it stands. It is lifted by a person on the machine: `barcast paper lift`."""

    active: bool
    reason: str


class Health(_Body):
    """Whether the gateway can answer, and by what."""

    status: str
    live_models: int
    model_server: str = Field(description="in use, left alone (after failures), or tried again.")
    symbols: int
    newest_bar: str | None


def create_app(predictor: Predictor, log: PredictionLog, *, keys_file: Path | None = None) -> Any:
    """The ASGI application.

    Args:
        predictor: answers; closed with the application.
        log: where feedback goes.
        keys_file: API keys; default `<workspace>/state/api_keys.json`.
    """
    config = predictor.config.gateway
    workspace, settings = predictor.workspace, predictor.config

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        predictor.close()

    app = FastAPI(
        title="barcast",
        version=__version__,
        summary="Served, explained and governed predictions. barcast advises: it sends no orders.",
        lifespan=lifespan,
        responses=_PROBLEMS,
        docs_url=None,
        redoc_url=None,
    )

    @app.exception_handler(BarcastError)
    async def known(_: Request, error: BarcastError) -> JSONResponse:
        status = 409 if isinstance(error, RefusedError) else 400 if isinstance(error, ConfigError) else 503
        return JSONResponse({"detail": error.message, "hint": error.hint}, status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # the offending values stay out of the answer: they may be secrets, and may not be JSON
        found = [
            {"loc": [str(p) for p in e["loc"]], "msg": str(e["msg"]), "type": e["type"]}
            for e in error.errors()
        ]
        return JSONResponse({"detail": found}, 422)

    @app.exception_handler(Exception)
    async def unknown(_: Request, error: Exception) -> JSONResponse:
        _log.error("request failed", error=type(error).__name__)
        return JSONResponse({"detail": "The request could not be answered."}, 500)

    async def ask(symbols: list[str] | None, explain: bool) -> list[Prediction]:
        account = await anyio.to_thread.run_sync(state.load_account, workspace, settings)
        return await predictor.predict_async(symbols, explain=explain, account=account)

    @app.get("/v1/predictions/{symbol:path}", response_model=Prediction)
    async def predict_one(symbol: Symbol, explain: Explain = False) -> Prediction:
        """One symbol (slashes allowed, as in BTC/USDT). A refusal is an answer: `status` is `refused`."""
        return (await ask([symbol], explain))[0]

    @app.get("/v1/predictions", response_model=list[Prediction], responses={400: {"description": "No bars."}})
    async def predict_all(
        symbols: Symbols = None,
        explain: Explain = False,
    ) -> list[Prediction]:
        """Many symbols in one call; all of the workspace without `symbols`."""
        if symbols is not None and len(symbols) > config.max_symbols:
            raise ConfigError(
                f"{len(symbols)} symbols were asked for; at most {config.max_symbols} are accepted."
            )
        return await ask(symbols, explain)

    @app.get("/v1/stream", response_class=PlainTextResponse)
    async def stream(
        request: Request, once: Annotated[bool, Query(description="End after one event.")] = False
    ) -> Any:
        """Server-sent events: `predictions` with all answers, now and whenever a new bar or version is there."""
        return events(request, predictor, lambda: ask(None, False), config.stream_seconds, once=once)

    @app.get("/v1/models", response_model=list[LiveModel])
    def models() -> list[LiveModel]:
        """What is live, and what the model server says of it."""
        from barcast import names

        table = predictor.live.read()
        found = []
        silent = False  # then it is not asked, and waited for, for each further model
        for name, labels in sorted(table.models.items()):
            server: dict[str, str] = {}
            try:
                if not silent:
                    server = {str(k): v for k, v in predictor.client.versions(name, 1.0).items()}
            except ModelCallError as error:
                silent = error.absent
            found.append(
                LiveModel(
                    name=name,
                    symbol=names.symbol_of(name),
                    labels=labels,
                    traffic=table.traffic.get(name, {}),
                    server=server,
                )
            )
        return found

    @app.get("/v1/portfolio", response_model=Allocated, responses={400: {"description": "No bars."}})
    def portfolio() -> Allocated:
        """Capital shared between all symbols by the configured optimisation."""
        found = predictor.portfolio()
        return Allocated(
            weights=dict(found.weights),
            method=found.method,
            expected_return=found.expected_return,
            volatility=found.volatility,
            note=found.note,
        )

    @app.post(
        "/v1/feedback",
        response_model=FeedbackAnswer,
        responses={**_WRITE, 409: {"description": "Known with other contents, or of an unknown prediction."}},
    )
    def feedback(trade: TradeReport) -> FeedbackAnswer:
        """Report a finished trade; the same report twice changes nothing."""
        result = feedback_service.record(log, trade, settings.decisions)
        return FeedbackAnswer(
            trade_id=trade.trade_id,
            accepted=result.accepted,
            net_return=trade.net_return,
            reward=result.reward.total,
            parts=dict(result.reward.parts),
        )

    @app.get("/v1/account", response_model=Account)
    def account_now() -> Account:
        """The account that sizes and limits are made from."""
        return state.load_account(workspace, settings)

    @app.put("/v1/account", response_model=Account, responses=_WRITE)
    def put_account(account: Account) -> Account:
        """Replace the account by one kept outside. An emergency stop stays: only a person lifts it."""
        if account.peak_equity < account.equity:
            account = account.model_copy(update={"peak_equity": account.equity})
        return state.save_account(workspace, account, settings)

    @app.post("/v1/stop", response_model=StopAnswer, responses=_WRITE)
    def stop(order: Stop) -> StopAnswer:
        """Pull the emergency stop."""
        now = state.pull(workspace, order.by, order.reason)
        return StopAnswer(active=now.active, reason=now.reason)

    @app.get("/healthz", response_model=Health)
    def healthz() -> JSONResponse:
        """200 when at least rules could answer; says what works."""
        problem, live = "", 0
        try:
            predictor.book.refresh()
            live = len(predictor.live.read().models)
        except BarcastError as error:
            problem = error.message
        symbols = predictor.book.symbols
        newest = max((h.event_timestamp for s in symbols if (h := predictor.book.get(s))), default=None)
        health = Health(
            status=problem or ("ok" if symbols else "no bars"),
            live_models=live,
            model_server=_BREAKER[predictor.client.breaker.state],
            symbols=len(symbols),
            newest_bar=newest.isoformat() if newest else None,
        )
        return JSONResponse(health.model_dump(), 200 if symbols and not problem else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Prometheus text."""
        return PlainTextResponse(predictor.metrics.text().decode(), media_type="text/plain; version=0.0.4")

    keys = None
    if config.require_keys:
        keys = KeyFile(keys_file or Path(config.keys_file or workspace.state / "api_keys.json"))
    limit = RateLimit(config.requests_per_minute, config.burst)
    app.add_middleware(Door, keys=keys, limit=limit, config=config, metrics=predictor.metrics)
    app.state.started_at = clock.now()
    return app
