"""Hooks for ``gunicorn.conf.py``: sync, gthread and gevent workers, preloaded or not.

All of them at once::

    from poolproof.integrations.gunicorn import *  # noqa: F403

A configuration that has hooks of its own calls these from there.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from gunicorn.workers.sync import (  # type: ignore[import-untyped,unused-ignore]
        SyncWorker,
    )
except ImportError as error:
    raise ImportError(
        'poolproof.integrations.gunicorn needs Gunicorn: pip install "gunicorn>=21"'
    ) from error

from poolproof._sqlalchemy import engine_of_pool
from poolproof.doctor.catalogue import CHECKS
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.engines import shown
from poolproof.doctor.greenlets import is_patched_late, late_patch
from poolproof.doctor.subject import Subject
from poolproof.doctor.together import examine_together
from poolproof.fork import renewal
from poolproof.integrations.checked_out import lent, watch_statements
from poolproof.integrations.leftovers import Leftovers
from poolproof.metrics.automatic import mark_main, offer, publish
from poolproof.pool.deadlines import deadline

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["post_fork", "post_worker_init", "when_ready", "worker_abort", "worker_exit"]

# A request that has waited for its turn as long as the time-out gets so much, for the
# arbiter looks once a second.
_LEAST_S = 0.1
# What is looked at when Gunicorn starts: what holds for these workers. The rest is for
# `poolproof doctor`, at leisure.
_CHECKS = [
    check
    for check in CHECKS
    if check.code in ("PP101", "PP205", "PP304", "PP305", "PP306", "PP311")
]
_FITS = ("PP101", "fine")
_leftovers = Leftovers()
# Whether the master could ask the servers already.
_checked: list[int] = []


def when_ready(server: Any) -> None:
    """Say what the doctor finds: more connections than the server lets in, and so on.

    With ``preload_app`` the engines are known here; without, the first worker does it.
    Where the application serves metrics and no directory is named for them, the workers
    are given one that ends with the master.

    Args:
        server: Gunicorn's arbiter.
    """
    mark_main()
    _offer_directory()
    _check_patches(server.cfg, server.log)
    _examine(server.cfg, server.log)


def post_fork(_server: Any, worker: Any) -> None:
    """Start afresh in a new worker.

    The pools do it by themselves; here it comes before the application's own hooks.

    Args:
        worker: Gunicorn's worker.
    """
    renewal.after_fork()
    worker.log.debug("poolproof: worker %s starts with empty pools", os.getpid())


def post_worker_init(worker: Any) -> None:
    """Put each request of a sync worker under a deadline below Gunicorn's time-out.

    Gunicorn's SIGABRT does not reach a worker inside a psycopg2 call: a handler of
    Python's runs when the call returns. So the pool's watchdog shuts the sockets of the
    request's connections shortly before. The request fails with an error whose cause is
    `poolproof.DeadlineExceeded`, the worker lives, and over another connection the
    server is told to end the session, so that its locks are free.
    A time-out of other workers is not about one request, so they have no such deadline.

    Args:
        worker: Gunicorn's worker.
    """
    watch_statements()
    if isinstance(worker, SyncWorker) and worker.cfg.timeout:
        _leftovers.watch()
        worker.handle_request = _bounded(worker, worker.handle_request)
    if worker.age == 1:
        _examine(worker.cfg, worker.log)


def worker_abort(worker: Any) -> None:
    """Report who holds which connection, when Gunicorn ends a worker for its time-out.

    Args:
        worker: Gunicorn's worker.
    """
    # Inside a signal handler, and whatever is wrong here must not hide the abort.
    try:
        found = lent()
    except Exception:
        worker.log.exception("poolproof: the connections could not be listed")
        return
    if not found:
        worker.log.error("poolproof: worker %s held no connection", os.getpid())
    for one in found:
        worker.log.error("poolproof: worker %s: %s", os.getpid(), one)


def worker_exit(_server: Any, worker: Any) -> None:
    """Close the connections at rest in order, so that the server has no leftovers.

    Args:
        worker: Gunicorn's worker.
    """
    for pool in renewal.pools():
        try:
            pool.dispose()
        except Exception:
            worker.log.exception("poolproof: a pool could not be closed")
    publish()


def margin(timeout: float) -> float:
    """Say how long before Gunicorn's time-out a request's database calls must end.

    Args:
        timeout: Gunicorn's setting, in seconds, more than 0.

    Returns:
        A tenth of it, but 1 s at least, for the application has to answer; at most
        half.
    """
    return min(timeout / 2, max(1.0, timeout / 10))


def _offer_directory() -> None:
    """Choose where workers keep their metrics, should the application serve them.

    It is made by the first worker that does, and goes with the master. Who cannot guess
    its name cannot make it before that.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the name below it is secret
    above = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    directory = above / f"poolproof-{os.getpid()}-{secrets.token_hex(16)}"
    offer(directory)
    # Children of a fork inherit what is registered.
    atexit.register(_remove, directory, os.getpid())


def _remove(directory: Path, master: int) -> None:
    if os.getpid() == master:
        shutil.rmtree(directory, ignore_errors=True)


def _bounded(worker: Any, handle: Callable[..., Any]) -> Callable[..., Any]:
    timeout = float(worker.cfg.timeout)
    allowed = timeout - margin(timeout)

    def handle_request(*arguments: Any, **more: Any) -> Any:
        left = max(_LEAST_S, allowed - _silent_s(worker))
        try:
            with deadline(left) as block:
                return handle(*arguments, **more)
        finally:
            if not block.left:
                _report_deadline(worker, left)
                _leftovers.end(margin(timeout) / 2)

    return handle_request


def _silent_s(worker: Any) -> float:
    """Say since when a worker has given no sign of life, in seconds.

    That is what Gunicorn measures, and it begins before the request was read.
    """
    since = worker.tmp.last_update()
    # The clock has changed between versions, and the two are decades apart.
    for now in (time.monotonic(), time.time()):
        if 0 <= now - since <= worker.cfg.timeout:
            return float(now - since)
    return 0.0


def _report_deadline(worker: Any, seconds: float) -> None:
    with contextlib.suppress(Exception):
        worker.log.error(
            "poolproof: worker %s: a request was still busy %.1f s after its start, "
            "shortly before Gunicorn's timeout of %s s; the database connections that "
            "it had then were cut off",
            os.getpid(),
            seconds,
            worker.cfg.timeout,
        )


def _check_patches(config: Any, log: Any) -> None:
    """Warn of what was loaded before gevent replaced the thread-locals.

    The workers patch themselves, after the fork. A `scoped_session` of before is one
    session for all requests of a worker: with a driver that lets others run they read
    each other's answers, or wait for ever. Without a pool of ours there is no engine to
    examine, and the same holds.
    """
    kind = config.worker_class_str
    if not renewal.pools() and is_patched_late(kind, preload=config.preload_app):
        log.warning("poolproof: %s", late_patch(kind))


def _examine(config: Any, log: Any) -> None:
    """Say what the doctor's checks find that need no more than the engines."""
    if _checked:
        return
    if not renewal.pools():
        return
    _checked.append(os.getpid())
    gc.collect()  # pools that were replaced may still be there
    subjects = []
    for pool in renewal.pools():
        engine = engine_of_pool(pool) if pool.is_of_postgresql() else None
        if engine is not None and engine.pool is pool:
            subjects.append(_subject(engine, config))
    examined = examine_together(subjects, _CHECKS)
    said = set()
    for subject, examination in zip(subjects, examined, strict=True):
        if subject.server is None:  # the database may come later
            log.info(
                "poolproof: max_connections could not be looked at: %s",
                subject.no_server,
            )
        for one in examination.findings:
            line = f"{one.code}: {one.summary}"
            is_bad = one.state == "found" and one.severity != "note"
            if is_bad:
                line += f"; {one.advice}"
            if line not in said and (is_bad or (one.code, one.state) == _FITS):
                said.add(line)
                (log.warning if is_bad else log.info)("poolproof: %s", line)


def _subject(engine: Any, config: Any) -> Subject:
    kind = config.worker_class_str
    return Subject(
        engine=engine,
        shown=shown(engine),
        is_application=True,
        deployment=Deployment(
            workers=config.workers,
            threads=config.threads if kind in ("gthread", "sync") else None,
            worker_class=kind,
            preload=config.preload_app,
        ),
    )
