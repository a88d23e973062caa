"""A named, time-limited right that one process at a time holds, kept in a table.

The row says who holds it, until when by the server's clock, and a *fence*: a number
that grows with every acquisition. It is acquired, renewed and released on connections
of the control plane (src/control/lease.rs), so neither a busy interpreter nor an
exhausted pool nor a pooler costs a holder its lease. docs/leases.md says what is
promised, and what is not.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import exc, text

from poolproof import _native, losses
from poolproof.control import finish, refused, server_of
from poolproof.errors import LeaseError, LeaseForked, LeaseLost, LeaseTimeout
from poolproof.lease_checks import TABLE, check_name, check_seconds, check_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session
    from typing_extensions import Self

__all__ = ["Lease", "Renewals"]

_LEAST_TTL_S = 1.0
# How long whoever lets go waits for the server to hear of it.
_RELEASE_S = 2.0

# What is acquired or asked for in this process, to be given back at its end.
_live: weakref.WeakSet[Lease] = weakref.WeakSet()


class Renewals(NamedTuple):
    """How the renewals of a lease went.

    Attributes:
        renewals: Those that the server granted.
        blips: Attempts that failed, and were repeated.
        certain_s: For how long it is certain from now, in seconds.
    """

    renewals: int
    blips: int
    certain_s: float


class Lease:
    """A lease: acquire it, or use it in a `with` block.

    Example:
        >>> with Lease(engine, "nightly-cycle", ttl=1800) as lease:  # doctest: +SKIP
        ...     for batch in batches:
        ...         lease.check()
        ...         with engine.begin() as connection:
        ...             lease.guard(connection)
        ...             write(connection, batch)

    Attributes:
        name: Its name.
        ttl: How long it lasts after each renewal, in seconds.
        lost: Set when it was lost, soon after `check` would say so.
    """

    def __init__(
        self,
        bind: Any,
        name: str,
        *,
        ttl: float = 60.0,
        timeout: float | None = 30.0,
        steal_grace: float = 0.0,
        max_silence: float | None = None,
        on_lost: Callable[[Lease], object] | None = None,
        table: str = TABLE,
        application: str | None = None,
        control_dsn: str | None = None,
    ) -> None:
        """Describe a lease. Connects to nothing yet.

        Args:
            bind: The engine of the database that keeps it, or what has one as its
                attribute ``engine``.
            name: Its name, 1 to 200 bytes. Whoever uses the same name, table and
                database competes for the same lease.
            ttl: How long it lasts after each renewal, in seconds, 1 or more. A holder
                that was killed keeps others out for so long at most.
            timeout: How long to wait for it, in seconds; 0 tries once, None waits
                without bound.
            steal_grace: How long after another's expiry to wait before it is taken
                over, in seconds.
            max_silence: Stop renewing when neither `check` nor `touch` was called for
                so long, in seconds; None renews for as long as the process lives.
            on_lost: Called with the lease when it is lost, once, in a thread of its
                own kind.
            table: The table that keeps it, with a schema before it if wanted, spelled
                as PostgreSQL stores it.
            application: What the table says the holder is; None takes the program's
                name.
            control_dsn: How the control plane reaches the server, where the engine's
                own parameters cannot be known: a URL, or `name=value` pairs.

        Raises:
            ArgumentError: A value is not what it must be.
        """
        check_name(name)
        check_table(table)
        check_seconds("ttl", ttl, _LEAST_TTL_S, none=False)
        check_seconds("timeout", timeout, 0)
        check_seconds("steal_grace", steal_grace, 0, none=False)
        check_seconds("max_silence", max_silence, 0)
        if on_lost is not None and not callable(on_lost):
            raise exc.ArgumentError("on_lost must be a function of one argument")
        self.name = name
        self.ttl = float(ttl)
        self.lost = threading.Event()
        self._bind = bind
        self._timeout = timeout
        self._steal_grace = float(steal_grace)
        self._max_silence = max_silence
        self._on_lost = on_lost
        self._table = table
        self._application = application
        self._control_dsn = control_dsn
        self._native: _native.Lease | None = None
        self._pid = os.getpid()
        self._told: _native.Lease | None = None

    def __repr__(self) -> str:
        """Show name and state."""
        native = self._native
        state = "new" if native is None else native.phase()[0]
        if native is not None and not native.is_ours:
            state = f"of process {self._pid}"
        return f"<Lease {self.name!r} {state}>"

    # --- getting and giving back ------------------------------------------------------

    def acquire(self) -> Self:
        """Acquire it, waiting up to `timeout` while another holder has it.

        Returns:
            The lease itself, held.

        Raises:
            LeaseTimeout: Another holder had it all the time; the error says who.
            LeaseError: This object holds it already.
            ControlError: The server cannot be asked, or the table is not as it must
                be.
            ArgumentError: It cannot be worked out how to reach the server.
        """
        older = self._native
        if older is not None and older.is_ours and older.phase()[0] in _IN_USE:
            raise LeaseError(self.name, "it is held by this very object already")
        server = server_of(self._bind, self._control_dsn)
        self._pid = os.getpid()
        self.lost = threading.Event()
        native = self._ask(server)
        self._native = native
        _live.add(self)
        try:
            finish(native.wait)
            native.take()
        except _native.Refused as error:
            self._native = None
            kind, why, _ = error.args
            if kind == "held":
                waited = f"within {self._timeout:g} s; {why}"
                raise LeaseTimeout(self.name, waited) from None
            raise refused(error) from None
        except BaseException:
            self._native = None
            native.leave()
            raise
        if native.phase()[0] == "waiting":
            raise LeaseError(self.name, "the control plane has gone")
        losses.watch(native.number, self)
        return self

    def _ask(self, server: _native.Server) -> _native.Lease:
        thread = threading.current_thread()
        try:
            return _native.Lease(
                server,
                name=self.name,
                table=self._table,
                ttl_s=self.ttl,
                timeout_s=self._timeout,
                steal_grace_s=self._steal_grace,
                max_silence_s=self._max_silence,
                host=socket.gethostname(),
                pid=self._pid,
                thread=f"{thread.name} {threading.get_native_id()}",
                application=self._application or _program(),
                token=secrets.token_hex(12),
            )
        except _native.Refused as error:
            raise refused(error) from None

    def release(self) -> None:
        """Give it back. Does nothing when it is not held, or in a child of a fork.

        Waits for the server for 2 s at most; what it has not heard by then, it is told
        later, or the lease expires.
        """
        native = self._native
        if native is None or not native.is_ours:
            return
        native.leave()
        losses.unwatch(native.number)
        finish(native.wait_over, _RELEASE_S)

    def __enter__(self) -> Self:
        """Acquire it."""
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """Give it back.

        Raises:
            LeaseLost: It was lost, and the block ended without an error of its own.
        """
        native = self._native
        if native is None or not native.is_ours:
            return
        phase, reason = native.phase()
        self.release()
        if phase == "lost" and kind is None:
            raise LeaseLost(self.name, reason)

    # --- holding ----------------------------------------------------------------------

    @property
    def fence(self) -> int:
        """The number of this acquisition; every later one of the table has a greater.

        Raises:
            LeaseError: It was never acquired.
        """
        return self._held().right[0]

    def check(self) -> None:
        """Make sure that it is still held, without asking the server.

        It counts as a sign of life for `max_silence`.

        Raises:
            LeaseLost: It was lost.
            LeaseForked: The parent of this process has it.
            LeaseError: It was not acquired, or was given back.
        """
        native = self._held()
        if not native.is_ours:
            raise LeaseForked(self.name, self._pid, os.getpid())
        phase, reason = native.phase()
        if phase == "lost":
            self.lost.set()
            raise LeaseLost(self.name, reason)
        if phase != "held":
            raise LeaseError(self.name, "it was given back")
        native.touch()

    def touch(self) -> None:
        """Give a sign of life for `max_silence`, whatever has become of the lease."""
        native = self._native
        if native is not None and native.is_ours:
            native.touch()

    def guard(self, connection: Connection | Session) -> None:
        """Bind a transaction to the lease: it commits under it, or not at all.

        Checks name, holder and fence on the server, inside the caller's transaction,
        and locks the row until that ends. Nobody takes the lease over meanwhile, so a
        holder that was paused cannot write after one that came later. Call it first
        in the transaction.

        Args:
            connection: A connection or session of the same database. For the
                asyncio ones: ``await connection.run_sync(lease.guard)``.

        Raises:
            LeaseLost: It was lost, or the server has another holder for it.
            LeaseForked: The parent of this process has it.
            LeaseError: It is not held, or the connection is in autocommit mode, where
                the lock would not last.
        """
        self.check()
        inner: Any = connection
        if not hasattr(inner, "dialect"):
            inner = inner.connection()
        if getattr(inner.connection.dbapi_connection, "autocommit", False):
            raise LeaseError(
                self.name,
                "guard needs a transaction, and this connection is in autocommit mode",
            )
        fence, token = self._held().right
        table = ".".join(f'"{part}"' for part in self._table.split("."))
        query = text(
            f"SELECT 1 FROM {table} WHERE name = :name AND fence = :fence "  # noqa: S608 - checked
            "AND token = :token FOR KEY SHARE"
        )
        values = {"name": self.name, "fence": fence, "token": token}
        if inner.execute(query, values).first() is None:
            raise LeaseLost(
                self.name,
                f"the server has another holder for it, or none: fence {fence} is over",
            )

    def stats(self) -> Renewals:
        """Say how its renewals went, so far.

        Raises:
            LeaseError: It was never acquired.
            LeaseForked: The parent of this process has it.
        """
        native = self._held()
        if not native.is_ours:
            raise LeaseForked(self.name, self._pid, os.getpid())
        return Renewals(*native.counts())

    def _held(self) -> _native.Lease:
        if self._native is None:
            raise LeaseError(self.name, "it was not acquired")
        return self._native

    def tell(self) -> None:
        """Set `lost` and call `on_lost`. For the notifier."""
        native = self._native
        if native is None or native is self._told or native.phase()[0] != "lost":
            return
        self._told = native
        self.lost.set()
        if self._on_lost is not None:
            self._on_lost(self)


_IN_USE = ("waiting", "held")


def _program() -> str:
    return Path(sys.argv[0] if sys.argv else "").name or "python"


def _give_all_back() -> None:
    """Give back what this process holds: the interpreter ends."""
    ours = [
        native
        for lease in list(_live)
        if (native := lease._native) is not None and native.is_ours
    ]
    for native in ours:
        native.leave()
    until = time.monotonic() + _RELEASE_S
    for native in ours:
        finish(native.wait_over, max(0.0, until - time.monotonic()))


losses.at_end(_give_all_back)
