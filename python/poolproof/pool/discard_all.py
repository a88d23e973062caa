"""`reset_on_return="discard_all"`: nothing of a session outlives its check-in.

Session advisory locks, temporary tables, LISTEN, prepared statements, cursors and SET
go at each check-in, instead of at an instant of the pool's choice. It costs a round
trip, or two where a transaction was left open.

``DISCARD ALL`` goes back to what the server, the role and the startup packet say. What
was set after that while connecting (by `connect` listeners, by the dialect for an
isolation level, by the driver for an encoding) is not the caller's: it is read once,
before the first caller has the connection, and set again each time, in one statement.

Source: PostgreSQL's documentation, ``DISCARD ALL``, which no transaction may contain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from poolproof.pool.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import Pool, PoolResetState

    from poolproof.drivers.base import Driver

__all__ = ["NAME", "begin", "remember"]

NAME = "discard_all"

# What the session has now that the startup did not give it. Rights last: with fewer of
# them, some of the settings could not be set. The role and the user are not in
# pg_settings, nor is what no extension has declared (``app.user``).
_SETTINGS = """
select name, setting from pg_settings
 where source = 'session' and name not in (
    'transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
union all
select 'session_authorization', session_user
  from pg_stat_get_activity(pg_backend_pid()) as a
 where a.usesysid <> (select oid from pg_roles where rolname = session_user)
union all
select 'role', current_setting('role') where current_setting('role') <> 'none'
union all
select 'pid', pg_backend_pid()::text
"""

# A pooler lends a session for longer than a transaction in this mode alone.
_OWN_SESSION = "session"
_REPORTED = (
    "poolproof: PgBouncer stands between pool %s and the server, in %s mode: sessions "
    "are not the pool's there, so discard_all is left out, and a check-in rolls back. "
    "This is said once"
)
_POOLED = (
    "poolproof: a pooler stands between pool %s and the server (the backend is "
    "another than the driver was told). In its transaction mode, discard_all does not "
    "reach the session that a caller has used: leave it out there. In its session "
    "mode it is right. This is said once"
)


def begin(pool: Pool) -> None:
    """Have the sessions of a pool discarded at each check-in. Idempotent.

    Args:
        pool: A pool, whose own reset is a rollback.
    """
    if _discard not in list(pool.dispatch.reset):
        event.listen(pool, "reset", _discard)


def remember(entry: Entry) -> None:
    """Read what has been set in a session that was just opened.

    Args:
        entry: Its entry, after the listeners of `connect`.

    Raises:
        Exception: Whatever the driver raises.
    """
    connection: Any = entry.dbapi_connection
    driver = entry.driver
    entry.set_again = None
    if not driver.is_of_postgresql or not _is_own(entry, entry.driver_connection):
        return
    was_open = _end_failed(connection, driver)
    threshold = driver.prepare_nothing(connection)
    cursor = connection.cursor()
    cursor.execute(_SETTINGS)
    found = {_text(name): _text(value) for name, value in cursor.fetchall()}
    cursor.close()
    driver.prepare_again(connection, threshold)
    if not was_open:  # else a listener's, who may mean it to go on
        connection.rollback()
    _see_pooler(entry, found.pop("pid"))
    if found:
        entry.set_again = "select " + ", ".join(_calls(found))


def _end_failed(connection: Any, driver: Driver) -> bool:
    """Tell whether a listener has left a transaction open; roll a failed one back."""
    status = driver.status(connection) if driver.tells else driver.idle
    if driver.tells and status == driver.failed:
        connection.rollback()
        return False
    return status != driver.idle


def _text(value: Any) -> str:
    """Return a value as text, where psycopg gives bytes for want of an encoding."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _calls(settings: dict[str, str]) -> Iterator[str]:
    for name, value in settings.items():
        yield f"set_config({_quoted(name)}, {_quoted(value)}, false)"


def _quoted(text: str) -> str:
    """Write a text as a constant that no setting of the session changes."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _is_own(entry: Entry, connection: Any) -> bool:
    """Tell whether no pooler says that the session is another's after a transaction."""
    mode = entry.driver.pooler_mode(connection)
    if mode in {None, _OWN_SESSION}:
        return True
    pool = entry.owner
    if not pool.warned_of_pooler:
        pool.warned_of_pooler = True
        pool.logger.warning(_REPORTED, pool.name(), mode, extra=entry.fields())
    return False


def _see_pooler(entry: Entry, pid: str) -> None:
    """Say once where the session is not the one that the driver began."""
    pool = entry.owner
    # None as well: PgBouncer makes the number up, and half of them are negative.
    told = entry.driver.backend_pid(entry.driver_connection)
    if entry.driver.pooler_mode(entry.driver_connection) is not None:
        return  # in its session mode
    if entry.driver.tells and str(told) != pid and not pool.warned_of_pooler:
        pool.warned_of_pooler = True
        pool.logger.warning(_POOLED, pool.name(), extra=entry.fields())


def _discard(
    connection: DBAPIConnection, record: object, state: PoolResetState
) -> None:
    """Discard what a session holds, bounded as every check-in is."""
    if state.terminate_only or not isinstance(record, Entry):
        return  # it is closed, or nobody's that the pool knows
    driver = record.driver
    if not driver.is_of_postgresql:
        return
    if record.socket is not None and not record.socket.intact:
        return  # it was severed, in the middle of a command
    _end_transaction(connection, driver)
    if not _is_own(record, record.driver_connection):
        return
    again = () if record.set_again is None else (record.set_again,)
    driver.run_alone(connection, ("DISCARD ALL", *again))
    driver.forget_prepared(connection)


def _end_transaction(connection: Any, driver: Driver) -> None:
    """Roll back what is open, also a BEGIN that the driver has not sent by itself."""
    if driver.tells and driver.status(connection) == driver.idle:
        return
    connection.rollback()
    if driver.tells and driver.status(connection) != driver.idle:
        cursor = connection.cursor()  # psycopg2, which commits each statement
        cursor.execute("ROLLBACK")
        cursor.close()
