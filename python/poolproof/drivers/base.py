"""What the pool knows of each driver: its transaction status, and how to ask it.

A driver is known by what its connections can do, so that one that is wrapped (for
tracing, say) is still known. Every function here is given the driver's connection;
only `ask` sends anything.

Long, because it is one idea: what differs from driver to driver.
"""

from __future__ import annotations

import functools
import inspect
import secrets
import signal
import sys
import threading
from dataclasses import dataclass, replace
from operator import attrgetter, methodcaller
from traceback import walk_tb
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "Driver",
    "abandon",
    "ask",
    "in_own_words",
    "is_mock",
    "is_of_another_hub",
    "is_own",
    "is_piped",
    "is_suspended",
    "of",
    "prepare_again",
    "prepare_nothing",
    "translated",
    "unsent",
]

# libpq's PQTRANS_IDLE, PQTRANS_ACTIVE and PQTRANS_INERROR, and the bytes of the
# protocol's ReadyForQuery.
_LIBPQ_IDLE, _LIBPQ_ACTIVE, _LIBPQ_FAILED = 0, 1, 3
_READY_IDLE, _READY_FAILED = b"I", b"E"


_NEVER = object()  # no status is this one


@dataclass(frozen=True, slots=True)
class Driver:
    """One kind of driver.

    Attributes:
        name: As SQLAlchemy names it, or what is known about it.
        status: Says the transaction status of a connection, without a round trip.
        idle: The status when no transaction is open and nothing is under way.
        tells: Whether the status means anything.
        must_ask: Whether only a question tells if a connection is at rest, because the
            driver reads ahead into a buffer of its own, or because it is not known.
        keeps_alive: Whether it turns TCP keep-alives on unless told otherwise.
        failed: The status when a statement has failed, so that the transaction can only
            be rolled back.
        active: The status in the middle of a command.
        locks: Whether a call waits for a lock of the connection's, which something that
            is suspended may hold.
    """

    name: str
    status: Callable[[Any], object]
    idle: object
    must_ask: bool
    tells: bool = True
    keeps_alive: bool = True
    failed: object = None
    active: object = _NEVER
    locks: bool = False


def _does_not_say(_connection: Any) -> None:
    return None


def _pg8000_status(connection: Any) -> object:
    # It forgets the status of a session that has just begun, which is idle.
    status = connection._transaction_status
    return _READY_IDLE if status is None else status


# Where errors are from that drivers pass on beside their own. greenlet's is that a
# socket under gevent was opened in another thread, and cannot be waited for here.
_PASSED_ON = frozenset({"builtins", "greenlet", "select", "socket", "ssl", "struct"})

# Functions that are not of Python: they run at each checkout and check-in.
_PSYCOPG2 = Driver(
    "psycopg2",
    methodcaller("get_transaction_status"),
    _LIBPQ_IDLE,
    must_ask=False,
    failed=_LIBPQ_FAILED,
    active=_LIBPQ_ACTIVE,
)
_PSYCOPG = Driver(
    "psycopg",
    attrgetter("pgconn.transaction_status"),
    _LIBPQ_IDLE,
    must_ask=False,
    failed=_LIBPQ_FAILED,
    active=_LIBPQ_ACTIVE,
)
_PSYCOPG_LOCKS = replace(_PSYCOPG, locks=True)
_PG8000 = Driver(
    "pg8000", _pg8000_status, _READY_IDLE, must_ask=True, failed=_READY_FAILED
)
_UNKNOWN = Driver(
    "unknown", _does_not_say, None, must_ask=True, tells=False, keeps_alive=False
)
_OTHER_DATABASE = Driver(
    "other", _does_not_say, None, must_ask=False, tells=False, keeps_alive=False
)
_MOCK = replace(_OTHER_DATABASE, name="mock")

# psycopg2's own class, once it was met: to find out what it is costs what it costs to
# watch its socket.
_of_psycopg2: dict[type, Driver] = {}


def is_mock(connection: Any) -> bool:
    """Tell whether something stands for a connection in a test.

    Such a thing has every method of every driver, and what it answers means nothing.

    Args:
        connection: A DBAPI connection, or None.
    """
    return hasattr(connection, "poolproof_asks_for_what_no_driver_has")


def of(connection: Any, dialect: Any) -> Driver:
    """Find out which driver a connection is of.

    Args:
        connection: A DBAPI connection, or what SQLAlchemy adapts one with.
        dialect: The dialect of its engine.

    Returns:
        The driver. One of another database than PostgreSQL is never asked anything.
    """
    return _of_psycopg2.get(type(connection)) or _find_out(connection, dialect)


def _find_out(connection: Any, dialect: Any) -> Driver:
    if is_mock(connection):
        return _MOCK
    if callable(getattr(connection, "get_transaction_status", None)):
        # The class's own method, called as a function, costs half of a methodcaller.
        kind = type(connection)
        status = getattr(kind, "get_transaction_status", None)
        found = replace(_PSYCOPG2, status=status) if callable(status) else _PSYCOPG2
        if kind.__module__ == "psycopg2.extensions":
            _of_psycopg2[kind] = found
        return found
    if hasattr(getattr(connection, "pgconn", None), "transaction_status"):
        lock = getattr(connection, "lock", None)
        return _PSYCOPG_LOCKS if hasattr(lock, "locked") else _PSYCOPG
    if hasattr(connection, "_usock") and hasattr(connection, "_transaction_status"):
        return _PG8000
    if getattr(dialect, "name", None) == "postgresql":
        return _UNKNOWN
    return _OTHER_DATABASE


def is_own(error: Exception, pool: Any) -> bool:
    """Tell an error of a driver from an interruption of the caller.

    A handler of a signal may raise any class, in the middle of a driver's call: a soft
    time limit, say. A driver raises its own errors, and some let those of the system or
    of the language through, but none that was raised in another's code.

    Args:
        error: What a call of a driver ended with.
        pool: The connection's pool.

    Returns:
        Whether it is the driver's.
    """
    own = getattr(getattr(pool._dialect, "dbapi", None), "Error", ())
    if isinstance(error, own):
        return True
    if not (type(error).__module__ in _PASSED_ON or isinstance(error, OSError)):
        return False
    return not _is_interruption(error)


def in_own_words(verb: Callable[..., Any], dialect: Any) -> Callable[..., Any]:
    """Have a driver say in its own words that the network has failed.

    Where pg8000 begins to read an answer it lets the system's error through, which
    SQLAlchemy does not take for one of the driver's: it would reach the application
    bare. Elsewhere pg8000 raises its `InterfaceError`.

    Args:
        verb: A method of a dialect.
        dialect: The dialect.

    Returns:
        The verb; as it is, for any other driver.
    """
    if getattr(dialect, "driver", None) != "pg8000":
        return verb

    @functools.wraps(verb)
    def in_words(*args: Any, **kwargs: Any) -> Any:
        try:
            return verb(*args, **kwargs)
        except OSError as error:
            if not _is_networks(error):
                raise
            # No frame that it passes may hold it, or the two would keep each other.
            raise _in_words(error, dialect) from error

    return in_words


def translated(error: OSError, dialect: Any) -> BaseException | None:
    """Say in a driver's own words that the network has failed; see `in_own_words`.

    Args:
        error: An error of the system.
        dialect: The dialect in whose driver it was raised.

    Returns:
        An error of the driver's, whose cause is the other; None where it is not from
        where the driver reads, or is the driver's already.
    """
    if getattr(dialect, "driver", None) != "pg8000" or not _is_networks(error):
        return None
    told = _in_words(error, dialect)
    told.__cause__ = error
    return told


def _is_networks(error: OSError) -> bool:
    """Tell whether a driver let an error of the network through.

    A handler of a signal may have raised it: TimeoutError is of the system.
    """
    return not _is_interruption(error) and _is_of_reading(error)


def _in_words(error: BaseException, dialect: Any) -> BaseException:
    """Make the driver's error, which knows what the other does: what was being done."""
    told: BaseException = dialect.dbapi.InterfaceError("network error")
    vars(told).update(vars(error))
    return told


def _is_of_reading(error: BaseException) -> bool:
    """Tell whether an error is from where pg8000 reads."""
    return any(
        frame.f_code.co_name == "_read"
        and frame.f_globals.get("__name__") == "pg8000.core"
        for frame in _passed(error)
    )


def _is_interruption(error: BaseException) -> bool:
    """Tell whether a handler of a signal has raised an error."""
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    codes = {getattr(handler, "__code__", None) for handler in handlers}
    return any(frame.f_code in codes or _is_handler(frame) for frame in _passed(error))


def _passed(error: BaseException) -> Iterator[FrameType]:
    """Go through the frames that an error has come through, but not who caught it.

    That one knows the error: to look at its variables would make the two keep each
    other, and a driver's socket, until the collector comes.
    """
    traceback = error.__traceback__
    return (frame for frame, _ in walk_tb(traceback and traceback.tb_next))


def _is_handler(frame: FrameType) -> bool:
    """Tell a handler that another one calls: only they are called with a frame."""
    code = frame.f_code
    count = code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS)
    for name in code.co_varnames[: count + code.co_kwonlyargcount]:
        value = frame.f_locals.get(name)
        among = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, FrameType) for one in among):
            return True
    return False


def is_suspended(driver: Driver, connection: Any) -> bool:
    """Tell whether a connection comes back in the middle of a command.

    So it is with a stream, a COPY or `notifies()` of psycopg's that was not read to its
    end: who was suspended there holds the connection's lock, and the next call would
    wait for it. A pipeline is in the middle of commands by its nature.

    Args:
        driver: The connection's driver.
        connection: A DBAPI connection.
    """
    if driver.status(connection) == driver.active:
        return not is_piped(connection)
    return driver.locks and bool(connection.lock.locked())


def is_piped(connection: Any) -> bool:
    """Tell whether a pipeline of psycopg's was entered and not left.

    Args:
        connection: A DBAPI connection.
    """
    return getattr(connection, "_pipeline", None) is not None


def abandon(connection: Any) -> None:
    """End a connection in whose middle something is suspended, without waiting for it.

    Args:
        connection: A DBAPI connection whose socket is shut, so that nothing is sent.
    """
    if hasattr(connection, "lock"):
        connection.lock = threading.Lock()  # who holds the other one frees that
    connection.close()


def listens(connection: Any) -> bool:
    """Tell whether a session is known to listen, without asking it.

    Args:
        connection: A DBAPI connection.

    Returns:
        Whether a notification has come that nobody has read, or somebody is to be
        called at one. A LISTEN that nothing came of is not seen.
    """
    return any(
        bool(getattr(connection, name, None))
        for name in (
            "notifies",  # psycopg2; psycopg has a method of this name
            *("_notify_handlers", "_notifies_backlog"),  # psycopg
            "notifications",  # pg8000
        )
        if not callable(getattr(connection, name, None))
    )


def unsent(connection: Any) -> Any:
    """Return the file through which a driver writes, if it leaves that open.

    pg8000 closes its socket and drops the file. What could not be sent is then tried
    again when the collector comes, and Python 3.13 reports that on standard error.

    Args:
        connection: A DBAPI connection.

    Returns:
        The file, to be closed after the connection; None for other drivers.
    """
    return connection._sock if hasattr(connection, "_usock") else None


def is_of_another_hub(connection: Any) -> bool:
    """Tell whether gevent can wait for a connection's socket in another thread alone.

    gevent ties a socket of Python's, as pg8000 has one, to the thread that has opened
    it. In another one a call goes well for as long as nothing has to be waited for.

    Args:
        connection: A DBAPI connection.
    """
    hub = getattr(getattr(connection, "_usock", None), "hub", None)
    gevent = sys.modules.get("gevent")
    return hub is not None and gevent is not None and gevent.get_hub() is not hub


def ask(connection: Any) -> bool:
    """Ask the server something that nobody has asked before, and compare the answer.

    The question is in the name of the answer's only column: that needs no conversion,
    which an application may have changed, and no kind of row. Nor does a name count
    where statements are told apart: for `pg_stat_statements` all questions are one.

    Nothing is left behind: no prepared statement, no setting of the session.

    Args:
        connection: A DBAPI connection that is not in a transaction.

    Returns:
        Whether the answer is the one to this question.

    Raises:
        Exception: Whatever the driver raises. The connection is of no use then.
    """
    name = f"poolproof_{secrets.randbits(64):016x}"
    before = getattr(connection, "autocommit", None)
    if before is False and _tells_the_session(connection):
        before = None  # a transaction, then: that ends with itself
    commits_itself = before is True
    if before is False:
        connection.autocommit = commits_itself = True
    threshold = prepare_nothing(connection)
    # An error leaves the connection as it is, for it will be discarded: to put it in
    # order would raise an error in place of the one, or of an interruption.
    cursor = connection.cursor()
    cursor.execute(f"select null as {name}")
    answered = cursor.description
    cursor.close()
    prepare_again(connection, threshold)
    if not commits_itself:
        connection.rollback()
    if before is False:
        connection.autocommit = False
    return bool(answered) and answered[0][0] == name


def prepare_nothing(connection: Any) -> Any:
    """Have psycopg neither prepare nor count what is asked next.

    Args:
        connection: A DBAPI connection.

    Returns:
        What `prepare_again` is to put back.
    """
    threshold = getattr(connection, "prepare_threshold", None)
    if threshold is not None:
        connection.prepare_threshold = None
    return threshold


def prepare_again(connection: Any, threshold: Any) -> None:
    """Undo `prepare_nothing`.

    Args:
        connection: The same connection.
        threshold: What that returned.
    """
    if threshold is not None:
        connection.prepare_threshold = threshold


def _tells_the_session(connection: Any) -> bool:
    """Tell whether a driver says SET when its autocommit is switched, as psycopg2 does.

    It does where it has been given how transactions are to begin.
    """
    return callable(getattr(connection, "set_session", None)) and any(
        getattr(connection, name, None) is not None
        for name in ("isolation_level", "readonly", "deferrable")
    )
