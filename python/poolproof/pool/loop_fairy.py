"""What an `AsyncPool` lends: it goes back in few calls where nothing is to be done."""

from __future__ import annotations

from typing import Any

from poolproof import _native
from poolproof._sqlalchemy import ConnectionFairy
from poolproof.fork import renewal

__all__ = ["LENT", "LoopFairy"]


class LoopFairy(ConnectionFairy):
    """A pooled connection that is out.

    SQLAlchemy's check-in is a rollback, for which the pool does nothing where none is
    open, and word to all who might listen. Where nobody does, this is the same.
    """

    __slots__ = ()

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        entry: Any = self._connection_record
        pool: Any = self._pool
        connection: Any = self.dbapi_connection
        listeners = pool.listeners
        if (
            entry is not None
            and connection is not None
            and entry.fairy_ref is self._finalizer
            and listeners.reset is pool.quiet_reset
            and listeners.checkin is pool.quiet_checkin
            and pool._dialect.do_rollback is pool.own_rollback
            and not (self._echo or pool.hears_checkins or pool.hears_resets)
            and not entry.finalize_callback
            and _native.generation() == renewal.renewed_generation
        ):
            driver = entry.driver
            if driver.status(connection) == driver.idle and driver.is_reset(connection):
                pool.take_back(self, entry)
                return
        super()._checkin(transaction_was_reset)


# Fairies that are as SQLAlchemy means them, and no other's in their place.
LENT = (ConnectionFairy, LoopFairy)
