"""The control plane, seen from Python: one server an engine, and waiting for answers.

The control plane has a thread and a few connections of its own (src/control/), apart
from every pool. Here is worked out how it reaches the engine's server.
"""

from __future__ import annotations

import time
import weakref
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Engine, exc

from poolproof import _native
from poolproof._cooperative import locks_are_replaced
from poolproof.drivers.server_params import from_dsn, from_pool
from poolproof.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Dialect, Pool

__all__ = [
    "Pending",
    "check_bind",
    "engine_of",
    "finish",
    "readying",
    "refused",
    "server_at",
    "server_of",
]

SIZE = 2
_POLL_S = 0.01
# Between two attempts to start the control plane, where the system has no threads.
_NO_THREAD_S = 0.05
_MOST_S = 1_000_000.0

# By the dialect, which an engine, its variants and its pools have in common.
_servers: weakref.WeakKeyDictionary[Dialect, dict[str | None, _native.Server]] = (
    weakref.WeakKeyDictionary()
)


class Pending(Protocol):
    """Something of the control plane that can be waited for."""

    def wait(self, seconds: float) -> bool:
        """Wait; say whether there is nothing to wait for any more."""


def engine_of(bind: Any) -> Engine:
    """Return the engine that a caller means.

    Args:
        bind: An `Engine`, an `AsyncEngine`, or what has one as its attribute `engine`
            (a `Connection`, the object of Flask-SQLAlchemy).

    Raises:
        ArgumentError: There is no engine in it.
    """
    for candidate in (bind, getattr(bind, "engine", None)):
        engine: Any = getattr(candidate, "sync_engine", candidate)
        if isinstance(engine, Engine):
            return engine
    raise exc.ArgumentError(
        f"a lease needs an Engine, or what has one as .engine; this is {type(bind)}"
    )


def check_bind(bind: Any) -> None:
    """Check that a caller means some engine, without asking for it.

    It need not be there yet: Flask-SQLAlchemy has none before there is an application.

    Args:
        bind: What `engine_of` takes.

    Raises:
        ArgumentError: There is no engine in it.
    """
    may_have = getattr_static(bind, "engine", None) is not None
    if not (may_have or hasattr(type(bind), "__getattr__")):
        engine_of(bind)


def server_of(bind: Any, control_dsn: str | None = None) -> _native.Server:
    """Return the server of an engine, as the control plane reaches it.

    Args:
        bind: What `engine_of` takes.
        control_dsn: How to reach it instead of by the engine's parameters; None takes
            the pool's ``control_dsn``, if it has one.

    Returns:
        One server an engine and process; it has connected to nothing yet.

    Raises:
        ArgumentError: It cannot be worked out how to reach the server.
        ControlError: Certificates or keys cannot be used.
    """
    engine = engine_of(bind)
    if control_dsn is None:
        settings = getattr(engine.pool, "settings", None)
        control_dsn = getattr(settings, "control_dsn", None)
    return server_at(engine.pool, engine.dialect, control_dsn)


def server_at(pool: Pool, dialect: Dialect, control_dsn: str | None) -> _native.Server:
    """Return the server of a pool, as the control plane reaches it.

    Args:
        pool: The pool.
        dialect: Its engine's dialect.
        control_dsn: How to reach it instead of by the engine's parameters.

    Returns:
        One server an engine and process; it has connected to nothing yet.

    Raises:
        ArgumentError: It cannot be worked out how to reach the server.
        ControlError: Certificates or keys cannot be used.
    """
    known = _servers.setdefault(dialect, {})
    server = known.get(control_dsn)
    if server is not None and server.is_ours:
        return server
    given = from_pool(pool, dialect) if control_dsn is None else from_dsn(control_dsn)
    try:
        server = _native.Server(given, size=SIZE)
    except _native.Refused as error:
        raise refused(error) from None
    known[control_dsn] = server
    return server


def readying(seconds: float | None) -> Iterator[tuple[float, ControlError]]:
    """Start the control plane, which needs a thread, unless it runs.

    Args:
        seconds: How long it may take at most; None is without bound.

    Yields:
        How long to rest while it cannot be started, and why it cannot.

    Raises:
        ControlError: The system had no thread to give in that time.
    """
    begun = time.monotonic()
    while True:
        try:
            _native.start_control()
        except _native.Refused as error:
            why = refused(error)
        else:
            return
        if seconds is not None and time.monotonic() - begun >= seconds:
            raise why
        yield _NO_THREAD_S, why


def finish(wait: Callable[[float], bool], seconds: float | None = None) -> bool:
    """Wait for the control plane, in the caller's own kind of thread.

    Args:
        wait: The waiting method of something pending.
        seconds: How long at most; None is without bound.

    Returns:
        Whether it came to an end.
    """
    most = _MOST_S if seconds is None else seconds
    if not locks_are_replaced():
        return wait(most)
    # gevent, eventlet: waiting in Rust would stop every greenlet of the thread.
    until = time.monotonic() + most
    while not wait(0.0):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_S)
    return True


def refused(error: _native.Refused) -> ControlError:
    """Make the error of a refusal.

    Args:
        error: What the extension has raised.
    """
    kind, text, sqlstate = error.args
    if kind == "start":  # no thread is to be had: as good as no server
        kind = "server"
    return ControlError(text, kind=kind, sqlstate=sqlstate)
