"""What the requests of a troupe came to, as most incidents count it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from poolproof.drill.incident import Outcome

if TYPE_CHECKING:
    from poolproof.drill.traffic import Account
    from poolproof.drill.troupe import Troupe


@dataclass(frozen=True, slots=True, kw_only=True)
class Served(Outcome):
    """The outcome of requests; each incident adds its own counts."""

    requests: int
    wrong: int
    lost: int
    ghosts: int
    hangs: int


class Counted(TypedDict):
    """The fields of `Served`."""

    requests: int
    wrong: int
    lost: int
    ghosts: int
    hangs: int
    samples: tuple[str, ...]
    heard: dict[str, int]
    took: dict[str, int]
    stuck: bool


def count(account: Account, troupe: Troupe) -> Counted:
    """Put together what the database and the troupe say."""
    return Counted(
        requests=account.requests,
        wrong=account.wrong,
        lost=account.lost,
        ghosts=account.ghosts,
        hangs=troupe.hangs,
        samples=account.samples,
        heard=account.heard,
        took=account.took,
        stuck=troupe.has_stuck_thread,
    )
