"""psycopg's connections for asyncio, as SQLAlchemy adapts them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from typing import Any

from sqlalchemy.util import await_only

from poolproof import _native
from poolproof.drivers.adapted import ACTIVE, CANCEL_S, Adapted, own
from poolproof.drivers.aside import look_after
from poolproof.drivers.psycopg import Psycopg

__all__ = ["AdaptedPsycopg"]


def _status_of_psycopg(connection: Any) -> int:
    raw = connection._connection
    if raw.lock.locked() or raw._pipeline is not None:
        return ACTIVE
    status: int = raw.pgconn.transaction_status
    return status


def _is_reset(connection: Any) -> bool:
    raw = connection._connection
    return not (raw._num_transactions or raw._tpc)


class AdaptedPsycopg(Adapted, Psycopg):
    """psycopg's connections for asyncio, adapted."""

    __slots__ = ()

    def __init__(self) -> None:
        """Say what holds for the driver."""
        super().__init__(locks=False)
        self.status = _status_of_psycopg
        self.is_reset = _is_reset

    def is_suspended(self, connection: Any) -> bool:
        """Tell whether a connection comes back in the middle of a command.

        Args:
            connection: The adapter.
        """
        return self.is_busy(connection) and not self.is_piped(connection)

    def is_piped(self, connection: Any) -> bool:
        """Tell whether a pipeline was entered and not left.

        Args:
            connection: The adapter.
        """
        return super().is_piped(own(connection))

    def prepare_nothing(self, connection: Any) -> Any:
        """Have it neither prepare nor count what is asked next.

        Args:
            connection: The adapter.
        """
        return super().prepare_nothing(own(connection))

    def prepare_again(self, connection: Any, threshold: Any) -> None:
        """Undo `prepare_nothing`.

        Args:
            connection: The adapter.
            threshold: What that returned.
        """
        super().prepare_again(own(connection), threshold)

    def forget_prepared(self, connection: Any) -> None:
        """Empty the list of what it has prepared.

        Args:
            connection: The adapter.
        """
        super().forget_prepared(own(connection))

    def listens(self, connection: Any) -> bool:
        """Tell whether a notification has come, or something is called at one.

        Args:
            connection: The adapter.
        """
        return super().listens(own(connection))

    def is_told_read_only(self, connection: Any) -> bool:
        """Tell whether transactions are to begin read-only.

        Args:
            connection: The adapter.
        """
        return super().is_told_read_only(own(connection))

    def ask(self, connection: Any) -> bool:
        """Ask the server something new: the answer's column bears its name.

        Args:
            connection: The adapter, in its greenlet.
        """
        name = f"poolproof_{secrets.randbits(64):016x}"
        described, _ = await_only(_select(own(connection), f"select null as {name}"))
        return bool(described) and described[0][0] == name

    # --- at its loop ----------------------------------------------------------------

    def meet(self, connection: Any) -> None:
        """Have a new connection's statements end at once when they are cancelled.

        psycopg would wait for the server to agree, up to ten seconds, and the caller
        with it.

        Args:
            connection: The adapter.
        """
        raw = own(connection)
        if not hasattr(raw, "_try_cancel"):
            return
        reach = getattr(raw, "cancel_safe", None) if _cancels_by_itself() else None
        generation = _native.generation()

        async def end_at_once(**_options: Any) -> None:
            interruption = sys.exc_info()[1]
            try:
                # In a child the statement is the parent's.
                if reach is not None and generation == _native.generation():
                    telling = _suppressed(reach(timeout=CANCEL_S))
                    look_after(asyncio.create_task(telling))
                    await asyncio.sleep(0)  # it asks the connection where the server is
            finally:
                raw.pgconn.finish()
            if interruption is not None:
                _quiet.said = False
                raise interruption

        raw._try_cancel = end_at_once
        _quiet.begin()

    def see_pooler(self, connection: Any) -> bool:
        """Prepare no statement where a pooler stands between.

        In its transaction mode the next transaction has another session of the
        server's, in which the statement is not there, or is another client's.

        Args:
            connection: The adapter, in its greenlet.

        Returns:
            False: it is in no transaction.
        """
        raw = own(connection)
        mode = self.pooler_mode(connection)
        if raw.prepare_threshold is None or mode == "session":
            return False
        if mode is None:
            # The number of a pooler's is none of the server's.
            asked = f"select where pg_backend_pid() = {int(raw.info.backend_pid)}"
            _, count = await_only(_select(raw, asked))
            if count == 1:
                return False
        raw.prepare_threshold = None
        return False

    def abandon(self, connection: Any) -> None:
        """End a connection at once, in any thread: it needs no loop for that.

        Args:
            connection: The adapter.
        """
        raw = own(connection)
        raw._closed = True
        raw.pgconn.finish()

    drop = abandon


async def _select(raw: Any, statement: str) -> tuple[Any, int]:
    """Return the columns of a query, and how many rows it has."""
    commits_itself = raw.autocommit
    if not commits_itself:
        await raw.set_autocommit(True)
    # An error leaves the connection as it is, for it will be discarded.
    async with raw.cursor() as cursor:
        await cursor.execute(statement, prepare=False)
        found = cursor.description, cursor.rowcount
    if not commits_itself:
        await raw.set_autocommit(False)
    return found


async def _suppressed(question: Any) -> None:
    with contextlib.suppress(Exception):
        await question


def _cancels_by_itself() -> bool:
    """Tell whether libpq tells the server without holding up the loop."""
    psycopg: Any = sys.modules.get("psycopg")
    capable = getattr(psycopg, "capabilities", None)
    asked = getattr(capable, "has_cancel_safe", None)
    return bool(asked()) if callable(asked) else False


class _Quiet(logging.Filter):
    """Drops what psycopg says in the log when its waiting was cut short here.

    It says so at once, in the same thread, and nothing comes between.

    Attributes:
        said: False while it is about to.
    """

    said = True

    def begin(self) -> None:
        logger = logging.getLogger("psycopg")
        if self not in logger.filters:
            logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = not self.said and "cancellation" in str(record.msg)
        self.said = True
        return not is_ours


_quiet = _Quiet()
