"""What psycopg2 and psycopg share: both are libpq underneath."""

from __future__ import annotations

import os
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar

from poolproof.drivers.base import Driver
from poolproof.drivers.connect_plan import ConnectPlan, count_addresses, left_until
from poolproof.drivers.conninfo import conninfo, said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from poolproof.drivers.connect_plan import Bound
    from poolproof.drivers.conninfo import Conninfo

__all__ = ["LibpqDriver", "ask_version"]

# PQTRANS_IDLE, PQTRANS_ACTIVE and PQTRANS_INERROR.
_IDLE, _ACTIVE, _FAILED = 0, 1, 3

# It counts whole seconds and, before its version 17, takes 1 for 2.
_LEAST_S = 2
# Of what is left, for the whole seconds: what has passed since the checkout began does
# not cost a second.
_ROUNDED_UP_S = 0.1
_WITH_USER_TIMEOUT = 120_000
# The options that say how long it tries, and their environment variables.
_OPTIONS = {
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "service": "PGSERVICE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


class LibpqDriver(Driver):
    """A driver that is built on libpq.

    Attributes:
        text_argument: The name of the connection string among `connect()`'s arguments.
        own_arguments: What is not libpq's among the others.
    """

    __slots__ = ()

    text_argument: ClassVar[str]
    own_arguments: ClassVar[frozenset[str]]

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

    def told_pid(self, connection: Any) -> int | None:
        """Return the number that stands for the backend, as it was told.

        Args:
            connection: The driver's own connection.
        """
        info = getattr(connection, "info", None)
        pid = getattr(info, "backend_pid", None)
        return pid if isinstance(pid, int) else None

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

    def connect_plan(
        self, dbapi: Any, bound: Bound, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> ConnectPlan | None:
        """Say what it is to be told, so that connecting keeps to a bound.

        Args:
            dbapi: The driver's module.
            bound: What holds for this call.
            args: The arguments of its `connect()`.
            keywords: Those by name.
        """
        text = args[0] if args else keywords.get(self.text_argument)
        given = self._read(dbapi, text) if text else {}
        return self._plan(given, bound, keywords, self._version(dbapi))

    def server_params(
        self, dbapi: Any, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Conninfo:
        """Say which server it would connect to, and how.

        Args:
            dbapi: The driver's module.
            args: The arguments of its `connect()`.
            keywords: Those by name.
        """
        text = args[0] if args else keywords.pop(self.text_argument, None)
        words = said(keywords, self.own_arguments)
        return conninfo(text or None, words, dbapi=dbapi)

    def _read(self, dbapi: Any, text: str) -> Mapping[str, Any]:
        """Take a connection string apart, as the driver does.

        Args:
            dbapi: The driver's module.
            text: What its `connect()` is given.
        """
        raise NotImplementedError

    def _version(self, dbapi: Any) -> int:
        """Ask for libpq's version; 0 where it is not told.

        Args:
            dbapi: The driver's module.
        """
        raise NotImplementedError

    def _plan(
        self,
        text: Mapping[str, Any],
        bound: Bound,
        keywords: dict[str, Any],
        version: int,
    ) -> ConnectPlan | None:
        """Bound each of the addresses that libpq would try, one by one.

        A `service` may hold anything, and is left alone.

        Args:
            text: What a connection string holds.
            bound: What holds for this call.
            keywords: The arguments of `connect()` by name; they count before *text*.
            version: libpq's.
        """
        said = {name: value for name, value in keywords.items() if value is not None}
        given = {**text, **said}
        options = {
            name: str(given.get(name, os.environ.get(variable, "")))
            for name, variable in _OPTIONS.items()
        }
        if options["service"]:
            return None
        try:
            chosen = int(float(options["connect_timeout"] or 0))
        except ValueError:
            return None  # it is the driver's to refuse
        # Only to divide what is left is a name looked up: libpq does so as well, and a
        # name server may be slow.
        look_up = None if bound.due is None else count_addresses
        count = _count(options, look_up)
        share = None if options["connect_timeout"] else bound.patience
        if bound.due is not None:
            left = max(_LEAST_S, int(left_until(bound.due) / count + _ROUNDED_UP_S))
            share = left if share is None else min(share, left)
        told, limit, counts = dict(keywords), None, chosen
        if share is not None and not 0 < chosen <= share:
            told["connect_timeout"] = counts = share
            limit = float(share * count)
        lends = (
            counts > 0
            and "tcp_user_timeout" not in given
            and version >= _WITH_USER_TIMEOUT
        )
        if lends:
            told["tcp_user_timeout"] = counts * 1000
        return ConnectPlan(told, limit, lends)


def _count(options: Mapping[str, str], look_up: Callable[[str], int] | None) -> int:
    """Count the addresses that are tried, one after the other.

    Args:
        options: What libpq is told.
        look_up: Says how many a name has; None takes each for one.
    """
    count = sum(
        1 if number or look_up is None else look_up(host)
        for host, number in zip_longest(
            options["host"].split(","), options["hostaddr"].split(","), fillvalue=""
        )
    )
    # The second round takes whichever answers.
    return 2 * count if options["target_session_attrs"] == "prefer-standby" else count


def ask_version(owner: Any, name: str) -> int:
    """Ask for libpq's version.

    Args:
        owner: What the driver's function for it is in, or None.
        name: The function's name.

    Returns:
        The version; 0 where it is not told, or not as a number (a mock).
    """
    found = getattr(owner, name, int)()
    return found if isinstance(found, int) else 0
