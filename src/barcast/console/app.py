"""The console's pages and forms: FastAPI, Jinja2 templates, one style sheet, no script.

Every page needs a session; every form carries the session's token and must come from the same origin; an
approval names the version and the champion that were on the page, so that nothing else is approved.
"""

from __future__ import annotations

import hmac
import tempfile
from collections.abc import Awaitable, Callable
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from barcast import clock
from barcast.console import plots, views
from barcast.console.access import COOKIE, Access, Session
from barcast.console.health import Health
from barcast.console.watched import watched
from barcast.errors import BarcastError, RefusedError, RegistryError
from barcast.registry import Registry
from barcast.registry.asking import server
from barcast.serving.state import load_emergency

MAX_FORM_BYTES = 64 * 1024
STATIC = {"console.css": "text/css", "mark.svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not no-referrer: browsers then send `Origin: null` with this console's own forms
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A report is a file that a pipeline wrote: it is shown in a sandbox without scripts, whatever it holds.
REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
}
Handler = Callable[[Request], Awaitable[Response]]


class Console:
    """The pages over one registry."""

    def __init__(
        self, registry: Registry, access: Access, endpoint: str, submit: Callable[..., str] | None = None
    ) -> None:
        self.registry = registry
        self.submit = submit
        self.access = access
        self.endpoint = endpoint
        self.health = Health(registry, endpoint)
        self.templates = Environment(
            loader=PackageLoader("barcast.console"),
            autoescape=select_autoescape(default=True, default_for_string=True),
        )
        self.templates.filters["link"] = lambda word: quote(word, safe="")
        self.templates.globals.update(number=views.number, gauge=lambda v: Markup(plots.gauge(v)))

    def page(
        self, session: Session | None, template: str, status: int = 200, /, **values: Any
    ) -> HTMLResponse:
        """Render a template; messages of the session are shown once, an active emergency stop on every page."""
        messages = session.messages[:] if session else []
        if session:
            session.messages.clear()
        text = self.templates.get_template(template).render(
            session=session,
            messages=messages,
            stopped=load_emergency(self.registry.workspace).reason if session else "",
            workspace=self.registry.workspace.name,
            **values,
        )
        return HTMLResponse(text, status)

    def overview(self, session: Session) -> Response:
        """Waiting challengers, live models, health."""
        return self.page(
            session, "overview.html", lights=self.health.lights(), **views.overview(self.registry)
        )

    def watching(self, session: Session) -> Response:
        """What monitoring saw and did, with plots over time."""
        return self.page(
            session, "health.html", lights=self.health.lights(), **watched(self.registry.workspace)
        )

    def model(self, session: Session, word: str, status: int = 200) -> Response:
        """One model: champion and challenger side by side, evidence, decisions, history."""
        view = views.model_view(self.registry, word)
        challenger = view["challenger"]
        numbers = (challenger["verdict"] or {}).get("numbers", {}) if challenger else {}
        return self.page(
            session,
            "model.html",
            status,
            verdict_plots=[Markup(p) for p in plots.verdict_plots(numbers)],
            timeline=Markup(plots.timeline(view["spans"], clock.now())),
            **view,
        )

    def version(self, session: Session, word: str, number: int) -> Response:
        """Everything that made one version."""
        with tempfile.TemporaryDirectory(prefix="barcast-console-") as folder:
            try:
                has_report = self.registry.report(word, number, Path(folder)).is_file()
            except RegistryError:
                has_report = False
        return self.page(
            session,
            "version.html",
            word=word,
            title=views.spoken(word),
            shown=self.registry.show(word, number),
            card=views.markdown(self.registry.card(word, number)),
            has_report=has_report,
        )

    def report(self, word: str, number: int) -> Response:
        """The run's report, in a sandbox."""
        with tempfile.TemporaryDirectory(prefix="barcast-console-") as folder:
            found = self.registry.report(word, number, Path(folder))
            return HTMLResponse(found.read_text(encoding="utf-8"), headers=REPORT_HEADERS)

    def history(self, session: Session, symbol: str, day: str) -> Response:
        """The whole ledger, newest first; with symbol and day, what answered then."""
        served, asked, problem = [], None, ""
        if symbol and day:
            try:
                asked = date.fromisoformat(day)
                served = self.registry.history(symbol, asked)
            except ValueError:
                problem = f"{day!r} is no date; write YYYY-MM-DD."
        return self.page(
            session,
            "history.html",
            rows=views.history_rows(self.registry),
            served=served,
            asked=asked,
            symbol=symbol,
            day=day,
            problem=problem,
            when=views.when,
        )

    def decide(self, session: Session, word: str, action: str, form: dict[str, str]) -> Response:
        """Approve, reject or roll back, in the name of the session's person."""
        reason, by = form.get("reason", "").strip(), session.person
        try:
            if not reason:
                raise RegistryError(
                    "A decision needs a reason.", hint="Say why, for whoever reads the ledger later."
                )
            if len(reason) > 2000:
                raise RegistryError("The reason is longer than 2000 characters.", hint="Shorten it.")
            version = int(form["version"])
            with server(self.endpoint) as ask:
                if action == "approve":
                    self._same_champion(word, form.get("champion", ""))
                    self.registry.approve(word, by=by, reason=reason, version=version)
                    if self.submit is not None:
                        text = f"Version {version} is approved; run {self.submit()} puts it live."
                    else:
                        self.registry.promote(word, version, ask=ask)
                        checked = "the server gave the recorded answer" if ask else "no model server runs yet"
                        text = f"Version {version} is live ({checked})."
                elif action == "reject":
                    self.registry.reject(word, by=by, reason=reason, version=version)
                    text = f"Version {version} is rejected; what answers now goes on."
                elif self.submit is not None:
                    run_id = self.submit(rollback=word, to=version, by=by, reason=reason)
                    text = f"Run {run_id} puts version {version} live again."
                else:
                    self.registry.rollback(word, version, by=by, reason=reason, ask=ask)
                    text = f"Version {version} is live again."
        except (KeyError, ValueError):
            session.messages.append(("bad", "The form was not complete; nothing was changed."))
            return self.model(session, word, 400)
        except BarcastError as error:
            session.messages.append(("bad", str(error)))
            return self.model(session, word, 409)
        session.messages.append(("ok", text))
        return RedirectResponse(f"/models/{quote(word, safe='')}", 303)

    def _same_champion(self, word: str, seen: str) -> None:
        champion = self.registry.model(self.registry.state(), word).champion
        if seen != str(champion or ""):
            raise RefusedError(
                f"The champion changed while the page was open (it was {seen or 'none'}, it is "
                f"{champion or 'none'}).",
                hint="Look at the page again before deciding.",
            )


def create_app(
    registry: Registry,
    access: Access,
    endpoint: str,
    hosts: tuple[str, ...] = (),
    submit: Callable[..., str] | None = None,
) -> FastAPI:
    """The console as an ASGI application.

    Args:
        endpoint: the model server, host:port.
        hosts: host names it may be called by, beside loopback (a page elsewhere cannot reach it by another name).
        submit: starts the promotion pipeline where the console itself may not write served models, for what was
            approved or with `rollback`, `to`, `by` and `reason`; the run's id.
    """
    console = Console(registry, access, endpoint, submit)
    app = FastAPI(title="barcast console", docs_url=None, redoc_url=None, openapi_url=None)
    allowed = {"localhost", "127.0.0.1", "::1", *hosts}

    @app.middleware("http")
    async def guard(request: Request, call: Handler) -> Response:
        if request.url.path == "/healthz":  # a probe calls by address and learns nothing but that we run
            response: Response = Response("ok", media_type="text/plain")
        elif _host(f"//{request.headers.get('host', '')}").hostname not in allowed:
            response = HTMLResponse("This console is not called by that name.", 421)
        else:
            try:
                response = await call(request)
            except BarcastError as error:
                session = access.session(request.cookies.get(COOKIE))
                status = 404 if isinstance(error, RegistryError) else 500
                response = console.page(session, "error.html", status, message=error.message, hint=error.hint)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def entered(request: Request) -> Session | None:
        return access.session(request.cookies.get(COOKIE))

    async def show(request: Request, make: Callable[[Session], Response]) -> Response:
        session = entered(request)
        if session is None:
            return RedirectResponse("/login", 303)
        # Pages read files and ask servers: not in the event loop.
        return await anyio.to_thread.run_sync(make, session)

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in STATIC:
            return console.page(None, "error.html", 404, message="There is no such file.", hint="")
        content = resources.files("barcast.console").joinpath("static", name).read_bytes()
        return Response(content, media_type=STATIC[name], headers={"Cache-Control": "max-age=3600"})

    @app.get("/login")
    async def login(request: Request) -> Response:
        return console.page(entered(request), "login.html", asks_name=access.asks_name, problem="")

    @app.post("/login")
    async def enter(request: Request) -> Response:
        form = await _form(request)
        if form is None or not _same_origin(request):
            return console.page(None, "error.html", 403, message="The request was refused.", hint="")
        if access.braked():
            problem = "Too many wrong tokens. Wait a minute."
            return console.page(None, "login.html", 429, asks_name=access.asks_name, problem=problem)
        identity = access.enter(form.get("token", ""), form.get("name", ""))
        if identity is None:
            problem = (
                "The token is wrong, or the name is missing." if access.asks_name else "The token is wrong."
            )
            return console.page(None, "login.html", 401, asks_name=access.asks_name, problem=problem)
        response = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, identity, httponly=True, samesite="strict", secure=secure, path="/")
        return response

    @app.get("/")
    async def overview(request: Request) -> Response:
        return await show(request, console.overview)

    @app.get("/health")
    async def health(request: Request) -> Response:
        return await show(request, console.watching)

    @app.get("/models/{word:path}/versions/{number}/report")
    async def report(request: Request, word: str, number: int) -> Response:
        return await show(request, lambda _: console.report(word, number))

    @app.get("/models/{word:path}/versions/{number}")
    async def version(request: Request, word: str, number: int) -> Response:
        return await show(request, lambda session: console.version(session, word, number))

    @app.get("/models/{word:path}")
    async def model(request: Request, word: str) -> Response:
        return await show(request, lambda session: console.model(session, word))

    @app.get("/history")
    async def history(request: Request, symbol: str = "", day: str = "") -> Response:
        return await show(request, lambda session: console.history(session, symbol, day))

    async def checked(request: Request) -> tuple[Session, dict[str, str]] | Response:
        """Session and form of a request that may change something, or the refusal."""
        session = entered(request)
        if session is None:
            return RedirectResponse("/login", 303)
        form = await _form(request)
        if (
            form is None
            or not _same_origin(request)
            or not hmac.compare_digest(form.get("csrf", "").encode(), session.csrf.encode())
        ):
            message = "The request did not come from this console's own form; nothing was changed."
            return console.page(session, "error.html", 403, message=message, hint="Open the page again.")
        return session, form

    @app.post("/logout")
    async def leave(request: Request) -> Response:
        found = await checked(request)
        if isinstance(found, Response):
            return found
        access.leave(request.cookies.get(COOKIE))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/")
        return response

    @app.post("/decide/{action}/{word:path}")
    async def decide(request: Request, action: str, word: str) -> Response:
        found = await checked(request)
        if isinstance(found, Response):
            return found
        session, form = found
        if action not in ("approve", "reject", "rollback"):
            return console.page(
                session, "error.html", 404, message=f"There is no action {action!r}.", hint=""
            )
        return await anyio.to_thread.run_sync(console.decide, session, word, action, form)

    return app


def _same_origin(request: Request) -> bool:
    """Browsers name the origin of a form; a request without one comes from no browser's page."""
    origin = request.headers.get("origin")
    if origin in (None, ""):
        return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    return _host(origin).netloc == request.headers.get("host")


def _host(address: str) -> SplitResult:
    """The parts of an address that a client wrote; all empty where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


async def _form(request: Request) -> dict[str, str] | None:
    """Fields of a small URL-encoded form; None for anything else."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return None
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return None
    return {name: values[-1] for name, values in fields.items()}
