"""What a child does with the pools and connections that came over a fork.

Safety does not depend on this module: the sockets were severed inside `fork()`, before
any Python ran (src/process/at_fork.rs). What is left is to make the leftovers quiet.
Every pool gets an empty ledger; every inherited driver connection is made immortal,
because destructors take locks that a thread of the parent may have held, and some warn;
every inherited fairy becomes a `ForkedFairy`, which does nothing in silence for what
ends a connection's use (rollback, close, invalidate) and raises `ConnectionForked` for
what would go on with it.

Renewal runs from `os.register_at_fork`. Forks made by C code do not run such hooks, so
each verb compares the generation first and renews then.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from poolproof import _native
from poolproof._sqlalchemy import ConnectionFairy
from poolproof.errors import ConnectionForked
from poolproof.fork import in_flight, loops, sockets

if TYPE_CHECKING:
    import logging

__all__ = [
    "ForkedFairy",
    "Renewable",
    "after_fork",
    "forked_error",
    "renewed_generation",
]

_OPENED_BY = "_poolproof_opened_by"


class Renewable(Protocol):
    """A pool that begins anew in a child."""

    dispatch: Any

    def renew(self) -> None:
        """Start afresh: nothing lent, nothing idle, no caller waiting."""


_pools: weakref.WeakSet[Renewable] = weakref.WeakSet()
# Driver connections that came over the fork. They are immortal, so an id says enough.
_inherited: set[int] = set()
renewed_generation = _native.generation()
_renewed_pid = os.getpid()
_parent_pid = os.getppid()
# When this process has learned of its fork: in the fork, if Python sees it.
renewed_at = time.time()


def after_fork() -> None:
    """Renew every pool in a child process. Idempotent; does nothing in a parent.

    Called by itself at every fork that Python sees, and at the first use of a pool
    after any other fork. Call it in an init hook of your own where you want it early
    and explicit (Celery's `worker_process_init`, uWSGI's `postfork`). After a fork that
    bypassed the C library (a raw `clone` system call, `_Fork`) the call itself severs
    the inherited sockets.
    """
    global renewed_generation, renewed_at, _renewed_pid, _parent_pid  # noqa: PLW0603 - the state of this process
    pid = os.getpid()
    if pid != _renewed_pid and _native.generation() == renewed_generation:
        _native.forked()
    if _native.generation() == renewed_generation:
        return
    # Set first: what follows may come back here.
    _parent_pid, _renewed_pid = _renewed_pid, pid
    renewed_at = time.time()
    renewed_generation = _native.generation()
    sockets.forget_all()
    loops.part_all()
    in_flight.sever_all()
    for pool in list(_pools):
        pool.renew()


def renew(pool: Renewable) -> None:
    """Renew a pool whose gate is of a parent, also when its turn was missed.

    The renewal of all pools may have been interrupted, and a pool that was copied is
    not among them.

    Args:
        pool: A pool that has met a stale gate.
    """
    after_fork()
    pool.renew()


def is_current() -> bool:
    """Tell whether this process has been renewed since its last fork."""
    return _native.generation() == renewed_generation


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
    if isinstance(fairy, ForkedFairy):
        return fairy.error()
    if is_inherited(getattr(fairy, "dbapi_connection", None)):
        # Forked while it was being opened: no fairy of ours yet.
        return ConnectionForked(_parent_pid, os.getpid())
    return None


def is_inherited(connection: object) -> bool:
    """Tell whether a driver connection came over the fork.

    Args:
        connection: A DBAPI connection.
    """
    return id(connection) in _inherited


def leak(connection: object) -> None:
    """Make an inherited driver connection immortal, and remember it.

    Args:
        connection: A DBAPI connection of the parent, or None.
    """
    if connection is not None and id(connection) not in _inherited:
        _native.forget(connection)
        _inherited.add(id(connection))


def enroll(pool: Renewable) -> None:
    """Have `pool` renewed in children, for as long as it lives."""
    _pools.add(pool)


def pools() -> list[Any]:
    """Return the pools of this process, those of disposed engines included.

    Returns:
        Each `poolproof.Pool` that has not been collected.
    """
    return list(_pools)


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
        leak(fairy.dbapi_connection)
        finalizer = getattr(fairy, "_finalizer", None)  # SQLAlchemy 2.1
        if finalizer is not None:
            finalizer.detach()
        fairy.__class__ = cls
        vars(fairy)[_OPENED_BY] = parent_pid

    def error(self) -> ConnectionForked:
        """Make the error that says what happened."""
        return ConnectionForked(self.__dict__[_OPENED_BY], os.getpid())

    def _refuse(self) -> NoReturn:
        raise self.error()

    # What goes on with the connection.

    def cursor(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        self._refuse()

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
        soft: bool = False,
    ) -> None:
        """Do nothing."""

    def _close(self) -> None:
        pass

    def _close_special(self, transaction_reset: bool = False) -> None:
        pass

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        pass


def quieten(logger: Any) -> None:
    """Keep SQLAlchemy from logging that an inherited cursor could not be closed.

    A stream has a cursor on the server's side, which a word to the server closes.

    Args:
        logger: A pool's: one of Python's, or one that SQLAlchemy wraps for `echo_pool`.
    """
    getattr(logger, "logger", logger).addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    if record.msg != "Error closing cursor" or not record.exc_info:
        return True
    traceback = record.exc_info[2]
    closing = None if traceback is None else traceback.tb_frame.f_locals.get("self")
    return forked_error(closing) is None


def renew_listeners(pool: Renewable) -> None:
    """Free the pool's connect event from a first run that was under way at the fork.

    SQLAlchemy runs the first connect of a pool under a mutex, and initialises the
    dialect in it, once. A thread of the parent that was doing so is not here: the mutex
    would stay locked, and the initialisation count as done.

    Args:
        pool: A pool that came over the fork.
    """
    for event in ("first_connect", "connect"):
        listeners: Any = getattr(pool.dispatch, event)
        if not hasattr(listeners, "_exec_w_sync_once"):
            continue  # nobody listens on this pool
        mutex = getattr(listeners, "_exec_once_mutex", None)
        # SQLAlchemy's own for asyncio has one of asyncio's in it.
        lock = getattr(mutex, "mutex", mutex)
        if lock is not None and lock.locked() and not listeners._exec_w_sync_once:
            for listener in listeners:
                _rearm(listener)
        listeners._exec_once_mutex = None


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
