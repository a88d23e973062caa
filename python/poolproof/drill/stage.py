"""Where one trial plays: its pool, its table, and what is true in the end."""

from __future__ import annotations

import random
import re
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, text
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool

from poolproof.drill.errors import UsageError
from poolproof.drill.pace import is_over
from poolproof.drill.target import DRIVERS, OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine, TextClause
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import Pool

    from poolproof.drill.target import Target

POOLS: Final = ("queue", "poolproof")
"""The pools that are compared, as `--pool` names them."""

_NAME: Final = re.compile(r"poolproof_drill_[0-9a-f]{12}")
_SETTLE_S: Final = 3.0
_QUIET_LOOKS: Final = 2
_LOOK_S: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What an incident may use; nothing of it is shared with another trial."""

    target: Target
    driver: str
    pool: str
    table: str
    seed: int
    trial: int
    incident: str = "service"
    full: bool = False
    """Whether an incident lasts as long as in life, and not for a quick look."""

    @cached_property
    def tag(self) -> str:
        """The ``application_name`` of this trial's sessions; unique in the run.

        Short, so that what an integration puts behind it is not cut off.
        """
        cell = f"{self.incident[:6]}.{self.driver}.{self.pool[0]}.{self.trial}"
        return f"{self.table}.{cell}"

    @cached_property
    def rng(self) -> random.Random:
        """Chance that is the same for both pools, and the same for one seed."""
        return random.Random(f"{self.seed}/{self.driver}/{self.trial}")  # noqa: S311

    def poolclass(self) -> type[Pool]:
        """Return the pool's class; the one thing in which the two runs differ."""
        if self.pool == "queue":
            return QueuePool
        from poolproof import Pool  # noqa: PLC0415 (QueuePool's trials go without)

        return Pool

    def async_poolclass(self) -> type[Pool]:
        """Return the class of the pool of asyncio's."""
        if self.pool == "queue":
            return AsyncAdaptedQueuePool
        from poolproof import AsyncPool  # noqa: PLC0415 (QueuePool's trials go without)

        return AsyncPool

    def engine(
        self,
        target: Target | None = None,
        *,
        knobs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Engine:
        """Make an engine with the pool that is drilled.

        Args:
            target: Where to connect instead of the stage's own target.
            knobs: Parameters that only `poolproof.Pool` has; `QueuePool` goes without.
            options: For `sqlalchemy.create_engine`.
        """
        if self.pool == "poolproof":
            options |= knobs or {}
        return self._create(target or self.target, self.poolclass(), self.tag, options)

    def async_engine(
        self,
        target: Target | None = None,
        *,
        knobs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncEngine:
        """Make an async engine with the pool of that kind that is drilled.

        Args:
            target: Where to connect instead of the stage's own target.
            knobs: Parameters that only `poolproof.AsyncPool` has.
            options: For `sqlalchemy.ext.asyncio.create_async_engine`.
        """
        # Here, for it needs greenlet, which the other incidents do without.
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

        if self.pool == "poolproof":
            options |= knobs or {}
        url, arguments = (target or self.target).for_driver(self.driver)
        named: dict[str, Any] = {"application_name": self.tag}
        if self.driver == "asyncpg":
            named = {"server_settings": named}
        return create_async_engine(
            url,
            connect_args=arguments | named,
            poolclass=self.async_poolclass(),
            **options,
        )

    def deadline(self, seconds: float) -> AbstractContextManager[object]:
        """Bound every database call inside the block, where the pool can.

        Args:
            seconds: From now; `QueuePool` knows no such thing, so there it is nothing.
        """
        if self.pool == "queue":
            return nullcontext()
        import poolproof  # noqa: PLC0415 (QueuePool's trials go without)

        return poolproof.deadline(seconds)

    def witness(self) -> Engine:
        """Make an engine that shares nothing: a new connection each time."""
        return self._create(self.target, NullPool, f"{self.tag}.witness"[-63:], {})

    @cached_property
    def _sync_driver(self) -> str:
        """The stage's; where that is of asyncio alone, the first one that is there."""
        if self.driver in (*DRIVERS, OWN):
            return self.driver
        return next((name for name in DRIVERS if find_spec(name)), DRIVERS[0])

    def _create(
        self, target: Target, poolclass: type[Pool], tag: str, options: dict[str, Any]
    ) -> Engine:
        url, arguments = target.for_driver(self._sync_driver)
        arguments |= options.pop("connect_args", {})
        arguments["application_name"] = tag
        return create_engine(
            url, connect_args=arguments, poolclass=poolclass, **options
        )

    def insert(self) -> TextClause:
        """Return the statement that writes the row ``:id``."""
        return text(f"INSERT INTO {checked(self.table)} (id) VALUES (:id)")  # noqa: S608 (the name is checked)

    def is_idle(self) -> bool:
        """Tell whether the server has nothing to do for this trial's sessions."""
        with self.witness().connect() as connection:
            return not connection.execute(_BUSY, {"tag": self.tag}).scalar_one()

    def present(self, ids: Iterable[str]) -> set[str]:
        """Return which of these rows the database really holds.

        Waits first until none of the trial's sessions is still at work, so that a
        commit which merely runs late is not called lost.
        """
        since = time.monotonic()
        with self.witness().connect() as connection:
            quiet = 0
            while quiet < _QUIET_LOOKS and not is_over(since, _SETTLE_S):
                busy = connection.execute(_BUSY, {"tag": self.tag}).scalar_one()
                connection.rollback()
                quiet = 0 if busy else quiet + 1
                time.sleep(_LOOK_S)
            query = text(f"SELECT id FROM {checked(self.table)} WHERE id = ANY(:ids)")  # noqa: S608 (the name is checked)
            return set(connection.execute(query, {"ids": list(ids)}).scalars())


_BUSY: Final = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = :tag"
    " AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'"
)


def checked(table: str) -> str:
    """Return a table's name that is one of ours, safe to stand in a statement."""
    if not _NAME.fullmatch(table):
        raise UsageError(f"not a table of the drill: {table!r}")
    return table
