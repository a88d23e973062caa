"""poolproof's own driver, whose wire is `src/wire/`.

It knows where each session stands, reads nothing ahead of its requests, and bounds the
whole of connecting by one deadline: little is to be said of it here.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.drivers.base import Driver
from poolproof.drivers.connect_plan import ConnectPlan, left_until
from poolproof.drivers.conninfo import conninfo, said

if TYPE_CHECKING:
    from poolproof.drivers.connect_plan import Bound
    from poolproof.drivers.conninfo import Conninfo

__all__ = ["Native"]

# Not a function of Python's: it runs at each checkout and check-in.
_STATUS = attrgetter("wire.status")
_IDLE, _ACTIVE, _FAILED = "I", "A", "E"
_OWN_ARGUMENTS = frozenset(
    {"autocommit", "timeout", "adapters", "pipeline", "prepare_threshold"}
)
# No connection is made in less.
_LEAST_S = 0.001


def _is_reset(connection: Any) -> bool:
    return bool(connection.wire.status == _IDLE)


class Native(Driver):
    """poolproof's own driver."""

    __slots__ = ()

    def __init__(self) -> None:
        """Say what holds for the driver."""
        super().__init__(
            "poolproof",
            _STATUS,
            idle=_IDLE,
            active=_ACTIVE,
            failed=_FAILED,
            must_ask=False,
        )
        self.is_reset = _is_reset

    @staticmethod
    def has(connection: Any) -> bool:
        """Tell whether a connection is the driver's.

        Args:
            connection: A DBAPI connection.
        """
        return isinstance(getattr(connection, "wire", None), _native.Wire)

    def descriptor(self, connection: Any) -> int | None:
        """Find the descriptor.

        Args:
            connection: A DBAPI connection.
        """
        number: int = connection.wire.fileno()
        return number if number >= 0 else None

    def wire(self, connection: Any) -> _native.Wire | None:
        """Return the wire, which knows whether it is at rest.

        Args:
            connection: A DBAPI connection.
        """
        wire: _native.Wire = connection.wire
        return wire

    def told_pid(self, connection: Any) -> int | None:
        """Return the number that stands for the backend, as it was told.

        Args:
            connection: The driver's own connection.
        """
        wire = getattr(connection, "wire", None)
        return None if wire is None else wire.pid

    def setting(self, connection: Any, name: str) -> str | None:
        """Return a setting that the server has reported.

        Args:
            connection: The driver's own connection.
            name: The setting's name.
        """
        wire = getattr(connection, "wire", None)
        return None if wire is None else wire.parameter(name)

    def has_refused(self, error: BaseException) -> bool:
        """Tell whether a call was refused because another is under way.

        Args:
            error: What the call has raised.
        """
        return bool(getattr(error, "is_busy", False))

    def is_told_read_only(self, connection: Any) -> bool:
        """Tell whether the application has told it to begin read-only transactions.

        Args:
            connection: The driver's own connection.
        """
        return getattr(connection, "read_only", None) is True

    def connect_plan(
        self, dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> ConnectPlan | None:
        """Bound the whole of connecting, in its `timeout`.

        Args:
            dbapi: The driver's module.
            bound: What holds for this call.
            args: The arguments of its `connect()`.
            keywords: Those by name.
        """
        del dbapi, args
        chosen = keywords.get("timeout")
        if chosen is not None and not isinstance(chosen, int | float):
            return None  # it is the driver's to refuse
        limit: float | None = None
        if chosen is None and keywords.get("connect_timeout") is None:
            limit = bound.patience
        if bound.due is not None:
            left = max(_LEAST_S, left_until(bound.due))
            limit = left if limit is None else min(limit, left)
        if limit is None or (chosen is not None and chosen <= limit):
            return ConnectPlan(dict(keywords), None)
        return ConnectPlan({**keywords, "timeout": float(limit)}, float(limit))

    def server_params(
        self, dbapi: Any, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Conninfo:
        """Say which server it would connect to, and how.

        Args:
            dbapi: The driver's module.
            args: The arguments of its `connect()`.
            keywords: Those by name.
        """
        del dbapi
        text = args[0] if args else keywords.pop("dsn", None)
        return conninfo(text or None, said(keywords, _OWN_ARGUMENTS))

    def ask(self, connection: Any) -> bool:
        """Ask for a sign of life: a bare Sync.

        The session compares each answer with its question by itself.

        Args:
            connection: A DBAPI connection that is not in a transaction.
        """
        connection.ping()
        return bool(connection.wire.status == _IDLE)
