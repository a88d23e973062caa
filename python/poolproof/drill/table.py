"""The one table that a drill makes in the database, and takes away again."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from poolproof.drill.errors import SetupError
from poolproof.drill.stage import checked

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Engine
    from typing_extensions import Self

    from poolproof.drill.target import Target

_CONNECT_S = 5
_ENDED_WITHIN_MS = 2000


def reach(target: Target, driver: str) -> Engine:
    """Return an engine for the drill's own few statements, which gives up early."""
    url, arguments = target.for_driver(driver)
    name = "timeout" if driver == "pg8000" else "connect_timeout"
    arguments |= {"application_name": "poolproof drill", name: _CONNECT_S}
    return create_engine(url, poolclass=NullPool, connect_args=arguments)


def ask_version(target: Target, driver: str) -> str:
    """Connect once and return the server's version.

    Raises:
        SetupError: The server cannot be reached, or does not let us in.
    """
    try:
        with reach(target, driver).connect() as connection:
            return str(connection.execute(text("SHOW server_version")).scalar_one())
    except (SQLAlchemyError, OSError) as error:
        words = describe(error, target)
    # Outside of the block above: an error of a driver may quote what it was given.
    raise SetupError(f"cannot connect to {target.shown()} with {driver}: {words}")


def describe(error: BaseException, target: Target) -> str:
    """Return an error's own words in one line, without secrets."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    words = " ".join(str(cause).split()) or type(cause).__name__
    return target.redact(words)


class Table:
    """A table with a name that nobody else has; a context manager."""

    def __init__(self, target: Target, driver: str) -> None:
        self.name = f"poolproof_drill_{secrets.token_hex(6)}"
        self._target = target
        self._engine = reach(target, driver)

    def __enter__(self) -> Self:
        self.make()
        return self

    def make(self) -> None:
        """Create the table.

        Raises:
            SetupError: The database does not let us.
        """
        statement = f"CREATE TABLE {checked(self.name)} (id text PRIMARY KEY)"
        try:
            with self._engine.begin() as connection:
                connection.execute(text(statement))
        except (SQLAlchemyError, OSError) as error:
            raise SetupError(
                f"cannot create a table in {self._target.shown()}:"
                f" {describe(error, self._target)}"
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop the table, after ending what is left of the drill's sessions.

        Raises:
            SetupError: It could not be dropped, and nothing else went wrong.
        """
        try:
            self._drop()
        except (SQLAlchemyError, OSError) as failure:
            if error is None:
                raise SetupError(
                    f"cannot drop the table {self.name}:"
                    f" {describe(failure, self._target)}"
                ) from None

    def _drop(self) -> None:
        with self._engine.connect() as connection:
            with contextlib.suppress(DBAPIError):
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE starts_with(application_name, :tag)"
                    ),
                    {"tag": f"{self.name}."},
                )
            connection.rollback()
            connection.execute(text(f"SET lock_timeout = {_ENDED_WITHIN_MS}"))
            connection.execute(text(f"DROP TABLE IF EXISTS {checked(self.name)}"))
            connection.commit()
