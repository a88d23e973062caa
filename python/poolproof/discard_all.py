"""`reset_on_return="discard_all"`: nothing of a session outlives its check-in.

Session advisory locks, temporary tables, LISTEN, prepared statements, cursors and SET
go at each check-in, instead of at an instant of the pool's choice. It costs a round
trip, or two where a transaction was left open.

Source: PostgreSQL's documentation, ``DISCARD ALL``, which no transaction may contain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from poolproof.entry import Entry

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool, PoolResetState

__all__ = ["NAME", "begin"]

NAME = "discard_all"


def begin(pool: Pool) -> None:
    """Have the sessions of a pool discarded at each check-in. Idempotent.

    Args:
        pool: A pool, whose own reset is a rollback.
    """
    if _discard not in list(pool.dispatch.reset):
        event.listen(pool, "reset", _discard)


def _discard(connection: Any, record: object, state: PoolResetState) -> None:
    """Discard what a session holds, bounded as every check-in is."""
    if state.terminate_only or not isinstance(record, Entry):
        return  # it is closed, or nobody's that the pool knows
    driver = record.driver
    if driver.name in {"other", "mock"}:
        return  # of another database, or nobody's
    if not driver.tells or driver.status(connection) != driver.idle:
        connection.rollback()
    before = getattr(connection, "autocommit", True)
    if before is not True:
        connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("DISCARD ALL")
    cursor.close()
    if before is not True:
        connection.autocommit = before
    prepared = getattr(connection, "_prepared", None)
    if prepared is not None:  # psycopg's list of what it has prepared
        prepared.clear()
