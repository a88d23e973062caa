"""A PostgreSQL driver by PEP 249, on a wire of its own. It is experimental.

    import poolproof.driver

    with poolproof.driver.connect("postgresql://localhost/shop") as connection:
        cursor = connection.execute("select name from wares where price < %s", [10])
        for (name,) in cursor:
            ...

SQLAlchemy knows it by the name ``postgresql+poolproof``. docs/driver.md says what it
does, and what it does not.
"""

from __future__ import annotations

from poolproof import _native
from poolproof.driver.adapters import Adapters, adapters
from poolproof.driver.connection import Connection, Notify
from poolproof.driver.connector import connect
from poolproof.driver.copy import Copy
from poolproof.driver.cursor import Cursor
from poolproof.driver.description import Described
from poolproof.driver.errors import (
    DatabaseError,
    DataError,
    Diagnostics,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PipelineAborted,
    ProgrammingError,
    Warning,  # noqa: A004 - PEP 249's name
)
from poolproof.driver.info import ConnectionInfo
from poolproof.driver.pipeline import Pipeline
from poolproof.driver.ranges import MultiRange, Range
from poolproof.driver.server_cursor import ServerCursor
from poolproof.driver.type_info import TypeInfo, register_type
from poolproof.driver.wrappers import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    Date,
    DateFromTicks,
    Json,
    Jsonb,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
)
from poolproof.driver.xid import Xid

__version__ = _native.__version__

apilevel = "2.0"
# Threads may share the module and connections.
threadsafety = 2
paramstyle = "pyformat"

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Adapters",
    "Binary",
    "Connection",
    "ConnectionInfo",
    "Copy",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Described",
    "Diagnostics",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "Json",
    "Jsonb",
    "MultiRange",
    "NotSupportedError",
    "Notify",
    "OperationalError",
    "Pipeline",
    "PipelineAborted",
    "ProgrammingError",
    "Range",
    "ServerCursor",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "TypeInfo",
    "Warning",
    "Xid",
    "adapters",
    "apilevel",
    "connect",
    "paramstyle",
    "register_type",
    "threadsafety",
]
