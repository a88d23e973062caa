"""A real PgBouncer in front of a server, for as long as a ``with`` block.

The program comes from the system (Debian's package ``pgbouncer``). It listens on a
loopback port and on a unix socket in a temporary directory, asks for a password of
its own, and logs in to the server as the target says. When we are root, it runs as
the same unprivileged user as the embedded server.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import URL

from poolproof.drill.errors import SetupError
from poolproof.drill.supervised import Supervised
from poolproof.drill.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME: Final = "drill"
"""Its one database and its one user, who may also give orders to it."""

_SYSTEM: Final = ("/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer")
_SETTINGS: Final[dict[str, str | int]] = {
    "listen_addr": "127.0.0.1",
    "listen_port": "{port}",
    "unix_socket_dir": "{directory}",
    "auth_type": "scram-sha-256",
    "auth_file": "{directory}/users",
    "admin_users": NAME,
    "pool_mode": "transaction",
}


def program() -> str | None:
    """Return where PgBouncer is on this machine, or None."""
    found = shutil.which("pgbouncer")  # /usr/sbin is rarely on a user's path
    return found or next((path for path in _SYSTEM if os.access(path, os.X_OK)), None)


def lacks() -> str | None:
    """Say what is missing on this machine to start one, None when nothing is."""
    if program() is None:
        return "no PgBouncer (Debian's package pgbouncer)"
    return None


class Pooler(Supervised):
    """A PgBouncer in front of a server; see `Supervised` for its life.

    Args:
        target: The server behind it. Its user and password are PgBouncer's to log in.
        settings: Lines of the section ``[pgbouncer]`` of its ini file, over our own:
            ``pool_mode=transaction``, and PgBouncer's defaults.

    Example:
        >>> with Pooler(target, client_idle_timeout=1) as pooler:  # doctest: +SKIP
        ...     engine = stage.engine(pooler.target)
    """

    def __init__(self, target: Target, **settings: str | float) -> None:
        super().__init__("PgBouncer")
        self._server = target
        self._settings = settings
        self._password = secrets.token_urlsafe(18)

    def order(self) -> dict[str, Any]:
        """Return the supervisor's order.

        Raises:
            SetupError: There is no PgBouncer on this machine.
        """
        found = program()
        if found is None:
            raise SetupError("no PgBouncer: install Debian's package pgbouncer")
        lines = ["[databases]", f"{NAME} = {_connection(self._server)}", "[pgbouncer]"]
        settings = {**_SETTINGS, **_tls(self._server), **self._settings}
        lines += [f"{name} = {value}" for name, value in settings.items()]
        users = f'"{NAME}" "{self._password}"\n'
        files = {"users": users, "pgbouncer.ini": "\n".join(lines) + "\n"}
        return {"pooler": found, "files": files}

    @property
    def url(self) -> URL:
        """The URL of the server's database through it, without a driver."""
        return URL.create(
            "postgresql",
            username=NAME,
            password=self._password,
            host="127.0.0.1",
            port=self.port,
            database=NAME,
        )

    @property
    def unix_url(self) -> URL:
        """The same over its unix socket."""
        return self.url.set(host=None, query={"host": str(self.directory)})

    @property
    def target(self) -> Target:
        """The server's database, reached through it over TCP."""
        return Target(self.url).without_tls()

    def command(self, words: str) -> list[dict[str, Any]]:
        """Give it an order on its own console, such as ``PAUSE`` or ``SHOW CLIENTS``.

        Args:
            words: The order; PgBouncer's manual lists them.

        Returns:
            The rows of its answer, empty when it only obeys.
        """
        import psycopg  # noqa: PLC0415 (only who gives orders needs it)
        from psycopg.rows import dict_row  # noqa: PLC0415

        # Neither SQLAlchemy nor a transaction: the console knows no BEGIN.
        url = self.url.set(database="pgbouncer").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as console:
            cursor = console.execute(words.encode())
            return cursor.fetchall() if cursor.description else []


def _connection(target: Target) -> str:
    """Return how PgBouncer reaches the server: libpq's keywords, quoted its way."""
    address = target.address()
    words: Mapping[str, str | int | None] = {
        "host": str(Path(address.path).parent) if address.path else address.host,
        "port": address.port,
        "dbname": target.url.database or target.url.username,
        "user": target.url.username or os.environ.get("PGUSER"),
        "password": target.url.password or os.environ.get("PGPASSWORD"),
    }
    return " ".join(
        "{}='{}'".format(name, str(value).replace("'", "''"))
        for name, value in words.items()
        if value is not None
    )


def _tls(target: Target) -> dict[str, str]:
    """Return the settings for what the target says of TLS to the server."""
    query = target.url.query
    known = {"sslmode": "server_tls_sslmode", "sslrootcert": "server_tls_ca_file"}
    return {known[name]: str(query[name]) for name in known if name in query}
