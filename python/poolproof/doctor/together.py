"""Several engines of one process, examined at once: their connections add up."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from poolproof.doctor.errors import NoConnectionError
from poolproof.doctor.run import CONNECT_S, TOTAL_S, examine, meet_server

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from poolproof.doctor.check import Check
    from poolproof.doctor.run import Examination
    from poolproof.doctor.subject import Subject

__all__ = ["examine_together"]


def examine_together(
    subjects: Sequence[Subject],
    checks: Iterable[Check],
    *,
    ignore: Collection[str] = (),
) -> list[Examination]:
    """Examine engines of one process: those of one server share its slots.

    Args:
        subjects: An engine each. One whose server is not reached knows why.
        checks: The checks.
        ignore: Codes of those that are left out.

    Returns:
        For each what came of it. All together take no longer than one alone may.
    """
    until = time.monotonic() + TOTAL_S
    for subject in subjects:
        # The subject knows why; what can be seen without a server is looked at.
        with contextlib.suppress(NoConnectionError):
            meet_server(subject, min(CONNECT_S, max(0.1, until - time.monotonic())))
    servers: dict[str, list[Subject]] = {}
    for subject in subjects:
        if subject.server is not None:
            began = subject.server.facts["postmaster_began"]
            servers.setdefault(began, []).append(subject)
    for group in servers.values():
        pools = dict.fromkeys(pool for one in group for pool in one.pools)
        for subject in group:
            subject.pools = tuple(pools)
    chosen = tuple(checks)
    return [
        examine(subject, chosen, ignore=ignore, seconds=until - time.monotonic())
        for subject in subjects
    ]
