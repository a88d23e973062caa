"""Whether a server lets in as many connections as several processes may open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from poolproof.control.server import SIZE
from poolproof.pool.deadlines import deadline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolproof.pool.pool import Pool

__all__ = ["Fit", "check"]

_PATIENCE_S = 5.0
# The start of the postmaster tells servers apart. PostgreSQL 16 has a second reserve.
_QUESTION = (
    "select pg_postmaster_start_time()::text,"
    " current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int"
)


class Fit(NamedTuple):
    """What one server would have to let in.

    Attributes:
        fits: Whether it does.
        sentence: The numbers, and what to do where it does not.
    """

    fits: bool
    sentence: str


def check(pools: Iterable[Pool], *, processes: int) -> list[Fit]:
    """Compare what may be opened with what each server lets in.

    One connection of each pool is opened, and closed again.

    Args:
        pools: Pools that each process has, shared by its threads.
        processes: How many processes, 1 or more.

    Returns:
        A finding for each server.

    Raises:
        Exception: Whatever connecting raises; it lasts no longer than some seconds.
    """
    wanted: dict[str, tuple[int, float]] = {}
    control: dict[str, int] = {}
    for pool in pools:
        if not pool.is_of_postgresql():
            continue
        server, slots = _ask(pool)
        stats = pool.stats()
        most = stats.size + stats.max_overflow
        total = float("inf") if stats.max_overflow < 0 else most
        own = SIZE if pool.settings.end_stranded_backends else 0
        control[server] = control.get(server, 0) + own
        wanted[server] = slots, wanted.get(server, (0, 0.0))[1] + total + own
    return [
        _find(slots, each, control[server], processes)
        for server, (slots, each) in wanted.items()
    ]


def _ask(pool: Pool) -> tuple[str, int]:
    was_used = pool.is_used
    with deadline(_PATIENCE_S):
        fairy: Any = pool.connect()
        try:
            cursor = fairy.cursor()
            cursor.execute(_QUESTION)
            server, slots = cursor.fetchone()
            cursor.close()
            fairy.rollback()
            # It is not to rest here: this may be a process that only forks.
            fairy.detach()
        finally:
            fairy.close()
    if not was_used:
        pool.dispose()  # its keeper is to open none, either
    return server, slots


def _find(slots: int, each: float, control: int, processes: int) -> Fit:
    if each == float("inf"):
        return Fit(
            False,
            f"max_overflow sets no bound, and the server has {slots} slots "
            "(max_connections without the reserved ones): give max_overflow a bound",
        )
    most = processes * each
    parts = "pool_size + max_overflow"
    if control:
        parts += f", and {control} of end_stranded_backends"
    sum_ = f"{processes} workers × {each:g} ({parts}) = {most:g} connections"
    server = "max_connections without the reserved ones"
    if most <= slots:
        return Fit(True, f"{sum_} fit into the server's {slots} slots ({server})")
    return Fit(
        False,
        f"{sum_}, but the server has {slots} slots ({server}): some requests will be "
        "refused under load; lower the pools, or put a pooler in between",
    )
