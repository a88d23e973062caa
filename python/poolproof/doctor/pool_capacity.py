"""How many connections the pools of one process may open."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.pool import (
    AssertionPool,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)

from poolproof._sqlalchemy import parameters_of
from poolproof.control.server import SIZE
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolproof.doctor.deployment import Deployment
    from poolproof.doctor.subject import Subject

__all__ = ["PoolCapacity", "capacity_of"]

_UNBOUNDED: Final = float("inf")
# QueuePool's own, where nobody has said otherwise.
_DEFAULT_SIZE, _DEFAULT_OVERFLOW = 5, 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolCapacity:
    """What one process may open.

    Attributes:
        most: Connections; infinite where nothing bounds them.
        parts: What that is the sum of.
        unbounded_by: What sets no bound, where nothing does.
        is_assumed: Whether the pool is not known, and QueuePool's defaults were taken.
        host: What all processes of one machine may open, by `host_budget`.
    """

    most: float
    parts: str
    unbounded_by: str = ""
    is_assumed: bool = False
    host: float = _UNBOUNDED

    def together(self, deployment: Deployment) -> float:
        """Say what all processes may open.

        Args:
            deployment: How many there are.
        """
        return deployment.fleet * min(self.most * (deployment.workers or 1), self.host)

    def is_bound_by_host(self, deployment: Deployment) -> bool:
        """Tell whether `host_budget` is what bounds them.

        Args:
            deployment: How many processes there are.
        """
        return self.host < self.most * (deployment.workers or 1)


def capacity_of(subject: Subject) -> PoolCapacity:
    """Say how many connections one process of an application may open.

    Args:
        subject: Its pools, and how many threads a process has.
    """
    deployment = subject.deployment
    if not (subject.is_application or isinstance(subject.pool, Pool)):
        size = _or(deployment.pool_size, _DEFAULT_SIZE)
        overflow = _or(deployment.max_overflow, _DEFAULT_OVERFLOW)
        is_assumed = deployment.pool_size is None
        parts = "pool_size + max_overflow"
        return PoolCapacity(
            most=size + overflow,
            parts=f"{parts}, QueuePool's defaults" if is_assumed else parts,
            is_assumed=is_assumed,
        )
    words: set[str] = set()
    most, control, unbounded = 0.0, 0, ""
    for pool in subject.pools:
        own, what = _of_pool(pool, deployment.threads)
        if own == _UNBOUNDED:
            unbounded = what
        most += own
        words.add(what)
        settings = getattr(pool, "settings", None)
        if getattr(settings, "end_stranded_backends", False):
            control += SIZE
    parts = " and ".join(sorted(words))
    if len(subject.pools) > 1:
        parts += f" of {len(subject.pools)} pools"
    if control:
        parts += f", and {control} of end_stranded_backends"
    return PoolCapacity(
        most=most + control,
        parts=parts,
        unbounded_by=unbounded,
        host=_host(subject.pools, control * (deployment.workers or 1)),
    )


def _host(pools: Iterable[Any], control: int) -> float:
    """Say what `host_budget` lets all processes of a machine open.

    Args:
        pools: Of one process.
        control: Connections beside it, of all processes.
    """
    of_all: dict[str, int] = {}
    for pool in pools:
        budget = pool.budget if isinstance(pool, Pool) else None
        if budget is None:
            return _UNBOUNDED
        of_all[budget.path] = budget.most
    return control + sum(of_all.values()) if of_all else _UNBOUNDED


def _of_pool(pool: Any, threads: int | None) -> tuple[float, str]:
    if isinstance(pool, Pool):
        stats = pool.stats()
        return _queue(stats.size, stats.max_overflow)
    if isinstance(pool, QueuePool):
        given = parameters_of(pool)
        return _queue(given["pool_size"], given["max_overflow"])
    if isinstance(pool, (StaticPool, AssertionPool)):
        return 1, type(pool).__name__
    if isinstance(pool, (NullPool, SingletonThreadPool)):
        name = type(pool).__name__
        if threads is None:
            return 1, f"{name}, one a thread"
        return threads, f"{name}, one for each of {threads} threads"
    return _UNBOUNDED, type(pool).__name__


def _queue(size: int, overflow: int) -> tuple[float, str]:
    if size == 0:
        return _UNBOUNDED, "pool_size"
    if overflow < 0:
        return _UNBOUNDED, "max_overflow"
    return size + overflow, "pool_size + max_overflow"


def _or(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given
