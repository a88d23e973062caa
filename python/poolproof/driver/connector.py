"""PEP 249's connect."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import exc

from poolproof import _native
from poolproof.driver.connection import Connection
from poolproof.driver.errors import NotSupportedError, ProgrammingError, from_wire
from poolproof.driver.threshold import THRESHOLD, refuse_threshold
from poolproof.driver.waiting import waiter
from poolproof.drivers import conninfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.driver.adapters import Adapters
    from poolproof.driver.waiting import Waiter

__all__ = ["connect", "open_as"]

Opened = TypeVar("Opened", bound=Connection)

_UTF8 = frozenset({"auto", "unicode", "utf8"})


def connect(
    dsn: str = "",
    *,
    autocommit: bool = False,
    timeout: float | None = None,
    adapters: Adapters | None = None,
    pipeline: bool = False,
    prepare_threshold: int | None = THRESHOLD,
    **keywords: Any,
) -> Connection:
    """Connect to a server.

    What is left out comes from the environment, the service file and the password file,
    as in libpq.

    Args:
        dsn: A URL, or libpq's ``name=value`` pairs.
        autocommit: Whether each statement commits by itself.
        timeout: For the whole of connecting, all addresses together, in seconds; None
            means `connect_timeout`, and without that no limit.
        adapters: The ways in which values travel; None for those of all.
        pipeline: Whether `Connection.rollback` sends and does not wait: its answer is
            read ahead of the next one's. SQLAlchemy's engines have it so.
        prepare_threshold: After how many times a statement is prepared on the server;
            None for never. Behind a pooler nothing is.
        keywords: libpq's keywords, such as host, port, user, password and dbname; they
            count before *dsn*.

    Raises:
        ProgrammingError: What was given cannot be understood.
        NotSupportedError: The driver cannot do it.
        OperationalError: No server was to be had, or it refuses.
    """
    return open_as(
        Connection,
        waiter(),
        dsn,
        autocommit=autocommit,
        timeout=timeout,
        adapters=adapters,
        pipeline=pipeline,
        prepare_threshold=prepare_threshold,
        **keywords,
    )


def open_as(
    kind: Callable[..., Opened],
    wait: Waiter | None,
    dsn: str = "",
    *,
    autocommit: bool = False,
    timeout: float | None = None,
    adapters: Adapters | None = None,
    pipeline: bool = False,
    prepare_threshold: int | None = THRESHOLD,
    **keywords: Any,
) -> Opened:
    """Connect to a server; see `connect`.

    Args:
        kind: Makes the connection of the bridge's.
        wait: What it waits with, and connecting too; None where the bridge waits.
        dsn: As `connect` has it, and what follows.
        autocommit: Whether each statement commits by itself.
        timeout: For the whole of connecting, in seconds.
        adapters: The ways in which values travel.
        pipeline: Whether the answer to a ROLLBACK is not waited for.
        prepare_threshold: After how many times a statement is prepared.
        keywords: libpq's keywords.

    Raises:
        Error: As `connect`.
    """
    _check_encoding(keywords.pop("client_encoding", None))
    refuse_threshold(prepare_threshold)
    if not isinstance(dsn, str):
        raise ProgrammingError(
            f"connect takes a URL or a connection string, not {type(dsn).__name__}"
        )
    _check_seconds(timeout)
    said = conninfo.said(keywords)
    problem: str
    try:
        where = conninfo.conninfo(dsn, said)
    except exc.ArgumentError as error:
        problem = str(error)
    else:
        wire = _open(where, timeout, wait)
        opened = kind(
            wire,
            autocommit=autocommit,
            adapters=adapters,
            pipeline=pipeline,
            prepare_threshold=prepare_threshold,
        )
        opened.wait = wait
        return opened
    # Not as a cause or context, which might hold a secret.
    raise ProgrammingError(problem)


def _open(
    where: conninfo.Conninfo, timeout: float | None, wait: Waiter | None
) -> _native.Wire:
    try:
        return _native.Wire.connect(where, timeout_s=timeout, wait=wait)
    except _native.WireError as error:
        raise from_wire(error, connecting=True) from None


def _check_seconds(timeout: object) -> None:
    if timeout is None:
        return
    if not isinstance(timeout, int | float) or math.isnan(timeout):
        raise ProgrammingError(
            f"timeout is a number of seconds, or None for no limit, not {timeout!r}"
        )


def _check_encoding(name: object) -> None:
    if name is None:
        return
    if str(name).lower().replace("-", "").replace("_", "") not in _UTF8:
        raise NotSupportedError(
            f"client_encoding is UTF8 with this driver, not {name}: the server "
            "converts to and from it; leave client_encoding out"
        )
