"""What a child does with the pools and connections that came over a fork.

Safety does not depend on this module: the sockets were severed inside `fork()`, before
any Python ran (src/process.rs). What is left to do is to make the leftovers quiet. Every
pool gets an empty ledger; every inherited driver connection is made immortal, because
destructors take locks that a thread of the parent may have held, and some warn; every
inherited fairy becomes a `ForkedFairy`, which does nothing in silence for what ends a
connection's use (rollback, close, invalidate) and raises `ConnectionForked` for what
would go on with it.

Renewal runs from `os.register_at_fork`. Forks made by C code do not run such hooks, so
each verb compares the generation first and renews then.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from poolproof import _native, sockets
from poolproof._sqlalchemy import ConnectionFairy
from poolproof.errors import ConnectionForked

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.pool import Pool

__all__ = ["ForkedFairy", "after_fork", "forked_error"]

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
# Driver connections that came over the fork. They are immortal, so an id says enough.
_inherited: set[int] = set()
_renewed_generation = _native.generation()
_renewed_pid = os.getpid()


def after_fork() -> None:
    """Renew every pool in a child process. Idempotent; does nothing in a parent.

    Called by itself at every fork that Python sees, and at the first use of a pool after
    any other fork. Call it in an init hook of your own where you want it early and
    explicit (Celery's `worker_process_init`, uWSGI's `postfork`). After a fork that
    bypassed the C library (a raw `clone` system call, `_Fork`) the call itself severs the
    inherited sockets.
    """
    global _renewed_generation, _renewed_pid  # noqa: PLW0603 - the state of this process
    pid = os.getpid()
    if pid != _renewed_pid and _native.generation() == _renewed_generation:
        _native.forked()
    if _native.generation() == _renewed_generation:
        return
    # Set first: what follows may come back here.
    parent_pid, _renewed_pid = _renewed_pid, pid
    _renewed_generation = _native.generation()
    sockets.forget_all()
    for pool in list(_pools):
        pool._renew(parent_pid)  # noqa: SLF001 - the pool's half of this module


def is_current() -> bool:
    """Tell whether this process has been renewed since its last fork."""
    return _native.generation() == _renewed_generation


def forked_error(connection: object) -> ConnectionForked | None:
    """Say whether a connection came over a fork.

    Args:
        connection: A SQLAlchemy `Connection`, a pooled connection, or None.

    Returns:
        The error to raise in place of what the driver says, or None.
    """
    if not is_current():
        after_fork()
    fairy = getattr(connection, "_dbapi_connection", connection)
    return fairy.error() if isinstance(fairy, ForkedFairy) else None


def is_inherited(connection: object) -> bool:
    """Tell whether a driver connection came over the fork.

    Args:
        connection: A DBAPI connection.
    """
    return id(connection) in _inherited


def disown(connection: object) -> None:
    """Make an inherited driver connection immortal, and remember it.

    Args:
        connection: A DBAPI connection of the parent, or None.
    """
    if connection is not None and id(connection) not in _inherited:
        _native.forget(connection)
        _inherited.add(id(connection))


def enroll(pool: Pool) -> None:
    """Have `pool` renewed in children, for as long as it lives."""
    _pools.add(pool)


class ForkedFairy(ConnectionFairy):
    """A pooled connection of the parent, seen from a child.

    Never constructed: an inherited fairy's class is changed to this one.
    """

    __slots__ = ()

    @classmethod
    def take_over(cls, fairy: ConnectionFairy, parent_pid: int) -> None:
        """Turn an inherited fairy into one of these.

        Args:
            fairy: A fairy that was checked out, or detached, at the fork.
            parent_pid: The process that it belongs to.
        """
        disown(fairy.dbapi_connection)
        finalizer = getattr(fairy, "_finalizer", None)  # SQLAlchemy 2.1
        if finalizer is not None:
            finalizer.detach()
        fairy.__class__ = cls
        fairy._opened_by = parent_pid  # type: ignore[attr-defined]  # noqa: SLF001 - rides in the fairy's __dict__

    def error(self) -> ConnectionForked:
        """Make the error that says what happened."""
        return ConnectionForked(self.__dict__["_opened_by"], os.getpid())

    def _refuse(self) -> NoReturn:
        raise self.error()

    # What goes on with the connection.

    def cursor(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return a cursor that refuses everything but a rollback."""
        return _ForkedCursor(self)

    def commit(self) -> NoReturn:
        """Refuse."""
        self._refuse()

    def __getattr__(self, key: str) -> Any:
        """Refuse whatever else a driver connection can do."""
        if key.startswith("__"):
            raise AttributeError(key)
        self._refuse()

    # What ends its use: silent, and nothing is sent.

    def rollback(self, *args: object) -> None:
        """Do nothing."""

    def tpc_rollback(self, *args: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Do nothing."""

    def invalidate(
        self,
        e: BaseException | None = None,
        soft: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Do nothing."""

    def _close(self) -> None:
        pass

    def _close_special(self, transaction_reset: bool = False) -> None:  # noqa: FBT001, FBT002
        pass

    def _checkin(self, transaction_was_reset: bool = False) -> None:  # noqa: FBT001, FBT002
        pass


class _ForkedCursor:
    """Takes rollbacks in silence, so that a session can be closed, and refuses the rest."""

    description = None
    rowcount = -1
    lastrowid = None
    arraysize = 1

    def __init__(self, fairy: ForkedFairy) -> None:
        self._fairy = fairy

    def execute(self, statement: object, *_: object, **__: object) -> None:
        text = str(statement).lstrip().upper()
        if not text.startswith("ROLLBACK"):
            raise self._fairy.error()

    def close(self) -> None:
        pass

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        raise self._fairy.error()


def protect(dialect: Any) -> None:
    """Have a dialect's transaction verbs look for a fork first. Idempotent.

    These three are all that SQLAlchemy calls on an inherited connection before anything
    of the pool runs, and so all that a fork without Python hooks can surprise.

    Args:
        dialect: The dialect instance of one engine.
    """
    if getattr(dialect.do_begin, "poolproof", False):
        return

    def looking(verb: Callable[[Any], None]) -> Callable[[Any], None]:
        def look_then(connection: Any) -> None:
            if not is_current():
                after_fork()
            verb(connection)

        return look_then

    begin = dialect.do_begin

    def do_begin(connection: Any) -> None:
        if not is_current():
            after_fork()
        if isinstance(connection, ForkedFairy):
            raise connection.error()
        begin(connection)

    do_begin.poolproof = True  # type: ignore[attr-defined]
    dialect.do_begin = do_begin
    dialect.do_rollback = looking(dialect.do_rollback)
    dialect.do_commit = looking(dialect.do_commit)


def renew_listeners(pool: Pool) -> None:
    """Free the pool's connect event from a first run that was under way at the fork.

    SQLAlchemy runs the first connect of a pool under a mutex, and initialises the dialect
    in it, once. A thread of the parent that was doing so is not here: the mutex would
    stay locked, and the initialisation count as done.

    Args:
        pool: A pool that came over the fork.
    """
    for event in ("first_connect", "connect"):
        listeners: Any = getattr(pool.dispatch, event)
        if not hasattr(listeners, "_exec_w_sync_once"):
            continue  # nobody listens on this pool
        mutex = getattr(listeners, "_exec_once_mutex", None)
        if mutex is not None and mutex.locked() and not listeners._exec_w_sync_once:  # noqa: SLF001
            for listener in listeners:
                _rearm(listener)
        listeners._exec_once_mutex = None  # noqa: SLF001 - made anew at next use


def _rearm(listener: Any) -> None:
    """Let a `once` listener run again whose only run was cut off by the fork."""
    code = getattr(listener, "__code__", None)
    closure = getattr(listener, "__closure__", None)
    if code is None or closure is None:
        return
    cells = dict(zip(code.co_freevars, closure, strict=True))
    if "once" in cells and "fn" in cells and not cells["once"].cell_contents:
        cells["once"].cell_contents.append(cells["fn"].cell_contents)


os.register_at_fork(after_in_child=after_fork)
