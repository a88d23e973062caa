"""The control plane, seen from Python: one server an engine, and waiting for answers.

The control plane has a thread and a few connections of its own (src/control/), apart
from every pool. Here is worked out how it reaches the engine's server.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from dataclasses import dataclass
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sqlalchemy import Engine, exc

from poolproof import _native
from poolproof._cooperative import locks_are_replaced
from poolproof.control.questions import Answers
from poolproof.drivers.server_params import (
    from_creator,
    from_dsn,
    from_function,
    has_functions,
    known_creator,
)
from poolproof.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Dialect, Pool

    from poolproof.drivers.server_params import ControlDsn

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


@dataclass(frozen=True)
class _Reached:
    """A server, and who is asked how to reach it; None where that is known."""

    server: _native.Server
    answers: Answers | None


# What says how to reach it (the text, the function's id, or nothing), whether it is
# asked, and in which process.
_Key: TypeAlias = tuple[str | int | None, bool, int]

# By the dialect, which an engine, its variants and its pools have in common.
_servers: weakref.WeakKeyDictionary[Dialect, dict[_Key, _Reached]] = (
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


def server_of(bind: Any, control_dsn: ControlDsn | None = None) -> _native.Server:
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


def server_at(
    pool: Pool, dialect: Dialect, control_dsn: ControlDsn | None
) -> _native.Server:
    """Return the server of a pool, as the control plane reaches it.

    What functions make is asked for anew at each connecting. A listener of `do_connect`
    that was added since is seen: there is another server then.

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
    creator = known_creator(pool, dialect) if control_dsn is None else None
    asks = callable(control_dsn) or (
        creator is not None and has_functions(creator, dialect)
    )
    said = id(control_dsn) if callable(control_dsn) else control_dsn
    key = (said, asks, _native.generation())
    known = _servers.setdefault(dialect, {})
    found = known.get(key)
    if found is None:
        # Of two threads at once, the first has made it: the answers of the other's
        # would be heard by nobody.
        found = known.setdefault(key, _reached(creator, dialect, control_dsn, asks))
        if callable(control_dsn):
            with contextlib.suppress(TypeError):  # of a class without weak references
                weakref.finalize(control_dsn, known.pop, key, None).atexit = False
    if found.answers is not None:
        found.answers.listen()
    return found.server


def _reached(
    creator: Any, dialect: Dialect, control_dsn: ControlDsn | None, asks: bool
) -> _Reached:
    """Prepare to reach a server, by asking or by what is known."""
    answers = None
    if callable(control_dsn):
        answers = Answers(from_function, control_dsn, what="control_dsn")
        source: Any = answers.questions
    elif asks:
        answers = Answers(from_creator, creator, dialect, what="the engine")
        source = answers.questions
    elif control_dsn is not None:
        source = from_dsn(control_dsn)
    else:
        source = from_creator(creator, dialect)
    try:
        return _Reached(_native.Server(source, size=SIZE), answers)
    except _native.Refused as error:
        raise refused(error) from None


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
