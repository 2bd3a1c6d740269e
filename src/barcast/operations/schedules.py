"""Schedules on this machine: kept in a database, run by one scheduler of a workspace, changed by commands.

A schedule runs a pipeline, fills the training queue, or lets the shadow learn from outcomes. Runs missed while nothing
ran are caught up as one (or skipped), and a run never begins while the same schedule's last one goes on. A running
scheduler notices changes within `refresh_seconds`, since commands write to the same database.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from barcast import clock, logs
from barcast.config import Config
from barcast.errors import BarcastError, ConfigError, RefusedError, did_you_mean
from barcast.operations import triggers
from barcast.operations.one_scheduler import database_error, one_scheduler

# Actions that are no pipeline: ask for trainings; let the shadow of the live model look at new outcomes.
QUEUE, LEARN = "queue", "learn"
_SLOT = "schedules"
_going_on: dict[str, Config] = {}  # runs that this process started, by their id


class Schedules:
    """The schedules of a workspace.

    Args:
        config: the workspace's configuration; a schedule runs with the one it was made with.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = config.operations.schedules
        self.workspace = config.open_workspace()
        self.workspace.state.mkdir(parents=True, exist_ok=True)
        self.url = self.settings.database or f"sqlite:///{self.workspace.state / 'schedules.db'}"

    def create(
        self,
        name: str,
        action: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        at: datetime | None = None,
        until: datetime | None = None,
        catch_up: bool = True,
    ) -> dict[str, Any]:
        """Make a schedule; its row as in `rows`.

        Args:
            name: letters, digits, '-', '_' and '.', unique in the workspace.
            action: a pipeline's name; "queue": ask for trainings of all symbols with automatic priority; "learn": let
                the shadow of the live model look at new outcomes.
            arguments: of the pipeline, beside `config` and `run_id`.
            cron: crontab(5) line in UTC.
            every: fixed interval, instead of `cron`.
            at: one single time, instead of both.
            until: the last moment it may fire.
            catch_up: start late (once) what was missed while no scheduler ran.

        Raises:
            ConfigError: bad name, unknown action or argument, not exactly one of cron, every and at, or it never fires.
            RefusedError: there is a schedule of this name.
        """
        from apscheduler.jobstores.base import ConflictingIdError

        from barcast.adapters.kubeflow import check_arguments, check_models

        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
            raise ConfigError(
                f"The name {name!r} cannot be used.", hint="Use letters, digits, '-', '_' and '.'."
            )
        check_action(action)
        if arguments:
            check_arguments(action, arguments)
            check_models(self.config, arguments.get("models", ""))
        trigger = triggers.make(cron=cron, every=every, at=at, until=until)
        with self._opened() as scheduler:
            try:
                scheduler.add_job(
                    "barcast.operations.schedules:fire",
                    trigger=trigger,
                    id=name,
                    name=action,
                    kwargs={
                        "name": name,
                        "action": action,
                        "config": self.config.model_dump_json(),
                        "arguments": dict(arguments or {}),
                    },
                    misfire_grace_time=None if catch_up else max(1, int(self.settings.grace_seconds)),
                    coalesce=True,
                    max_instances=1,
                    jobstore=_SLOT,
                )
            except ConflictingIdError:
                raise RefusedError(
                    f"There is a schedule {name!r} already.",
                    hint=f"Delete it first (barcast schedule delete {name}), or choose another name.",
                ) from None
        return self.row(name)

    def rows(self) -> list[dict[str, Any]]:
        """All schedules, by name: name, action, when, state (active, paused), next_at, catch_up, last."""
        last = self._last()
        with self._opened() as scheduler:
            found = [
                {
                    "name": job.id,
                    "action": job.name,
                    "when": triggers.when(job.trigger),
                    "state": "active" if job.next_run_time else "paused",
                    "next_at": job.next_run_time,
                    "catch_up": job.misfire_grace_time is None,
                    "last": last.get(job.id),
                }
                for job in scheduler.get_jobs(_SLOT)
            ]
        return sorted(found, key=lambda row: str(row["name"]))

    def row(self, name: str) -> dict[str, Any]:
        """One schedule.

        Raises:
            ConfigError: there is none of this name.
        """
        rows = {row["name"]: row for row in self.rows()}
        if name not in rows:
            raise ConfigError(
                f"There is no schedule {name!r} in workspace {self.workspace.name!r}.",
                hint=did_you_mean(name, rows) or "See: barcast schedule list.",
            )
        return rows[name]

    def pause(self, name: str) -> None:
        """Let it not fire until resumed."""
        self._change(name, "pause_job")

    def resume(self, name: str) -> None:
        """Let it fire again, from now on.

        Raises:
            ConfigError: its last time has passed (APScheduler would remove it without a word).
        """
        self.row(name)
        with self._opened() as scheduler:
            trigger = scheduler.get_job(name, _SLOT).trigger
            if trigger.get_next_fire_time(None, clock.now()) is None:
                raise ConfigError(
                    f"The schedule {name!r} ended while it was paused: its last time has passed.",
                    hint=f"Delete it (barcast schedule delete {name}) and make a new one.",
                )
            scheduler.resume_job(name, jobstore=_SLOT)

    def delete(self, name: str) -> None:
        """Remove it; a run going on is not touched."""
        self._change(name, "remove_job")

    def _change(self, name: str, method: str) -> None:
        self.row(name)
        with self._opened() as scheduler:
            getattr(scheduler, method)(name, jobstore=_SLOT)

    def run(self, *, ready: Callable[[], None] | None = None) -> None:
        """Be the scheduler of the workspace until interrupted; its runs going on are cancelled then.

        Args:
            ready: called once it runs.

        Raises:
            RefusedError: another scheduler of the workspace runs, here or on the same database.
            SchedulerError: the database does not answer.
        """
        from apscheduler.schedulers.blocking import BlockingScheduler

        with one_scheduler(self.workspace, self.url) as check:
            scheduler = self._scheduler(BlockingScheduler)
            refused: list[RefusedError] = []

            def look() -> None:
                """Waking regularly is how changes made by other processes are seen."""
                try:
                    check()
                except RefusedError as error:
                    refused.append(error)
                    scheduler.shutdown(wait=False)
                    return
                mend(scheduler, clock.now())

            scheduler.add_job(
                look, "interval", seconds=self.settings.refresh_seconds, jobstore="default", id="look"
            )
            if ready is not None:
                ready()
            try:
                scheduler.start()
            finally:
                _cancel_runs()
                if scheduler.running:
                    scheduler.shutdown(wait=True)
            if refused:
                raise refused[0]

    def _scheduler(self, kind: Any) -> Any:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.jobstores.memory import MemoryJobStore
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
        from apscheduler.schedulers.base import STATE_RUNNING

        store = SQLAlchemyJobStore(self.url, tablename=f"schedules_{self.workspace.name}")
        scheduler = kind(
            jobstores={"default": MemoryJobStore(), _SLOT: store},
            executors={"default": ThreadPoolExecutor(8)},
            timezone=UTC,
        )
        process = scheduler._process_jobs
        # While it ends, even one that was only opened to read, APScheduler looks for due runs once more. Nothing is
        # left to run them then, and they would count as done.
        scheduler._process_jobs = lambda: process() if scheduler.state == STATE_RUNNING else None
        return scheduler

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The database through a scheduler that runs nothing.

        Raises:
            SchedulerError: it cannot be used.
        """
        from apscheduler.schedulers.background import BackgroundScheduler
        from sqlalchemy.exc import SQLAlchemyError

        try:
            scheduler = self._scheduler(BackgroundScheduler)
            scheduler.start(paused=True)
            try:
                yield scheduler
            finally:
                scheduler.shutdown(wait=True)
        except SQLAlchemyError as error:
            raise database_error(self.url, error) from error

    def _last(self) -> dict[str, dict[str, Any]]:
        path = _journal(self.config)
        found: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):  # a line that a full disk cut off
                entry = json.loads(line)
                found[entry.pop("name")] = entry
        return found


def check_action(action: str) -> None:
    """Whether a schedule can do this.

    Raises:
        ConfigError: `action` is neither "queue", "learn" nor a pipeline.
    """
    from barcast.adapters.kubeflow import pipelines

    known = [*pipelines(), QUEUE, LEARN]
    if action not in known:
        raise ConfigError(
            f"A schedule cannot do {action!r}; it can do {', '.join(known)}.",
            hint=did_you_mean(action, known),
        )


def fire(name: str, action: str, config: str, arguments: Mapping[str, Any] | None = None) -> None:
    """What a schedule does when its time has come; how it ended is written to the journal."""
    settings = Config.model_validate_json(config)
    log = logs.get("schedules").bind(schedule=name, action=action)
    started = clock.now()
    log.info("schedule fires")
    try:
        if action == QUEUE:
            detail = _ask_for_trainings(settings, name)
        elif action == LEARN:
            detail = _learn(settings)
        else:
            detail = _run_pipeline(settings, action, arguments or {})
        state = "done"
    except RefusedError as error:  # a run of the workspace goes on: no overlap
        state, detail = "skipped", str(error)
    except BarcastError as error:
        state, detail = "failed", str(error)
    except Exception as error:
        state, detail = "failed", f"{type(error).__name__}: {error}"
    if state != "done":
        log.warning("schedule did not do its work", state=state, error=detail)
    entry = {"name": name, "at": started.isoformat(), "state": state, "detail": detail}
    path = _journal(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"\n{json.dumps(entry)}\n")  # a line of its own, whatever a full disk left before it
    except OSError as error:
        log.error("the journal of schedules cannot be written", error=str(error), state=state, detail=detail)


def _ask_for_trainings(settings: Config, name: str) -> str:
    from barcast.operations import queue_facts
    from barcast.operations.queue import TrainingQueue

    facts = queue_facts.gather(settings)
    queue = TrainingQueue(settings.open_workspace(), settings.operations.queue)
    queue.request_batch(facts, facts=facts, reason=f"schedule {name}")
    return f"{len(facts)} trainings asked for"


def _learn(settings: Config) -> str:
    """In a process of its own: TensorFlow must not stay in the scheduler's memory."""
    from barcast.serving.learn import look

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(look, settings.model_dump_json()).result()


def _run_pipeline(settings: Config, pipeline: str, arguments: Mapping[str, Any]) -> str:
    from barcast.operations.runs import new_run_id, run_pipeline

    run_id = new_run_id(pipeline)
    _going_on[run_id] = settings
    try:
        for _ in run_pipeline(settings, pipeline, run_id, **arguments):
            pass
    finally:
        _going_on.pop(run_id, None)
    return run_id


def _cancel_runs() -> None:
    """End the runs of this process: nothing of a stopped scheduler goes on unseen."""
    from barcast.operations.runs import cancel

    for run_id, settings in list(_going_on.items()):
        with contextlib.suppress(BarcastError):
            cancel(settings, run_id)


def mend(scheduler: Any, now: datetime) -> None:
    """Bring schedules nearer that a clock, since set back, put too far into the future.

    A schedule's next time is never later than the one its trigger gives from now on.
    """
    from apscheduler.triggers.cron import CronTrigger
    from apscheduler.triggers.interval import IntervalTrigger

    for job in scheduler.get_jobs(_SLOT):
        if job.next_run_time is None:
            continue
        if isinstance(job.trigger, IntervalTrigger):
            latest = now + job.trigger.interval
        elif isinstance(job.trigger, CronTrigger):
            latest = job.trigger.get_next_fire_time(None, now) or job.next_run_time
        else:
            continue
        if job.next_run_time > latest + timedelta(seconds=1):
            log = logs.get("schedules")
            log.warning(
                "the clock was set back", schedule=job.id, was=str(job.next_run_time), now=str(latest)
            )
            scheduler.modify_job(job.id, _SLOT, next_run_time=latest)


def _journal(config: Config) -> Path:
    return config.open_workspace().state / "schedule_runs.jsonl"
