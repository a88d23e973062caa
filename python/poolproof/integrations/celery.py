"""Celery: what each task uses is kept apart, in every kind of worker.

Two lines install it, where the tasks are defined::

    from poolproof.integrations import celery as poolproof_celery

    poolproof_celery.install(app, session=Session)
"""

from __future__ import annotations

import socket
import sys
import weakref
from typing import Any, Literal

try:
    from billiard.process import (  # type: ignore[import-untyped,unused-ignore]
        current_process,
    )
    from celery import (  # type: ignore[import-untyped,unused-ignore]
        Celery,
        concurrency,
        signals,
    )
    from celery.concurrency.prefork import (  # type: ignore[import-untyped,unused-ignore]
        TaskPool as Prefork,
    )
except ImportError as error:
    raise ImportError(
        'poolproof.integrations.celery needs Celery: pip install "celery>=5.3"'
    ) from error

from poolproof._log import Log
from poolproof.doctor.engines import shown
from poolproof.integrations.found import on_our_pool
from poolproof.integrations.jobs import Jobs, StartError
from poolproof.metrics.automatic import mark_main

__all__ = ["install"]

_log = Log("poolproof.integrations")
_JOB = "_poolproof_job"
_installed: weakref.WeakKeyDictionary[Any, _Installed] = weakref.WeakKeyDictionary()


def install(
    app: Celery,
    *,
    session: Any = None,
    engine: Any = None,
    naming: Literal["task", "worker"] | None = "task",
) -> None:
    """Keep the tasks of an application apart, and its workers' connections in order.

    For the prefork, threads, solo and gevent pools. Idempotent: a second call for the
    same application adds to what the tasks use. It does nothing in a process that is
    not a worker, and nothing around tasks that are run eagerly.

    Args:
        app: The application.
        session: What tasks use: a `scoped_session`, a `sessionmaker`, a
            Flask-SQLAlchemy extension, or a list of those. Where neither this nor an
            engine is given, what uses a `poolproof.Pool` when the worker starts is
            found; where nothing does, a warning says so.
        engine: An engine, or a list; those that sessions are bound to are known. An
            engine for which no pool was chosen gets `poolproof.Pool`.
        naming: What stands in ``application_name`` behind what the engine was given:
            ``"task"`` is the worker's name and the task's, at one round trip when a
            connection goes to a task of another name; ``"worker"`` is free; None leaves
            it alone. The first call decides.

    Raises:
        TypeError: What is no application; a session or an engine of an unknown kind.
        ValueError: An unknown naming.
    """
    if naming not in ("task", "worker", None):
        msg = f'naming must be "task", "worker" or None, not {naming!r}'
        raise ValueError(msg)
    if hasattr(app, "_get_current_object"):  # a proxy: celery.current_app
        app = app._get_current_object()  # noqa: SLF001 - the proxy's own verb
    if not isinstance(app, Celery):
        msg = f"install needs the Celery application, not {type(app).__name__}"  # type: ignore[unreachable,unused-ignore]  # callers without types
        raise TypeError(msg)
    there = _installed.get(app)
    if there is None:
        there = _Installed(app, "job" if naming == "task" else naming)
    there.jobs.add(session, engine)
    if app not in _installed:
        _installed[app] = there
        there.connect_signals()


class _Installed:
    """What is installed in one application."""

    def __init__(self, app: Celery, naming: Literal["job", "worker"] | None) -> None:
        self.jobs = Jobs("task", naming=naming)
        self._app = weakref.ref(app)
        self._host = f"celery@{socket.gethostname()}"

    def connect_signals(self) -> None:
        """Listen to the workers and their tasks."""
        for name, receive in (
            ("worker_init", self._on_worker),
            ("worker_process_init", self._on_process),
            ("task_prerun", self._on_task),
            ("task_postrun", self._on_task_end),
            ("worker_process_shutdown", self._on_end),
            ("worker_shutdown", self._on_end),
        ):
            # The dictionary holds them, for as long as the application lives.
            getattr(signals, name).connect(receive)

    def _on_worker(self, sender: Any, **_more: object) -> None:
        """See that the databases let us in before a worker starts.

        Raises:
            SystemExit: One does not. Signals swallow every other exception.
        """
        if sender.app is not self._app():
            return
        self._host = sender.hostname
        if not self.jobs.has_any():
            self._find()
        try:
            self.jobs.check()
            if issubclass(concurrency.get_implementation(sender.pool_cls), Prefork):
                mark_main()
            else:
                self.jobs.start(self._host)
                self.jobs.connect()
        except StartError as error:
            sys.exit(f"poolproof: the worker does not start: {error}")

    def _find(self) -> None:
        """Take what is on this pool where nothing was named; say what that is."""
        sessions, engines = on_our_pool()
        self.jobs.add(sessions, engines)
        if engines:
            _log.info(
                "install was given no session and no engine; found and watched: "
                "sessions %d, on %s",
                len(sessions),
                ", ".join(map(shown, engines)),
            )
        else:
            _log.warning(
                "install was given no session and no engine, and this worker has none "
                "with poolproof.Pool yet: nothing is watched between tasks. Name them: "
                "install(app, session=Session)"
            )

    def _on_process(self, **_more: object) -> None:
        """Start afresh in a process that runs tasks, with a first connection."""
        index = getattr(current_process(), "index", None)
        self.jobs.start(self._host if index is None else f"{self._host}/{index}")
        try:
            self.jobs.connect()
        except StartError as error:
            # A server that was there when the worker started comes back; a process that
            # ended now would be replaced by one that fails just so.
            _log.warning("process %s begins without: %s", index, error)

    def _on_task(self, task: Any, **_more: object) -> None:
        if task.app is self._app() and not task.request.is_eager:
            setattr(task.request, _JOB, self.jobs.begin(task.name, alone=True))

    def _on_task_end(self, task: Any, **_more: object) -> None:
        job = getattr(task.request, _JOB, None)
        if job is not None and task.app is self._app():
            delattr(task.request, _JOB)
            self.jobs.end(job)

    def _on_end(self, **_more: object) -> None:
        self.jobs.stop()
