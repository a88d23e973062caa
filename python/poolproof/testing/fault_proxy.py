"""A proxy between a service and its database that does harm when it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url

from poolproof.drill.proxy import Proxy
from poolproof.drill.started import Started
from poolproof.drill.stray import ANSWER
from poolproof.drill.target import Target

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FaultProxy"]


class FaultProxy(Started):
    """A way to a database that falls silent, breaks, lags or lies.

    Args:
        database: An engine, or a URL, of a PostgreSQL.

    Raises:
        UsageError: It is the URL of no PostgreSQL.

    Example:
        >>> with FaultProxy(engine) as proxy:  # doctest: +SKIP
        ...     slow = sqlalchemy.create_engine(proxy.url, poolclass=poolproof.Pool)
        ...     proxy.mute()
    """

    def __init__(self, database: str | URL | Engine) -> None:
        if isinstance(database, Engine):
            database = database.url
        if isinstance(database, URL):
            database = database.render_as_string(hide_password=False)
        self._target = Target.parse(database)
        _, plus, driver = make_url(database.strip()).drivername.partition("+")
        self._driver = f"postgresql{plus}{driver}"
        self._proxy = Proxy(self._target.address())

    def start(self) -> Self:
        """Begin to listen, on a free port of the loopback address."""
        self._proxy.start()
        return self

    def stop(self) -> None:
        """End every connection, and listen no more."""
        self._proxy.stop()

    @property
    def url(self) -> URL:
        """The URL of the same database, with the same driver, through this proxy."""
        return self._target.through(self._proxy.port).url.set(drivername=self._driver)

    @property
    def connections(self) -> int:
        """How many connections pass through it now."""
        return len(self._proxy.links)

    def mute(self) -> None:
        """Take what both sides send and deliver none of it: a peer that hangs.

        It is so for new connections as well, until `heal`.
        """
        self._proxy.stall()

    def delay(self, seconds: float) -> None:
        """Deliver every piece later, in both directions.

        Args:
            seconds: By how much; 0 or more.

        Raises:
            ValueError: It is below 0.
        """
        if not seconds >= 0:
            raise ValueError(f"a delay is 0 s or more, not {seconds!r}")
        self._proxy.delay(seconds)

    def heal(self) -> None:
        """Deliver what was held back, late, and pass everything on as it comes."""
        self._proxy.delay(0.0)
        self._proxy.resume()

    def drop(self) -> None:
        """Close every connection, as a server that ends, or a pooler that reaps."""
        for link in self._proxy.links:
            link.cut()

    def reset(self) -> None:
        """Break every connection with a reset, as the peer's machine would."""
        for link in self._proxy.links:
            link.reset()

    def inject(self, data: bytes = ANSWER) -> None:
        """Send to the service, on every connection, what its server never sent.

        Args:
            data: Messages of PostgreSQL's protocol; by default a whole answer of one
                row.

        Raises:
            OSError: A connection is gone.
        """
        for link in self._proxy.links:
            link.inject(data)
