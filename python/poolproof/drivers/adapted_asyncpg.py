"""asyncpg, as SQLAlchemy adapts it."""

from __future__ import annotations

import contextlib
import secrets
import uuid
from operator import truth
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only

from poolproof.drivers.adapted import (
    ACTIVE,
    CANCEL_S,
    FAILED,
    IDLE,
    IN_TRANSACTION,
    UNKNOWN,
    Adapted,
    own,
)
from poolproof.drivers.aside import look_after
from poolproof.drivers.asyncpg import Asyncpg
from poolproof.drivers.base import Driver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolproof.drivers.base import AtLoop

__all__ = ["AdaptedAsyncpg"]


def _status_of_asyncpg(connection: Any) -> int:
    protocol = connection._connection._protocol
    if protocol is None or not protocol.is_connected():
        return UNKNOWN
    if connection._transaction is not None or protocol.is_in_transaction():
        return IN_TRANSACTION
    return ACTIVE if protocol._is_cancelling() else IDLE


class AdaptedAsyncpg(Adapted, Asyncpg):
    """asyncpg, adapted."""

    __slots__ = ()

    def __init__(self) -> None:
        """Say what holds for the driver."""
        Driver.__init__(
            self,
            "asyncpg",
            _status_of_asyncpg,
            idle=IDLE,
            active=ACTIVE,
            failed=FAILED,
            # Its loop reads while it rests, and asyncpg gives a stray answer's
            # connection up.
            must_ask=False,
        )
        # What is idle has no transaction that the adapter would roll back.
        self.is_reset = truth

    def ask(self, connection: Any) -> bool:
        """Ask the server something new: what it describes bears the question's name.

        Args:
            connection: The adapter, in its greenlet.
        """
        name = f"poolproof_{secrets.randbits(64):016x}"
        asking = _describe(own(connection), f"select null as {name}")
        try:
            described = await_only(asking)
        except Exception as error:  # noqa: BLE001 - asyncpg's own, or the system's
            connection._handle_exception(error)  # as PEP 249 names it
        return bool(described) and described[0].name == name

    def run_alone(self, connection: Any, statements: Iterable[str]) -> None:
        """Run statements, each by itself, without the adapter's transactions.

        Args:
            connection: The adapter, in its greenlet.
            statements: What to run, one after the other.
        """
        raw = own(connection)
        for statement in statements:
            try:
                await_only(raw.execute(statement))
            except Exception as error:  # noqa: BLE001 - asyncpg's own, or the system's
                connection._handle_exception(error)  # as PEP 249 names it

    def forget_prepared(self, connection: Any) -> None:
        """Empty what the adapter has prepared, and asyncpg itself.

        It asks the server to close each of them later, to which a server that does not
        know them agrees.

        Args:
            connection: The adapter.
        """
        prepared = connection._prepared_statement_cache
        if prepared is not None:
            prepared.clear()
        own(connection)._drop_local_statement_cache()

    # --- at its loop ----------------------------------------------------------------

    def see_pooler(self, connection: Any) -> bool:
        """Keep no statement beyond its transaction, where a pooler stands between.

        In its transaction mode another transaction has another session of the server's.
        asyncpg numbers what it prepares, so the names of several clients would meet
        there; and what it asks for outside of a transaction, when codecs are set while
        connecting, is prepared in one session and might be executed in another. So
        nothing is kept, a statement in a transaction has no name, one outside has a
        name that no other has, and the connection begins in a transaction.

        Args:
            connection: The adapter, in its greenlet.

        Returns:
            Whether it is in a transaction now.
        """
        raw = own(connection)
        mode = self.pooler_mode(connection)
        if mode == "session":
            return False
        try:
            # The number of a pooler's is none of the server's. In one message, which
            # prepares nothing; asyncpg returns what it was answered with.
            asked = f"select where pg_backend_pid() = {int(raw.get_server_pid())}"
            if mode is None and await_only(raw.execute(asked)) == "SELECT 1":
                return False
            connection._prepared_statement_cache = None
            if (
                connection._prepared_statement_name_func
                is connection._default_name_func
            ):
                connection._prepared_statement_name_func = lambda: (
                    "" if raw.is_in_transaction() else f"__poolproof_{uuid.uuid4()}__"
                )
            raw._stmt_cache.set_max_size(0)
            await_only(connection._start_transaction())
        except Exception as error:  # noqa: BLE001 - asyncpg's own, or the system's
            connection._handle_exception(error)  # as PEP 249 names it
        return True

    def leave_beginning(self, connection: Any) -> None:
        """End the transaction that `see_pooler` has begun, if it goes on.

        Args:
            connection: The adapter, in its greenlet.
        """
        connection.commit()

    def at_loop(self, connection: Any) -> AtLoop | None:
        """Say what is still to be done, before it is closed, in its loop.

        Args:
            connection: The adapter.

        Returns:
            What has the server end the statement that was cancelled, and closes; None
            where nothing was.
        """
        raw = own(connection)
        protocol = raw._protocol
        if protocol is None or raw.is_closed() or not protocol._is_cancelling():
            return None
        for telling in set(raw._cancellations):
            look_after(telling)
        return _close_asyncpg

    def abandon(self, connection: Any) -> None:
        """End a connection at once: in its loop, or where that does not run.

        Args:
            connection: The adapter.
        """
        raw = own(connection)
        connection._transaction = None
        transport = raw._transport
        try:
            raw.terminate()
        except OSError:
            # The selector has lost sight of a socket that was severed while something
            # was still to be written.
            transport.abort()

    def leave_to_parent(self, connection: Any) -> None:
        """In a child: wake who waits for an answer, and ask for no cancellation.

        asyncpg has the server cancel the statement of a task that is cancelled; here it
        is the parent's.

        Args:
            connection: The adapter, whose socket is severed.
        """
        with contextlib.suppress(Exception):
            self.abandon(connection)

    def drop(self, connection: Any) -> None:
        """End a connection whose loop has been closed.

        Args:
            connection: The adapter.
        """
        raw = own(connection)
        connection._transaction = None
        transport = raw._transport
        # It would have the loop do the rest.
        with contextlib.suppress(RuntimeError, OSError):
            raw.terminate()
        tls = getattr(transport, "_ssl_protocol", None)
        inner = transport if tls is None else getattr(tls, "_transport", None)
        socket = getattr(inner, "_sock", None)
        if inner is not None and socket is not None:
            socket.close()
            inner._sock = None  # else its destructor warns of it


async def _describe(raw: Any, statement: str) -> Any:
    return (await raw.prepare(statement, name="")).get_attributes()


async def _close_asyncpg(connection: Any) -> None:
    raw = own(connection)
    connection._transaction = None
    with contextlib.suppress(Exception):
        await raw.close(timeout=CANCEL_S)
