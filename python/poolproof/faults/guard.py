"""The event hook: what an error costs, on any pool."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Dialect, Engine

from poolproof import _checks
from poolproof._log import Log
from poolproof.drivers import backend, known
from poolproof.drivers.interruption import is_interruption
from poolproof.faults import opened
from poolproof.faults.error_info import Phase, ReadOnly, phase_of, read
from poolproof.faults.events import report
from poolproof.faults.table import Fault, Verdict, judge
from poolproof.faults.tallies import begin
from poolproof.fork import renewal

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Connection, ExceptionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

    from poolproof.drivers.base import Driver

__all__ = ["Charged", "guard", "install_guard"]

_log = Log("poolproof.guard")

# Faults that leave it open whether the connection is still in step.
_DOUBTFUL = frozenset({Fault.CORRUPTION, Fault.INTERRUPTED, Fault.SUSPECT})

_HOOK = "_poolproof_hook"


def guard(engine: Engine | AsyncEngine) -> None:
    """Make each error cost exactly what it must, on any pool.

    Corruption costs the one connection that it came from, a failover every connection,
    a unique violation nothing. What SQLAlchemy takes for a disconnect stays one. A
    `poolproof.Pool` does this by itself.

    Call it right after creating the engine: SQLAlchemy calls handlers of errors in the
    order in which they were put on, and one that raises an error of its own ends the
    row. Calling it again does nothing.

    Args:
        engine: An engine, sync or async, with any pool.

    Raises:
        ArgumentError: The engine's URL has a knob of `poolproof.Pool`, without
            ``plugin=poolproof`` beside it: the driver would get it.
        TypeError: *engine* is not an engine.
    """
    found = getattr(engine, "sync_engine", engine)
    if not isinstance(found, Engine):
        msg = f"guard needs an Engine or an AsyncEngine, not {type(engine).__name__}"
        raise TypeError(msg)
    pool = found.pool
    _checks.refuse_strays(pool)
    install_guard(found.dialect, getattr(pool, "sees_sockets", False), pool)


def install_guard(
    dialect: object, sees_sockets: bool, pool: Pool | None = None
) -> None:
    """Put the hook on a dialect, once however often it is called.

    Args:
        dialect: The dialect of one engine. The stand-in of a pool that has none yet
            has no events and is passed over.
        sees_sockets: Whether the engine's pool looks at its sockets before it hands
            them on.
        pool: The engine's pool, before it is used. With it the backend's process id is
            kept from the moment of connecting, because a driver forgets it when the
            connection breaks.
    """
    if pool is not None and _remember not in list(pool.dispatch.connect):
        event.listen(pool, "connect", _remember)
        opened.remember(pool)
        begin(pool)
    if not isinstance(dialect, Dialect):
        return
    # setdefault on an instance's dict is one step: no lock, which a fork could leave
    # locked.
    hook = vars(dialect).get(_HOOK) or vars(dialect).setdefault(_HOOK, _Hook())
    hook.sees_sockets = sees_sockets
    # SQLAlchemy would know it too, and take ten times as long at each dispose().
    if hook.handle not in list(dialect.dispatch.handle_error):
        event.listen(dialect, "handle_error", hook.handle)
        _hear_ping(dialect)


def _hear_ping(dialect: Any) -> None:
    """Have SQLAlchemy's own ping fail with an error that is the driver's.

    SQLAlchemy takes no other for a dead connection: it would reach the application.
    """
    driver = known.by_name(getattr(dialect, "driver", ""))
    if driver is None:
        return
    ping = dialect.do_ping
    heard = driver.in_own_words(ping, dialect)
    if heard is not ping:
        dialect.do_ping = heard


@runtime_checkable
class Charged(Protocol):
    """The place of our pool that a connection is in: it hears what errors cost."""

    def explain(self, error: BaseException) -> None:
        """Make what has ended the connection the cause of the error that it led to.

        Args:
            error: The driver's exception.
        """

    def charge(self, reason: str | None, *, doubtful: bool) -> None:
        """Note what an error costs; whoever ends the connection then knows why.

        Args:
            reason: Why the connection is discarded, if it is for this error.
            doubtful: Whether it may be out of step, so that only asking can tell.
        """

    def bound_question(self) -> AbstractContextManager[None] | None:
        """Bound a question of the pool's own on the connection.

        Returns:
            Within it the question may be asked; None in the middle of a transaction,
            which a question could disturb.
        """


class _Hook:
    """The listener of one dialect."""

    __slots__ = ("sees_sockets",)

    def __init__(self) -> None:
        self.sees_sockets = False

    def handle(self, ctx: ExceptionContext) -> BaseException | None:
        """Judge an error; never raise one but that of a signal's handler."""
        try:
            return self._judge(ctx)
        except Exception as error:
            # Of its own it must never replace the original.
            if is_interruption(error):
                entry = _entry(_usable(ctx.connection))
                if entry is not None:  # it was not judged to the end
                    entry.charge(None, doubtful=True)
                raise
            # Its context is the original, whose text may hold user data.
            error.__suppress_context__ = True
            _log.exception("the guard failed and left the error as it was")
            return None

    def _judge(self, ctx: ExceptionContext) -> BaseException | None:
        error = ctx.original_exception
        driver_name = getattr(ctx.dialect, "driver", "unknown")
        forked = renewal.forked_error(ctx.connection)
        if forked is not None:
            if isinstance(error, type(forked)):
                forked = error
            ctx.is_disconnect = True
            ctx.invalidate_pool_on_disconnect = False
            report(
                judge(read(forked)),
                error=forked,
                driver=driver_name,
                pool=_pool(ctx),
            )
            return None if forked is error else forked
        if isinstance(error, sa_exc.StatementError):
            # It has been here before, or it came from another engine inside a hook.
            return None

        connection = _usable(ctx.connection)
        entry = _entry(connection)
        if entry is not None:
            entry.explain(error)
        raw = _raw(connection)
        own = None if connection is None else connection.driver_connection
        driver = known.of(own, ctx.dialect)
        driver.explain_error(own, error)
        info = read(error, driver_name)
        read_only = _read_only(ctx, raw, own, info.sqlstate)
        verdict = judge(
            info,
            phase=_phase(ctx, raw),
            read_only="imposed" if read_only == "doubtful" else read_only,
            closed=driver.is_closed(own),
            busy=driver.is_busy(own) and not driver.has_refused(error),
            disconnect=ctx.is_disconnect,
            # SQLAlchemy's own ping replaces every connection when it finds one dead.
            sees_sockets=self.sees_sockets and not ctx.is_pre_ping,
        )
        if read_only == "lately" and verdict.fault is Fault.READ_ONLY:
            # The address led to the same server a moment ago: it would again.
            verdict = replace(verdict, cost="nothing")
        final = verdict
        if read_only == "doubtful" and verdict.fault is Fault.READ_ONLY:
            return None  # the session is asked when it comes back
        if verdict.fault is not Fault.NONE:
            final = report(
                verdict,
                driver=driver_name,
                error=error,
                sqlstate=info.sqlstate,
                backend_pid=_pid(connection, driver),
                pool=_pool(ctx),
            )
            _charge(ctx, final, overruled=final is not verdict)
        if entry is not None:
            # One that is discarded is severed by the entry, when SQLAlchemy asks for
            # that: a listener that comes after this one may still keep it. Then, and
            # where the error cannot tell, the pool finds out.
            costs = final.cost != "nothing"
            doubtful = verdict.fault in _DOUBTFUL or not info.dbapi
            has_reason = info.deadline
            reason = final.fault.value if costs and not has_reason else None
            entry.charge(reason, doubtful=costs or doubtful)
            if isinstance(error, OSError):
                return _of_the_driver(ctx, entry, error)
        return None


def _of_the_driver(
    ctx: ExceptionContext, entry: Charged, error: OSError
) -> BaseException | None:
    """Make an error of the system that came while rows were fetched the driver's own.

    Elsewhere the verb of the dialect has done so.
    """
    driver = known.by_name(ctx.dialect.driver)
    own = None if driver is None else driver.translated(error, ctx.dialect)
    if own is None:
        return None
    entry.explain(own)
    return sa_exc.DBAPIError.instance(
        ctx.statement,
        ctx.parameters,
        own,
        ctx.dialect.loaded_dbapi.Error,
        hide_parameters=ctx.engine is not None and ctx.engine.hide_parameters,
        connection_invalidated=ctx.is_disconnect,
        dialect=ctx.dialect,
    )


def _charge(ctx: ExceptionContext, verdict: Verdict, *, overruled: bool) -> None:
    """Make SQLAlchemy discard what the verdict says.

    Both flags are needed: SQLAlchemy discards nothing unless it takes the error for a
    disconnect. Only a listener's verdict takes that flag back, never the table's.
    """
    if verdict.cost != "nothing":
        ctx.is_disconnect = True
        ctx.invalidate_pool_on_disconnect = verdict.cost == "generation"
    elif overruled:
        ctx.is_disconnect = False


def _entry(connection: PoolProxiedConnection | None) -> Charged | None:
    """Return the place in our pool that a connection is in, if it is in one."""
    if connection is None:
        return None
    record = getattr(connection, "_connection_record", None)
    return record if isinstance(record, Charged) else None


def _usable(connection: Connection | None) -> PoolProxiedConnection | None:
    """Return the pool's proxy, without making SQLAlchemy connect anew."""
    if connection is None or connection.closed or connection.invalidated:
        return None
    return connection.connection


def _pool(ctx: ExceptionContext) -> Pool | None:
    return None if ctx.engine is None else ctx.engine.pool


def _raw(fairy: PoolProxiedConnection | None) -> object:
    return None if fairy is None else fairy.dbapi_connection


def _phase(ctx: ExceptionContext, raw: object) -> Phase:
    if ctx.is_pre_ping:
        return "ping"
    if ctx.connection is None:
        return "connect"
    autocommit = getattr(raw, "autocommit", None)
    return phase_of(
        ctx.original_exception,
        ctx.statement,
        autocommit=autocommit if isinstance(autocommit, bool) else None,
    )


def _read_only(
    ctx: ExceptionContext, raw: object, driver: object, sqlstate: str | None
) -> ReadOnly:
    if sqlstate != "25006" or ctx.connection is None:
        return "unknown"
    options = ctx.connection.get_execution_options()
    if options.get("postgresql_readonly") is True or (
        getattr(raw, "readonly", None) is True
    ):
        return "chosen"
    record = getattr(_usable(ctx.connection), "_connection_record", None)
    found = opened.who_made_read_only(record, driver)
    if record is None or not opened.is_to_be_asked(record, found, driver):
        return found
    bound = record.bound_question() if isinstance(record, Charged) else None
    if bound is not None:
        with bound:
            return opened.ask_now(record)
    if ctx.engine is not None:
        name = getattr(ctx.dialect, "driver", "unknown")
        opened.ask_at_checkin(ctx.engine.pool, record, name)
    return found


def _remember(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """Keep the backend's process id; a driver forgets it when the connection breaks."""
    try:
        backend.remember(record)
    except Exception as error:
        if is_interruption(error):
            raise
        # A missing number harms nobody.
        _log.exception("the backend's process id could not be read")


def _pid(fairy: PoolProxiedConnection | None, driver: Driver) -> int | None:
    if fairy is None:
        return None
    kept = backend.pid_of(getattr(fairy, "_connection_record", None))
    return driver.backend_pid(fairy.driver_connection) if kept is None else kept
