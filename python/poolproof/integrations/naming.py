"""What the server calls the sessions of a worker: ``application_name``.

A new connection is told its name when it connects, which costs nothing. One that goes
from a job to another job is renamed when it is lent, which costs a round trip; nothing
is sent when it keeps its name.
"""

from __future__ import annotations

import functools
import os
import re
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, exc
from sqlalchemy.engine import Engine

from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Naming", "fit"]

_LONGEST: Final = 63  # PostgreSQL's names; it cuts the rest off
_DRIVERS: Final = frozenset({"psycopg2", "psycopg", "pg8000", "poolproof"})
# The server shows a question mark for what is not ASCII, and so do we for what would
# have to be quoted in a statement, by rules that differ between drivers.
_UNSAFE: Final = re.compile(r"[^\x20-\x7e]|['%\\]")
_BASE: Final = "poolproof_name_of_engine"
_NAME: Final = "poolproof_name"
# The pool's record of the connection that is being made here.
_record: ContextVar[Any] = ContextVar("poolproof_record", default=None)


def fit(base: str, worker: str, job: str) -> str:
    """Make a name that the server does not cut off in the wrong place.

    Args:
        base: What the engine was given; it stays whole, in front.
        worker: The worker's name.
        job: The job's name, or nothing; it loses its leading modules first.

    Returns:
        At most 63 characters of ASCII.
    """
    front = " ".join(word for word in (base, worker) if word)
    left = _LONGEST - len(front) - 1
    while len(job) > left and "." in job:
        job = job.partition(".")[2]
    return _UNSAFE.sub("?", f"{front} {job}".strip()[:_LONGEST].strip())


class Naming:
    """Names the sessions of this process's engines.

    Several in a process (Luigi inside a worker of Celery) agree on one name.

    Args:
        worker: Returns the worker's name, or nothing.
        job: Returns the name of the job that is under way here, or nothing.
        renames: Whether a connection is renamed when it goes from one job to another.
    """

    def __init__(
        self, worker: Callable[[], str], job: Callable[[], str], *, renames: bool
    ) -> None:
        self.worker = worker
        self.job = job
        self.renames = renames

    def begin(self) -> None:
        """Name connections from now on, of engines that exist and those to come."""
        if not _namings:
            event.listen(Engine, "do_connect", _on_connect)
        if self.renames and not _renaming():
            event.listen(Pool, "checkout", _rename)
        _namings.append(self)

    def end(self) -> None:
        """Name none any more; those that have a name keep it."""
        _namings.remove(self)
        if not _namings:
            event.remove(Engine, "do_connect", _on_connect)
        if self.renames and not _renaming():
            event.remove(Pool, "checkout", _rename)


# Those that have begun. They name together: each by itself would rename what another
# has named, at each checkout.
_namings: list[Naming] = []
_dialects: weakref.WeakSet[Any] = weakref.WeakSet()


def _renaming() -> list[Naming]:
    return [each for each in _namings if each.renames]


def _wanted(base: str) -> str:
    workers = dict.fromkeys(each.worker() for each in _namings)
    jobs = [each.job() for each in _renaming()]
    # Jobs inside one another: whoever knows of one knows the innermost.
    return fit(base, " ".join(filter(None, workers)), next(filter(None, jobs), ""))


def _on_connect(dialect: Any, record: Any, *_arguments: object) -> None:
    """Put the name into what the driver is given.

    The arguments that a listener sees are the same ones at every connect, and of
    every thread; so it is done in the call itself, behind all listeners.
    """
    if getattr(dialect, "driver", "") not in _DRIVERS:
        return
    _record.set(record)
    if dialect in _dialects:
        return
    _dialects.add(dialect)
    connect = dialect.connect

    @functools.wraps(connect)
    def named(*arguments: Any, **keywords: Any) -> Any:
        if not _namings:
            return connect(*arguments, **keywords)
        base = keywords.get("application_name") or os.environ.get("PGAPPNAME", "")
        name = _wanted(base)
        record = _record.get()
        _record.set(None)
        if record is not None:
            record.info[_BASE], record.info[_NAME] = base, name
        return connect(*arguments, **{**keywords, "application_name": name})

    dialect.connect = named


# So that the control plane, which reads the engine's own arguments, may rely on them.
_on_connect.names_sessions_only = True  # type: ignore[attr-defined]


def _rename(connection: Any, record: Any, _fairy: Any) -> None:
    """Rename a connection that was of another job.

    Raises:
        DisconnectionError: It could not be; a new one has its name from the start.
    """
    base = record.info.get(_BASE)
    if base is None:  # made by a creator, or before there were names
        return
    name = _wanted(base)
    if name == record.info[_NAME]:
        return
    try:
        _set(connection, name)
    except Exception as error:
        raise exc.DisconnectionError(f"it could not be renamed: {error}") from error
    record.info[_NAME] = name


def _set(connection: Any, name: str) -> None:
    """Set the name in one round trip, without a transaction that could undo it."""
    was = connection.autocommit
    connection.autocommit = True
    try:
        cursor = connection.cursor()
        cursor.execute(f"set application_name = '{name}'")
        cursor.close()
    finally:
        connection.autocommit = was
