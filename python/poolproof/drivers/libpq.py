"""What psycopg2 and psycopg share: both are libpq underneath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof.drivers.base import Driver

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LibpqDriver"]

# PQTRANS_IDLE, PQTRANS_ACTIVE and PQTRANS_INERROR.
_IDLE, _ACTIVE, _FAILED = 0, 1, 3


class LibpqDriver(Driver):
    """A driver that is built on libpq."""

    __slots__ = ()

    def __init__(
        self, name: str, status: Callable[[Any], object], *, locks: bool = False
    ) -> None:
        """Say what holds for the driver.

        Args:
            name: Its name.
            status: Says libpq's transaction status of a connection.
            locks: Whether a call waits for a lock of the connection's.
        """
        super().__init__(
            name,
            status,
            idle=_IDLE,
            active=_ACTIVE,
            failed=_FAILED,
            must_ask=False,
            keeps_alive=True,
            locks=locks,
        )

    def backend_pid(self, connection: Any) -> int | None:
        """Say which backend a connection talks to.

        Args:
            connection: The driver's own connection.
        """
        info = getattr(connection, "info", None)
        pid = getattr(info, "backend_pid", None)
        return pid if isinstance(pid, int) and pid > 0 else None

    def setting(self, connection: Any, name: str) -> str | None:
        """Return a setting that the server has reported.

        Args:
            connection: The driver's own connection.
            name: The setting's name.
        """
        info = getattr(connection, "info", None)
        status = getattr(info, "parameter_status", None)
        value = status(name) if callable(status) else None
        return value if isinstance(value, str) else None
