"""What every lease is, however its holder waits for it: its terms, checks and guard.

The row says who holds it, until when by the server's clock, and a *fence*: a number
that grows with every acquisition. It is acquired, renewed and released on connections
of the control plane (src/control/lease/), so neither a busy interpreter nor an
exhausted pool nor a pooler costs a holder its lease. docs/leases.md says what is
promised, and what is not.
"""

from __future__ import annotations

import inspect
import os
import secrets
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sqlalchemy import exc, text

from poolproof import _native
from poolproof.control import notifier
from poolproof.control.server import check_bind, finish, refused, server_of
from poolproof.errors import LeaseError, LeaseForked, LeaseLost, LeaseTimeout
from poolproof.leases.checks import (
    TABLE,
    check_control_dsn,
    check_name,
    check_seconds,
    check_table,
    check_text,
    connection_of,
)
from poolproof.leases.held import held
from poolproof.leases.log import LeaseLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from poolproof.drivers.server_params import ControlDsn

__all__ = ["RELEASE_S", "LeaseBase", "Renewals"]

_LEAST_TTL_S = 1.0
# How long whoever lets go waits for the server to hear of it.
RELEASE_S = 2.0


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


class LeaseBase:
    """A lease without the waiting: `Lease` and `AsyncLease` add it.

    Attributes:
        name: Its name.
        ttl: How long it lasts after each renewal, in seconds.
        lost: An event of the kind that its holder waits for.
    """

    lost: Any
    _event: ClassVar[type[Any]]
    _takes_coroutines = False

    def __init__(
        self,
        bind: Any,
        name: str,
        *,
        ttl: float = 60.0,
        timeout: float | None = 30.0,
        steal_grace: float = 0.0,
        max_silence: float | None = None,
        on_lost: Callable[[Self], object] | None = None,
        table: str = TABLE,
        application: str | None = None,
        control_dsn: ControlDsn | None = None,
    ) -> None:
        """Describe a lease. Connects to nothing yet.

        Args:
            bind: The engine of the database that keeps it, or what has one as its
                attribute ``engine``.
            name: Its name, 1 to 200 bytes. Whoever uses the same name, table and
                database competes for the same lease.
            ttl: How long it lasts after each renewal, in seconds, 1 or more. A holder
                that was killed keeps others out for so long at most.
            timeout: How long to wait for it, or for a server that cannot be asked,
                in seconds; 0 tries once, None waits without bound.
            steal_grace: How long after another's expiry to wait before it is taken
                over, in seconds.
            max_silence: Stop renewing when neither `check` nor `touch` was called for
                so long, in seconds, more than 0; None renews for as long as the process
                lives.
            on_lost: Called with the lease when it is lost, once: by the notifier
                thread of the process; for `AsyncLease`, which takes a coroutine
                function as well, in the loop. Not when this process gives it back
                because it was told to end (SIGTERM).
            table: The table that keeps it, with a schema before it if wanted, spelled
                as PostgreSQL stores it.
            application: What the table says the holder is; None takes the program's
                name.
            control_dsn: How the control plane reaches the server, where the engine's
                own parameters cannot be known: a URL, or `name=value` pairs; or a
                function that returns it, called before each connecting.

        Raises:
            ArgumentError: A value is not what it must be.
        """
        check_name(name)
        check_table(table)
        check_seconds("ttl", ttl, _LEAST_TTL_S, none=False)
        check_seconds("timeout", timeout, 0)
        check_seconds("steal_grace", steal_grace, 0, none=False)
        check_seconds("max_silence", max_silence, 0, above=True)
        if application is not None:
            check_text("application", application)
        check_control_dsn(control_dsn)
        check_bind(bind)
        if on_lost is not None and not callable(on_lost):
            raise exc.ArgumentError("on_lost must be a function of one argument")
        if not self._takes_coroutines and inspect.iscoroutinefunction(on_lost):
            raise exc.ArgumentError(
                "on_lost is a coroutine function: AsyncLease can await it"
            )
        self.name = name
        self.ttl = float(ttl)
        self.lost = self._event()
        self._bind = bind
        self._timeout = timeout
        self._steal_grace = float(steal_grace)
        self._max_silence = max_silence
        self._on_lost: Callable[[Any], object] | None = on_lost
        self._table = table
        self._application = application
        self._control_dsn = control_dsn
        self._native: _native.Lease | None = None
        self._pid = os.getpid()
        self._told: _native.Lease | None = None
        self._log = LeaseLog(name)

    # An unknown argument is reported by this name.
    __init__.__qualname__ = "Lease.__init__"

    def __repr__(self) -> str:
        """Show name and state."""
        native = self._native
        if native is None:
            state = "new"
        elif not native.is_ours:
            state = f"of process {self._pid}"
        else:
            state = native.phase()[0]
        return f"<{type(self).__name__} {self.name!r} {state}>"

    # --- getting and giving back ------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[_native.Lease]:
        """Ask for it; the block waits for the answer. Then it is held, or an error."""
        older = self._native
        if older is not None and older.is_ours and older.phase()[0] in _IN_USE:
            raise LeaseError(self.name, "it is held by this very object already")
        server = server_of(self._bind, self._control_dsn)
        self._pid = os.getpid()
        native = self._ask(server)
        self._native = native
        self._log = LeaseLog(self.name)
        self.lost = self._event()
        try:
            yield native
            native.take()
            self._watch(native)
        except _native.Refused as error:
            self._forget(native)
            kind, why, _ = error.args
            if kind == "held":
                waited = f"within {self._timeout:g} s; {why}"
                raise LeaseTimeout(self.name, waited) from None
            raise refused(error) from None
        except BaseException:
            self._forget(native)
            native.leave()
            notifier.unwatch(native.number)
            raise

    def _watch(self, native: _native.Lease) -> None:
        """Have the notifier tell of what was granted."""
        if native.phase()[0] == "waiting":
            raise LeaseError(self.name, "the control plane has gone")
        notifier.watch(native.number, self)
        held.note(self)
        # What happened before there was a watch was told to nobody.
        _native.wake_events(native.number)

    def _forget(self, native: _native.Lease) -> None:
        """Forget what was asked in vain, unless another caller has asked since."""
        if self._native is native:
            self._native = None

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

    def _leave(self) -> _native.Lease | None:
        """Begin to give it back; None when it was not acquired in this process."""
        native = self._native
        if native is None or not native.is_ours:
            return None
        native.leave()
        if native.phase()[0] == "lost":
            _untold[native.number] = self
            if native is self._told:
                _untold.pop(native.number, None)
        else:
            notifier.unwatch(native.number)
        return native

    def _loss(self) -> LeaseLost | None:
        """Return the error of a block that ends now; None when there is none."""
        native = self._native
        if native is None or not native.is_ours:
            return None
        phase, reason = native.phase()
        return LeaseLost(self.name, reason) if phase == "lost" else None

    # --- holding ----------------------------------------------------------------------

    @property
    def fence(self) -> int:
        """The number of this acquisition; every later one of the table has a greater.

        Raises:
            LeaseError: It was never acquired.
            LeaseForked: The parent of this process has it.
        """
        return self._ours().right[0]

    def check(self) -> None:
        """Make sure that it is still held, without asking the server.

        It counts as a sign of life for `max_silence`.

        Raises:
            LeaseLost: It was lost.
            LeaseForked: The parent of this process has it.
            LeaseError: It was not acquired, or was given back.
        """
        native = self._ours()
        phase, reason = native.phase()
        if phase == "lost":
            self._set_lost()
            raise LeaseLost(self.name, reason)
        if phase != "held":
            raise LeaseError(self.name, "it was given back")
        native.touch()

    def touch(self) -> None:
        """Give a sign of life for `max_silence`, whatever has become of the lease."""
        native = self._native
        if native is not None and native.is_ours:
            native.touch()

    def _guard(self, connection: Any) -> None:
        """Bind the transaction of a connection, or of a session, to the lease."""
        self.check()
        inner = connection_of(connection)
        if getattr(inner.connection.dbapi_connection, "autocommit", False):
            raise LeaseError(
                self.name,
                "guard needs a transaction, and this connection is in autocommit mode",
            )
        native = self._ours()
        fence, token = native.right
        # With its schema: the connection may have another search_path. What commits
        # under the lease is as durable as the lease itself.
        query = text(
            f"SELECT {_native.durable_commit()} FROM {native.table} "  # noqa: S608 - checked
            "WHERE name = :name AND fence = :fence AND token = :token FOR KEY SHARE"
        )
        values = {"name": self.name, "fence": fence, "token": token}
        if inner.execute(query, values).first() is None:
            reason = (
                f"the server has another holder for it, or none: fence {fence} is over"
            )
            native.disown(reason)
            self._set_lost()
            raise LeaseLost(self.name, reason)

    def stats(self) -> Renewals:
        """Say how its renewals went, so far.

        Raises:
            LeaseError: It was never acquired.
            LeaseForked: The parent of this process has it.
        """
        native = self._ours()
        return Renewals(*native.counts())

    @property
    def notices(self) -> int:
        """How many notices the server has sent the control plane of this process.

        They are dropped, whichever lease they came with.

        Raises:
            LeaseError: It was never acquired.
            LeaseForked: The parent of this process has it.
        """
        return self._ours().notices

    def _ours(self) -> _native.Lease:
        native = self._native
        if native is None:
            raise LeaseError(self.name, "it was not acquired")
        if not native.is_ours:
            raise LeaseForked(self.name, self._pid, os.getpid())
        return native

    def _set_lost(self) -> None:
        """Set `lost`, from any thread."""
        self.lost.set()

    def tell(self) -> None:
        """Say what became of it; that it was lost, once for each acquisition.

        For the notifier.
        """
        native = self._native
        if native is None or native is self._told:
            return
        self._log.look(*native.trouble(), native.counts()[2])
        phase, reason = native.phase()
        if phase != "lost":
            return
        self._told = native
        _untold.pop(native.number, None)
        notifier.unwatch(native.number)
        self._log.lost(reason, is_ending=native.is_ending)
        if not native.is_ending:
            held.count_lost()
        # Whoever is told to end knows it: every deployment would raise an alarm.
        self._say_lost(None if native.is_ending else self._on_lost)

    def _say_lost(self, on_lost: Callable[[Any], object] | None) -> None:
        """Set `lost` and call `on_lost`; the caller is the notifier's thread."""
        raise NotImplementedError


_IN_USE = ("waiting", "held")

# Those that were lost and left before the notifier came to say so: kept until then.
_untold: dict[int, LeaseBase] = {}


def _program() -> str:
    return Path(sys.argv[0] if sys.argv else "").name or "python"


def _give_all_back() -> None:
    """Give back what this process holds, also what nobody has any more."""
    _native.leave_all()
    finish(_native.wait_all_over, RELEASE_S)


notifier.at_end(_give_all_back)
