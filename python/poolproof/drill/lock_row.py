"""A lock in a table, as teams write it with plain SQLAlchemy.

`poolproof.Lease` is drilled beside it. It is written with care: every statement is
atomic and names its holder, the server's clock decides, and a refresh that fails is
tried again. A thread refreshes it on a connection of its own, which it keeps, so that
a busy pool cannot delay it. What it forgets is to roll back before it tries again:
without that SQLAlchemy does not connect anew.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from poolproof.drill.player import first_line

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

TABLE: Final = """
CREATE TABLE worker_lock (
    name text PRIMARY KEY, holder text NOT NULL, expires_at timestamptz NOT NULL
)
"""
TICKS: Final = 6
"""Refreshes in the time that a lock lasts, as a lease has."""

_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.05
_ACQUIRE: Final = text("""
INSERT INTO worker_lock VALUES (:name, :holder, now() + :ttl * interval '1 second')
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE worker_lock.expires_at < now()
RETURNING holder
""")
_REFRESH: Final = text("""
UPDATE worker_lock SET expires_at = now() + :ttl * interval '1 second'
WHERE name = :name AND holder = :holder
RETURNING holder
""")
_RELEASE: Final = text("""
DELETE FROM worker_lock WHERE name = :name AND holder = :holder
""")


class LockLost(Exception):  # noqa: N818 (as LeaseLost is called)
    """The lock is not ours any more, as far as its holder knows."""


class LockRow:
    """A lock that one worker at a time holds, for a limited time.

    Args:
        engine: Of the database that keeps it; two of its connections are used.
        name: Whoever uses the same name competes for it.
        ttl: How long it lasts after each refresh, in seconds, > 0.

    Attributes:
        holder: Who we are, to the table; nobody else is called that.
    """

    def __init__(self, engine: Engine, name: str, ttl: float) -> None:
        self.holder = secrets.token_hex(8)
        self._engine = engine
        self._ttl = ttl
        self._values = {"name": name, "holder": self.holder, "ttl": ttl}
        self._over = threading.Event()
        self._why: str | None = None
        self._pinned: Connection | None = None
        self._refresher: threading.Thread | None = None

    def acquire(self) -> bool:
        """Try once to get it, and refresh it from then on; say whether it is ours."""
        pinned = self._engine.connect()
        found = pinned.execute(_ACQUIRE, self._values).first()
        pinned.commit()
        if found is None:
            pinned.close()
            return False
        keep = threading.Thread(target=self._keep, args=[pinned], daemon=True)
        self._pinned, self._refresher = pinned, keep
        keep.start()
        return True

    def check(self) -> None:
        """Make sure that it is still ours.

        Raises:
            LockLost: A refresh has failed for good.
        """
        if self._why is not None:
            raise LockLost(self._why)

    def guard(self, _connection: Connection) -> None:
        """Look once more at the beginning of a transaction: no more can be done.

        Raises:
            LockLost: A refresh has failed for good.
        """
        self.check()

    def release(self) -> None:
        """Stop refreshing it, and give it back if it is still ours."""
        if self._refresher is None or self._pinned is None:
            return
        self._over.set()
        self._refresher.join()
        self._pinned.close()
        with self._engine.begin() as connection:
            connection.execute(_RELEASE, self._values)

    def _keep(self, pinned: Connection) -> None:
        """Refresh it at every tick, until it is given back or a refresh fails."""
        while self._why is None and not self._over.wait(self._ttl / TICKS):
            self._why = self._refresh(pinned)

    def _refresh(self, pinned: Connection) -> str | None:
        """Refresh it, in several attempts; return why it is lost, None if it is not."""
        why = ""
        for _ in range(_ATTEMPTS):
            try:
                found = pinned.execute(_REFRESH, self._values).first()
                pinned.commit()
            except SQLAlchemyError as error:
                why = why or first_line(error)
                time.sleep(_PAUSE_S)
            else:
                return None if found else "somebody else has it"
        return f"not refreshed in {_ATTEMPTS} attempts: {why}"
