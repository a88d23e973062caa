"""`postgresql+poolproof` for `create_engine`."""

from __future__ import annotations

import importlib
import itertools
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.dialects.postgresql import CITEXT

from poolproof import driver
from poolproof._sqlalchemy import psycopg_dialect
from poolproof.dialect.types import COLSPECS
from poolproof.driver.oids import BY_NAME
from poolproof.faults.error_info import read
from poolproof.faults.table import judge
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy import URL, pool

__all__ = ["PoolproofDialect"]

_log = logging.getLogger("sqlalchemy.dialects.postgresql")
# What SQLAlchemy shares between psycopg2 and psycopg.
_BaseDialect, _BaseContext = psycopg_dialect()
_numbers = itertools.count(1)
_IDLE = 0
_ISOLATION = (
    "READ COMMITTED",
    "READ UNCOMMITTED",
    "REPEATABLE READ",
    "SERIALIZABLE",
)


def _tell_notice(said: driver.Diagnostics) -> None:
    _log.info("%s: %s", said.severity, said.message_primary)


class PoolproofContext(_BaseContext):  # type: ignore[misc, valid-type]  # made there
    """Executes one statement."""

    def create_server_side_cursor(self) -> Any:
        """Make a cursor that the server keeps."""
        name = f"poolproof_{id(self):x}_{next(_numbers):x}"
        return self.root_connection.connection.cursor(name)


class PoolproofDialect(_BaseDialect):  # type: ignore[misc, valid-type]  # made there
    """SQLAlchemy's PostgreSQL on `poolproof.driver`, with `poolproof.Pool`."""

    driver = "poolproof"
    supports_statement_cache = True
    supports_server_side_cursors = True
    supports_sane_multi_rowcount = True
    supports_native_json_serialization = True
    supports_native_json_deserialization = True
    dialect_injects_custom_json_deserializer = True
    default_paramstyle = "pyformat"
    execution_ctx_cls = PoolproofContext
    poolclass = Pool

    colspecs: ClassVar[dict[Any, Any]] = {
        **_BaseDialect.colspecs,
        **COLSPECS,
        CITEXT: CITEXT,
    }

    def __init__(
        self,
        json_serializer: Any = None,
        json_deserializer: Any = None,
        native_inet_types: bool | None = None,
        **options: Any,
    ) -> None:
        """Make the dialect of an engine.

        Args:
            json_serializer: Makes a text of a JSON value; None for `json.dumps`.
            json_deserializer: Makes a value of a JSON text; None for `json.loads`.
            native_inet_types: False has `inet` and `cidr` come as texts.
            options: Those of SQLAlchemy's PostgreSQL dialects.
        """
        super().__init__(
            json_serializer=json_serializer,
            json_deserializer=json_deserializer,
            native_inet_types=native_inet_types,
            **options,
        )
        self.adapters = ways = driver.Adapters(driver.adapters)
        if json_serializer is not None:
            ways.json_dumps = json_serializer
        if json_deserializer is not None:
            ways.load_json(json_deserializer)
        if native_inet_types is False:
            for name in ("inet", "cidr"):
                ways.load(BY_NAME[name].oid, str, BY_NAME[name].array_oid)

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the driver."""
        return driver

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[PoolproofDialect]:
        """Return the dialect of `create_async_engine`.

        Args:
            url: The engine's.
        """
        del url
        # It stands on this one, and needs greenlet, which a sync engine does not.
        aio = importlib.import_module("poolproof.dialect.aio")
        found: type[PoolproofDialect] = aio.PoolproofDialectAsync
        return found

    @classmethod
    def load_provisioning(cls) -> None:
        """Have SQLAlchemy's test suite know how databases are made for it."""
        __import__("sqlalchemy.dialects.postgresql.provision")

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        """Say what the driver is given.

        Args:
            url: The engine's.
        """
        arguments, keywords = super().create_connect_args(url)
        keywords["adapters"] = self.adapters
        keywords["pipeline"] = True
        if self.client_encoding is not None:
            keywords["client_encoding"] = self.client_encoding
        return arguments, keywords

    def initialize(self, connection: Any) -> None:
        """Find out what the server can do, and whether it has hstore.

        Args:
            connection: The first one.
        """
        super().initialize(connection)
        if not self.insert_returning:
            self.insert_executemany_returning = False
        if self.use_native_hstore:
            raw = connection.connection.dbapi_connection
            info = raw.type_info("hstore")
            self._has_native_hstore = info is not None
            if info is not None:
                driver.register_type(info, self.adapters)

    def on_connect(self) -> Any:
        """Return what is called with each new connection."""
        level = self.isolation_level

        def prepare(connection: driver.Connection) -> None:
            connection.add_notice_handler(_tell_notice)
            if level is not None:
                self.set_isolation_level(connection, level)

        return prepare

    # --- transactions ---------------------------------------------------------------

    def get_isolation_level_values(self, dbapi_connection: Any) -> tuple[str, ...]:
        """Name the isolation levels.

        Args:
            dbapi_connection: Any.
        """
        del dbapi_connection
        return ("AUTOCOMMIT", *_ISOLATION)

    def get_isolation_level(self, dbapi_connection: Any) -> str:
        """Ask the server for the isolation level.

        Args:
            dbapi_connection: Whose.
        """
        was_idle = dbapi_connection.info.transaction_status == _IDLE
        value: str = super().get_isolation_level(dbapi_connection)
        if was_idle:
            dbapi_connection.rollback()
        return value

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        """Set the isolation level of the transactions to come.

        Args:
            dbapi_connection: Whose.
            level: One of `get_isolation_level_values`.
        """
        is_autocommit = level == "AUTOCOMMIT"
        dbapi_connection.autocommit = is_autocommit
        dbapi_connection.isolation_level = None if is_autocommit else level

    def set_readonly(self, connection: Any, value: bool) -> None:
        """Have the transactions to come read alone, or write too.

        Args:
            connection: Whose.
            value: Whether they read alone.
        """
        connection.read_only = value

    def get_readonly(self, connection: Any) -> bool | None:
        """Say whether transactions were set to read alone.

        Args:
            connection: Whose.
        """
        found: bool | None = connection.read_only
        return found

    def _twophase_idle_check(self, dbapi_conn: Any) -> bool:
        return bool(dbapi_conn.info.transaction_status == _IDLE)

    # --- whether a connection is good -----------------------------------------------

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Ask for a sign of life: no statement, and no transaction.

        Args:
            dbapi_connection: Which.
        """
        dbapi_connection.ping()
        return True

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Tell whether an error means that the connection is of no use any more.

        The driver knows whether it is lost; the fault table knows which errors a
        connection does not outlive.

        Args:
            e: The driver's error.
            connection: The connection; None where there is none yet.
            cursor: The cursor, or None.
        """
        del cursor
        if not isinstance(e, driver.Error):
            return False
        if connection is not None and (
            connection.closed or not connection.wire.is_ours
        ):
            return True
        # Whether one that refuses to write was so from its start, or is a standby by
        # now, the guard finds out: here it costs nothing.
        return judge(read(e, self.driver), read_only="chosen").cost != "nothing"

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        """Return the pool of engines that name none.

        Args:
            url: The engine's.
        """
        del url
        return cls.poolclass
