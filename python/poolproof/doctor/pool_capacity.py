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
    """

    most: float
    parts: str
    unbounded_by: str = ""
    is_assumed: bool = False


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
    return PoolCapacity(most=most + control, parts=parts, unbounded_by=unbounded)


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
