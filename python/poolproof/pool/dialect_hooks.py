"""SQLAlchemy's verbs on a connection, each with a look before it is carried out.

The verbs are all that SQLAlchemy calls on a connection that is out. Wrapped on the
dialect of one engine, they notice a fork that ran no Python hook, put a connection
under the `poolproof.deadline` of the block that uses it, and bound a rollback, which is
sent to the connection's own socket or not at all. An error that one ends with is marked
with what was being done.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine.default import DefaultDialect

from poolproof import _native
from poolproof.drivers import known
from poolproof.faults.error_info import mark
from poolproof.fork import renewal, sockets
from poolproof.pool import deadlines
from poolproof.pool.entry import Entry, refuse_foreign
from poolproof.pool.evidence import HALF, LONGEST
from poolproof.pool.loop_fairy import LENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from poolproof._sqlalchemy import ConnectionFairy
    from poolproof.faults.error_info import Phase

__all__ = ["install_hooks"]

_SQLALCHEMYS_ENDS = (DefaultDialect.do_commit, DefaultDialect.do_rollback)


def install_hooks(dialect: Any) -> None:
    """Wrap the verbs of a dialect. Idempotent.

    Args:
        dialect: The dialect instance of one engine.
    """
    if getattr(dialect.do_rollback, "is_protected", False):
        return
    driver = known.by_name(getattr(dialect, "driver", ""))
    for name, wrap, step in _VERBS:
        verb = getattr(dialect, name, None)  # SQLAlchemy's stand-in lacks some
        if verb is not None:
            wrapped = wrap(verb, step)
            if driver is not None:
                wrapped = driver.in_own_words(wrapped, dialect)
            setattr(dialect, name, wrapped)


def _cover(connection: Any) -> None:
    """Put a connection under the deadline of the block that uses it."""
    block = deadlines.current()
    if block is not None:
        fairy = getattr(connection, "_dbapi_connection", connection)
        entry = getattr(fairy, "_connection_record", None)
        if isinstance(entry, Entry):
            block.cover(entry)


def _begin(verb: Callable[[Any], None], step: Phase) -> Callable[[Any], None]:
    def protected(connection: Any) -> None:
        if _native.generation() != renewal.renewed_generation:
            renewal.after_fork()
        if isinstance(connection, renewal.ForkedFairy):
            # Most dialects send nothing here, so nothing else would refuse.
            raise connection.error()
        if deadlines.ever_used:
            _cover(connection)
        try:
            verb(connection)
        except BaseException as error:
            mark(error, step)
            raise

    return protected


def _commit(verb: Callable[[Any], None], step: Phase) -> Callable[[Any], None]:
    own = getattr(verb, "__func__", None) in _SQLALCHEMYS_ENDS

    def protected(connection: Any) -> None:
        if _native.generation() != renewal.renewed_generation:
            renewal.after_fork()
        if deadlines.ever_used:
            _cover(connection)
        # SQLAlchemy's own verbs only call the driver's method. The fairy would pass
        # that on from its __getattr__; what others write gets the fairy.
        entry = None
        if own and type(connection) in LENT:
            entry = connection._connection_record
            connection = connection.dbapi_connection
        try:
            verb(connection)
            if isinstance(entry, Entry):
                driver = entry.driver
                if driver.tells and driver.status(connection) != driver.idle:
                    _see_answer(entry, connection)
        except BaseException as error:
            mark(error, step)
            raise

    return protected


def _see_answer(entry: Entry, connection: Any) -> None:
    """Refuse a commit after which the session is in a transaction all the same.

    What came was the answer to something else, and COMMIT's is still on its way. Where
    a connection commits each statement, a BEGIN of the application's own stands.

    Raises:
        OperationalError: The driver's; the outcome is not known.
    """
    if getattr(connection, "autocommit", False) or entry.driver.is_piped(connection):
        return
    dbapi: Any = entry.owner._dialect.dbapi
    raise dbapi.OperationalError(
        "lost synchronization with server: COMMIT was answered, and the session is "
        "still in a transaction; that was the answer to something else"
    )


def _rollback(verb: Callable[[Any], None], step: Phase) -> Callable[[Any], None]:
    generation = _native.generation
    own = getattr(verb, "__func__", None) in _SQLALCHEMYS_ENDS

    def protected(connection: Any) -> None:
        if generation() != renewal.renewed_generation:
            renewal.after_fork()
        if type(connection) not in LENT:
            verb(connection)
            return
        entry = connection._connection_record
        raw: Any = connection.dbapi_connection
        if not isinstance(entry, Entry):
            _roll_back_detached(connection, verb, raw if own else connection)
            return
        driver = entry.driver
        status = driver.status(raw)
        if (
            status != driver.idle
            or not driver.tells
            or (driver.locks and raw.lock.locked())
        ):
            given = raw if own else connection
            _roll_back(connection, entry, verb, given, step, status == driver.active)
        # Nothing is sent, and nothing can block, where no transaction is open.
        elif not own:
            verb(connection)
        elif driver.is_reset is None or not driver.is_reset(raw):
            raw.rollback()  # all that SQLAlchemy's verb does

    protected.is_protected = True  # type: ignore[attr-defined]
    protected.is_sqlalchemys = own  # type: ignore[attr-defined]
    return protected


def _roll_back(
    connection: ConnectionFairy,
    entry: Entry,
    verb: Callable[[Any], None],
    given: Any,
    step: Phase,
    is_active: bool,
) -> None:
    """Roll back what may be in a transaction, within `reset_timeout`."""
    driver = entry.driver
    raw: Any = connection.dbapi_connection
    refuse_foreign(entry.owner, raw)
    doubted = (
        entry.reason is not None or is_active or (driver.locks and raw.lock.locked())
    )
    if doubted and entry.abandon_suspended():
        return
    if deadlines.ever_used:
        _cover(connection)
    socket, limit = entry.socket, entry.owner.settings.reset_timeout
    if socket is None or limit is None:
        verb(given)
        return
    entry.operation = ("rollback", limit)
    socket.arm(_native.CALL, limit)
    try:
        verb(given)
    except BaseException as error:
        mark(error, step)
        raise
    finally:
        socket.disarm(_native.CALL)


def _roll_back_detached(
    fairy: ConnectionFairy, verb: Callable[[Any], None], given: Any
) -> None:
    raw: Any = fairy.dbapi_connection
    driver = known.of(raw, None)
    if sockets.is_foreign(raw):
        # No error: SQLAlchemy would leave it to the collector, which closes it.
        sockets.end_session(raw)
    elif driver.is_suspended(raw):
        sockets.end_session(raw)
        driver.abandon(raw)
    else:
        with _bounded_detached(fairy):
            verb(given)


def _undo(verb: Callable[..., None], step: Phase) -> Callable[..., None]:
    def protected(connection: Any, *args: Any, **kwargs: Any) -> None:
        # A statement undoes these, and on an inherited connection it would be refused.
        if renewal.forked_error(connection) is not None:
            return
        _cover(connection)
        fairy = getattr(connection, "_dbapi_connection", connection)
        entry = getattr(fairy, "_connection_record", None)
        bound: AbstractContextManager[object] = contextlib.nullcontext()
        if isinstance(entry, Entry):
            limit = entry.owner.settings.reset_timeout
            bound = deadlines.bounded(entry, "rollback", limit)
        try:
            with bound:
                verb(connection, *args, **kwargs)
        except BaseException as error:
            mark(error, step)
            raise

    return protected


def _statement_on(verb: Callable[..., Any], step: Phase) -> Callable[..., Any]:
    def protected(connection: Any, *args: Any, **kwargs: Any) -> Any:
        _cover(connection)
        try:
            return verb(connection, *args, **kwargs)
        except BaseException as error:
            mark(error, step)
            raise

    return protected


@contextlib.contextmanager
def _bounded_detached(fairy: ConnectionFairy) -> Iterator[None]:
    """Bound a call on a connection that was taken out of the pool."""
    settings = getattr(fairy._pool, "settings", None)
    limit = None if settings is None else settings.reset_timeout
    socket = sockets.find(fairy.dbapi_connection)
    if socket is None or limit is None:
        yield
        return
    socket.arm(_native.CALL, limit)
    try:
        yield
    finally:
        socket.disarm(_native.CALL)


def _execute(verb: Callable[..., None], step: Phase) -> Callable[..., None]:
    def protected(cursor: Any, *args: Any, **kwargs: Any) -> None:
        context = kwargs.get("context", args[-1] if args else None)
        root = getattr(context, "root_connection", None)
        fairy = getattr(root, "_dbapi_connection", None)
        entry = getattr(fairy, "_connection_record", None)
        if isinstance(entry, Entry):
            statement = args[0] if args else ""
            if not isinstance(statement, str):
                # A listener may hand a driver an object of its own.
                statement = type(statement).__name__
            elif len(statement) > LONGEST:
                statement = f"{statement[:HALF]} ... {statement[-HALF:]}"
            entry.statements.append(statement)
        if deadlines.ever_used:
            _cover(root)
        try:
            verb(cursor, *args, **kwargs)
        except BaseException as error:
            mark(error, step)
            raise

    return protected


_VERBS: tuple[tuple[str, Callable[..., Any], Phase], ...] = (
    ("do_begin", _begin, "begin"),
    ("do_commit", _commit, "commit"),
    ("do_rollback", _rollback, "rollback"),
    ("do_rollback_to_savepoint", _undo, "unknown"),
    ("do_rollback_twophase", _undo, "rollback"),
    ("do_begin_twophase", _statement_on, "begin"),
    ("do_commit_twophase", _statement_on, "commit"),
    ("do_prepare_twophase", _statement_on, "commit"),
    ("do_recover_twophase", _statement_on, "unknown"),
    ("set_connection_execution_options", _statement_on, "unknown"),
    ("do_execute", _execute, "statement"),
    ("do_executemany", _execute, "statement"),
    ("do_execute_no_params", _execute, "statement"),
)
