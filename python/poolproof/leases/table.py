"""The table of leases, as an operator sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from poolproof import _native
from poolproof.control.server import SIZE, finish, refused
from poolproof.drivers.server_params import from_dsn
from poolproof.errors import ControlError
from poolproof.leases.checks import TABLE, check_name, check_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof._native import Operation

__all__ = ["LeaseRow", "LeaseTable"]


class LeaseRow(NamedTuple):
    """One lease, and who holds it or held it last.

    Attributes:
        name: Its name.
        fence: The number of its last acquisition.
        held: Whether it was not given back, expired or not.
        host: The holder's machine.
        pid: The holder's process.
        thread: The holder's thread.
        application: The holder's application.
        age_s: Since it was acquired, in seconds.
        silence_s: Since it was renewed, in seconds.
        left_s: Until it expires, in seconds; below zero since it has.
    """

    name: str
    fence: int
    held: bool
    host: str
    pid: int
    thread: str
    application: str
    age_s: float
    silence_s: float
    left_s: float

    @property
    def state(self) -> str:
        """``"held"``, ``"expired"`` or ``"free"``."""
        if not self.held:
            return "free"
        return "held" if self.left_s > 0 else "expired"


class LeaseTable:
    """The table of leases of one database."""

    def __init__(self, dsn: str, table: str = TABLE) -> None:
        """Describe it. Connects to nothing yet.

        Args:
            dsn: A URL, or `name=value` pairs, as `control_dsn` of a `Lease`.
            table: Its name.

        Raises:
            ArgumentError: One of them is not what it must be.
            ControlError: Certificates or keys cannot be used.
        """
        check_table(table)
        self._table = table
        self._dsn = dsn
        self._made = self._make()

    def create(self) -> None:
        """Create it, or check that it is as it must be.

        Raises:
            ControlError: It is not, or cannot be created.
        """
        self._run(lambda server: server.init(self._table))

    def entries(self) -> list[LeaseRow]:
        """Return its leases, by name.

        Raises:
            ControlError: It cannot be read.
        """
        return self._run(lambda server: server.rows(self._table))

    def free(self, name: str) -> LeaseRow | None:
        """Take a lease away from its holder.

        Args:
            name: The lease's name.

        Returns:
            What it was, or None when nobody held it.

        Raises:
            ControlError: It cannot be written.
        """
        check_name(name)
        found = self._run(lambda server: server.free(self._table, name))
        return found[0] if found else None

    def _make(self) -> _native.Server:
        try:
            return _native.Server(from_dsn(self._dsn), size=SIZE)
        except _native.Refused as error:
            raise refused(error) from None

    def _server(self) -> _native.Server:
        """Return the server of this process: a child of a fork has one of its own."""
        if not self._made.is_ours:
            self._made = self._make()
        return self._made

    def _run(self, start: Callable[[_native.Server], Operation]) -> list[LeaseRow]:
        try:
            operation = start(self._server())
            finish(operation.wait)
            return [
                LeaseRow(*(getattr(row, name) for name in LeaseRow._fields))
                for row in operation.take()
            ]
        except _native.Refused as error:
            if error.args[2] == "42P01":
                raise ControlError(
                    f"there is no table {self._table}: run poolproof lease init",
                    kind="table",
                    sqlstate="42P01",
                ) from None
            raise refused(error) from None
