"""Workers that do one job after another: sessions, connections and names of each job.

Long, because it is one idea. It knows no framework. A worker process calls
`Jobs.start` when it begins, has each job in a `Jobs.job` block, and calls `Jobs.stop`
at its end.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import event, exc
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from poolproof._log import Log, fields
from poolproof._sqlalchemy import record_of
from poolproof.doctor.engines import is_engine, shown, sync_engine
from poolproof.fork import renewal
from poolproof.integrations import sessions
from poolproof.integrations.engines import adopt
from poolproof.integrations.naming import Naming
from poolproof.metrics import scope as scopes
from poolproof.metrics.automatic import publish
from poolproof.pool import deadlines
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from poolproof._sqlalchemy import ConnectionFairy
    from poolproof.pool.entry import Entry

__all__ = ["Job", "Jobs", "StartError"]

_log = Log("poolproof.integrations")


class StartError(RuntimeError):
    """A worker cannot do its jobs, because a database does not let it in."""


class Job:
    """One piece of work, from `Jobs.begin` to `Jobs.end`.

    Attributes:
        name: What it is called in the log and in ``pg_stat_activity``.
        outer: The job inside which it was begun, if any; it shares that job's sessions.
        lent: The pooled connections that it has checked out and that still exist.
        used: The sessions of a sessionmaker that it has used and that still exist.
        scope: The scope that it has left, for `scopes.restore`.
    """

    __slots__ = ("lent", "name", "outer", "scope", "used")

    def __init__(self, name: str, outer: Job | None, scope: str) -> None:
        self.name = name
        self.scope = scopes.enter(scope)
        self.outer = outer
        self.lent: weakref.WeakSet[ConnectionFairy] = weakref.WeakSet()
        self.used: weakref.WeakSet[Session] = weakref.WeakSet()


_current: ContextVar[Job | None] = ContextVar("poolproof_job", default=None)


class Jobs:
    """What the jobs of a worker use, kept clean between them.

    Args:
        kind: What a job is called in the log: ``"task"``.
        naming: Whether ``application_name`` has the worker's name and the job's
            (``"job"``), the worker's alone (``"worker"``: no round trip, ever), or is
            left alone (None).
    """

    def __init__(
        self, kind: str, *, naming: Literal["job", "worker"] | None = "job"
    ) -> None:
        if naming not in ("job", "worker", None):
            msg = f'naming must be "job", "worker" or None, not {naming!r}'
            raise exc.ArgumentError(msg)
        self._kind = kind
        self._naming = naming
        self._worker = ""
        self._names: Naming | None = None
        self._is_started = False
        self._scoped: list[Any] = []
        self._makers: list[Any] = []
        self._databases: list[Any] = []
        self._engines: list[Engine] = []

    def add(self, session: Any = None, engine: Any = None) -> None:
        """Name what the jobs use. Idempotent.

        Engines for which no pool was chosen get `poolproof.Pool`; all are guarded.
        Call it before the process forks.

        Args:
            session: A `scoped_session`, a `sessionmaker`, a Flask-SQLAlchemy extension
                (its `init_app` of poolproof cares for its pools), or a list of those.
            engine: An engine, sync or async, or a list of those.

        Raises:
            TypeError: Something of another kind.
        """
        for one in _listed(session):
            known, bound = self._place(one)
            if one not in known:
                known.append(one)
                if self._is_started and known is self._makers:
                    event.listen(one, "after_begin", self._use)
            for each in bound:
                self._add_engine(each)
        for one in _listed(engine):
            if not is_engine(one):
                msg = f"engine must be an engine, or several, not {type(one).__name__}"
                raise TypeError(msg)
            self._add_engine(one)

    def has_any(self) -> bool:
        """Tell whether anything was named."""
        return any((self._scoped, self._makers, self._databases, self._engines))

    def _place(self, one: Any) -> tuple[list[Any], list[Engine]]:
        if isinstance(one, scoped_session):
            return self._scoped, _bound(one.session_factory)
        if isinstance(one, sessionmaker):
            return self._makers, _bound(one)
        if isinstance(getattr(one, "session", None), scoped_session):
            return self._databases, []
        msg = (
            "session must be a scoped_session, a sessionmaker, a Flask-SQLAlchemy "
            f"extension, or a list of those, not {type(one).__name__}"
        )
        raise TypeError(msg)

    def _add_engine(self, engine: Engine | AsyncEngine) -> None:
        sync = sync_engine(engine)
        if sync not in self._engines:
            adopt(engine, {})
            self._engines.append(sync)

    def engines(self) -> list[Engine]:
        """Return the engines that were named, and those that sessions are bound to."""
        found = list(self._engines)
        for database in self._databases:
            # The mapping itself: `db.engines` needs an application's context.
            for engines in getattr(database, "_app_engines", {}).values():
                found += [each for each in engines.values() if each not in found]
        return found

    # --- a worker's life --------------------------------------------------------------

    def check(self) -> None:
        """See that each engine's server lets us in, and leave no connection behind.

        It is for the process that forks the workers.

        Raises:
            StartError: One does not.
        """
        for engine in self._askable():
            try:
                was_used = engine.pool.is_used  # type: ignore[attr-defined]
                fairy: Any = engine.pool.connect()
                fairy.detach()
                fairy.close()
            except Exception as error:
                raise StartError(_no_entry(engine, error)) from error
            if not was_used:
                engine.pool.dispose()  # its keeper is to open none, either

    def start(self, worker: str) -> None:
        """Begin to work in this process, with pools of its own. Idempotent.

        Args:
            worker: The worker's name, for ``application_name``.
        """
        renewal.after_fork()
        self._worker = worker
        if self._is_started:
            return  # also in a child of a process that works itself
        self._is_started = True
        event.listen(Pool, "checkout", self._lend)
        for maker in self._makers:
            event.listen(maker, "after_begin", self._use)
        if self._naming is not None:
            self._names = Naming(
                lambda: self._worker, _job_name, renames=self._naming == "job"
            )
            self._names.begin()

    def connect(self) -> None:
        """Open the first connection of each engine, which then rests in its pool.

        Raises:
            StartError: A server does not let us in.
        """
        for engine in self._askable():
            try:
                engine.pool.connect().close()
            except Exception as error:
                raise StartError(_no_entry(engine, error)) from error

    def _askable(self) -> list[Engine]:
        """Return the engines on our pool that need no loop to connect."""
        return [
            one
            for one in self.engines()
            if isinstance(one.pool, Pool) and not one.dialect.is_async
        ]

    def stop(self) -> None:
        """End work: close what rests in the pools of this process, in order."""
        if self._is_started:
            self._is_started = False
            event.remove(Pool, "checkout", self._lend)
            for maker in self._makers:
                event.remove(maker, "after_begin", self._use)
        if self._names is not None:
            self._names.end()
            self._names = None
        for pool in renewal.pools():
            try:
                pool.dispose()
            except Exception:  # noqa: BLE001 - of a driver or a listener; others follow
                _log.exception("A pool could not be closed")
        publish()

    @staticmethod
    def forget() -> None:
        """Leave the job inside which this process was forked to the parent."""
        _current.set(None)
        scopes.restore(0)

    # --- one job ----------------------------------------------------------------------

    @contextlib.contextmanager
    def job(self, name: str, scope: str | None = None) -> Iterator[Job]:
        """Keep one job apart from the others.

        Args:
            name: The job's name.
            scope: The `poolproof.scope` of what it does; None is its name.

        Yields:
            The job.
        """
        job = self.begin(name, scope=scope)
        try:
            yield job
        finally:
            self.end(job)

    def begin(self, name: str, *, scope: str | None = None, alone: bool = False) -> Job:
        """Begin a job in this thread or greenlet, with sessions of its own.

        A job inside another job uses the sessions of that one.

        Args:
            name: The job's name.
            scope: The `poolproof.scope` of what it does: the kind of the job, where its
                name is its own alone. None is its name.
            alone: Whether jobs are never inside others. One that is under way was cut
                off before its caller had it; it is ended now.

        Returns:
            The job, for `end`.
        """
        while alone and (cut_off := _current.get()) is not None:
            self.end(cut_off)
        job = Job(name, _current.get(), scope or name)
        if job.outer is None:
            self._remove_sessions()
        _current.set(job)
        return job

    def end(self, job: Job) -> None:
        """End a job: remove its sessions, and take back what it has left out.

        Args:
            job: What `begin` has returned, in the same thread or greenlet.
        """
        _current.set(job.outer)
        scopes.restore(job.scope)
        if job.outer is not None:
            job.outer.lent |= job.lent
            job.outer.used |= job.used
            return
        try:
            self._clean(job)
        except BaseException:  # a time limit, which comes once
            self._clean(job)
            raise

    def _clean(self, job: Job) -> None:
        self._remove_sessions()
        for session in list(job.used):
            if session.in_transaction():
                _log.warning(
                    "%s %s left a session open; it was closed: close it in the %s "
                    "(with Session() as session)",
                    *(self._kind, job.name, self._kind),
                )
                _close(session)
        for fairy in list(job.lent):
            entry = record_of(fairy)
            if entry is not None and fairy.dbapi_connection is not None:
                self._reclaim(job, fairy, entry)

    # Methods, so that each of two `Jobs` in a process takes out its own listeners.
    def _lend(self, _connection: Any, _record: Any, fairy: Any) -> None:
        if (job := _current.get()) is not None:
            job.lent.add(fairy)

    def _use(self, session: Session, *_arguments: object) -> None:
        if (job := _current.get()) is not None:
            job.used.add(session)

    def _remove_sessions(self) -> None:
        for session in self._scoped:
            sessions.remove(session)
        for database in self._databases:
            if _has_scope(database.session):
                sessions.remove(database.session)

    def _reclaim(self, job: Job, fairy: ConnectionFairy, entry: Entry) -> None:
        _log.warning(
            "%s %s left a connection of pool %r checked out (backend pid %s, for %.2f "
            "s); it was taken back and discarded: close it in the %s "
            "(with engine.connect() as connection)",
            *(self._kind, job.name, entry.owner.name()),
            *(
                deadlines.backend_pid(entry) or "unknown",
                time.monotonic() - entry.began,
            ),
            self._kind,
            extra=fields(
                pool=entry.owner.name(),
                backend_pid=deadlines.backend_pid(entry),
                reason="left_out",
            ),
        )
        # Somebody may still have it, so nobody else may get it.
        entry.reason = "left_out"
        if entry.socket is not None:
            entry.socket.sever()
        try:
            fairy.invalidate()
        except Exception:  # noqa: BLE001 - of a listener
            _log.exception("A listener failed when a connection was taken back")
            entry.owner.give_up(entry)
        _Reclaimed.put_over(fairy, f"{self._kind} {job.name}")


class _Reclaimed(renewal.ForkedFairy):
    """A pooled connection that was taken back from a job that had ended.

    As with one that came over a fork, ending its use is silent; to go on is refused.
    """

    __slots__ = ()

    @classmethod
    def put_over(cls, fairy: ConnectionFairy, job: str) -> None:
        """Turn a fairy that was invalidated into one of these."""
        fairy.__class__ = cls
        fairy.__dict__["_left_by"] = job

    def error(self) -> Any:
        """Make the error that says what happened."""
        return exc.ResourceClosedError(
            f"this connection was left checked out by {self.__dict__['_left_by']}, and "
            "was taken back at its end; check out a new one in each job"
        )


def _job_name() -> str:
    job = _current.get()
    return "" if job is None else job.name


def _close(session: Session) -> None:
    try:
        session.close()
    except Exception as error:  # noqa: BLE001 - of the driver, or a listener
        _log.warning("The session could not be closed in order: %r", error)


def _has_scope(session: Any) -> bool:
    """Tell whether a session's scope is there: an application's context, say."""
    registry = session.registry
    scope = getattr(registry, "scopefunc", None)
    if scope is None:
        return True
    try:
        scope()
    except RuntimeError:  # Flask's: no context; its session went with it
        return False
    return True


def _bound(maker: Any) -> list[Engine]:
    given = getattr(maker, "kw", {})
    binds = [given.get("bind"), *(given.get("binds") or {}).values()]
    return [bind for bind in binds if isinstance(bind, Engine)]


def _listed(given: Any) -> list[Any]:
    given = [] if given is None else given
    return list(given) if isinstance(given, (list, tuple, set, frozenset)) else [given]


def _no_entry(engine: Engine, error: BaseException) -> str:
    return f"no connection to {shown(engine)}: {error}"
