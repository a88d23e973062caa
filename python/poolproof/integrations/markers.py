"""A table that remembers what is done: a row for each finished step of a pipeline."""

from __future__ import annotations

import weakref
import zlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from poolproof.doctor.engines import engine_of
from poolproof.pool.deadlines import deadline

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.orm import Session, scoped_session

__all__ = ["Markers"]

# Of each engine: the tables that are known to be there. A child of the process keeps
# what its parent knew.
_made: weakref.WeakKeyDictionary[Engine, set[str]] = weakref.WeakKeyDictionary()
# The upper half of the number of the lock under which a table is made.
_LOCKS = 0x706F6F6C << 32


class Markers:
    """The marker table of one database, made when it is first needed.

    Its columns are those of `luigi.contrib.sqla`, so that an existing table can be used
    on.
    """

    def __init__(self, source: Any, name: str, *, within_s: float) -> None:
        """Name the table; nothing is asked yet.

        Args:
            source: An engine, or a session that has one.
            name: The table's name, with ``schema.`` in front where it has one.
            within_s: How long one use may take, in seconds, more than 0.

        Raises:
            TypeError: The source has no engine.
            ValueError: The engine is not one of PostgreSQL.
        """
        self._engine = engine_of(source)
        dialect = self._engine.dialect.name
        if dialect != "postgresql":
            msg = f"the marker table needs PostgreSQL, and the engine is of {dialect}"
            raise ValueError(msg)
        self._name = name
        self._within_s = within_s
        schema, _, short = name.rpartition(".")
        self._table = sa.Table(
            short,
            sa.MetaData(),
            sa.Column("update_id", sa.String(128), primary_key=True),
            sa.Column("target_table", sa.String(128)),
            sa.Column("inserted", sa.DateTime),
            schema=schema or None,
        )

    def has(self, update_id: str, target_table: str) -> bool:
        """Say whether something is marked as done.

        Args:
            update_id: What was done, at most 128 characters.
            target_table: Where, at most 128 characters.
        """
        columns = self._table.c
        query = sa.select(sa.literal(1)).where(
            columns.update_id == update_id, columns.target_table == target_table
        )
        with deadline(self._within_s):
            self._make()
            with self._engine.connect() as connection:
                return connection.scalar(query) is not None

    def add(
        self,
        update_id: str,
        target_table: str,
        within: Connection | Session | scoped_session[Any] | None = None,
    ) -> None:
        """Mark something as done; a second time renews the mark.

        Args:
            update_id: What was done, at most 128 characters.
            target_table: Where, at most 128 characters.
            within: A connection or session whose transaction the mark belongs to; None
                marks in a transaction of its own.

        Raises:
            ValueError: The same `update_id` marks another `target_table`.
        """
        with deadline(self._within_s):
            self._make()
            if within is None:
                with self._engine.begin() as connection:
                    self._insert(connection, update_id, target_table)
            else:
                if not isinstance(within, sa.Connection):
                    within = within.connection()
                self._insert(within, update_id, target_table)

    def _insert(self, connection: Connection, update_id: str, target: str) -> None:
        insert = postgresql.insert(self._table).values(
            update_id=update_id, target_table=target, inserted=sa.func.localtimestamp()
        )
        upsert = insert.on_conflict_do_update(
            index_elements=[self._table.c.update_id],
            set_={"inserted": insert.excluded.inserted},
            where=self._table.c.target_table == target,
        )
        if connection.execute(upsert).rowcount != 1:
            msg = (
                f"update_id {update_id!r} marks another table than {target!r} in "
                f"{self._name}: an update_id may be used once"
            )
            raise ValueError(msg)

    def _make(self) -> None:
        """Make the table unless it is there, in a transaction of its own."""
        made = _made.setdefault(self._engine, set())
        if self._name in made:
            return
        with self._engine.begin() as connection:
            table = self._table
            if not sa.inspect(connection).has_table(table.name, schema=table.schema):
                # IF NOT EXISTS alone is no help against another who makes it now: both
                # find it missing, and one fails in the catalogue. The lock alone is
                # none where the transaction sees the database as it was before it.
                number = _LOCKS | zlib.crc32(self._name.encode())
                lock = sa.func.pg_advisory_xact_lock(number)
                connection.execute(sa.select(lock))
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        made.add(self._name)
