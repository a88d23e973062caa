"""Requests as a service makes them: ask, check the answer, write, commit.

Each query asks for a token that nobody else asks for, and each row has an id that
nobody else writes; so an answer to somebody else's question, a commit that was none
and a row that nobody committed can all be told afterwards.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from poolproof.drill.latency import by_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Engine

    from poolproof.drill.player import Player, Report
    from poolproof.drill.stage import Stage

_ASK: Final = text("SELECT CAST(:token AS text)")
_ROLLED_BACK_EVERY: Final = 5
_SAMPLES_MAX: Final = 5
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")
_OWN_NAMES: Final = re.compile(r"poolproof_drill_[0-9a-f]{12}[^\s'\"]*")


def warm(engine: Engine, size: int) -> None:
    """Open so many connections, use each once, and give all of them back."""
    connections = [engine.connect() for _ in range(size)]
    for connection in connections:
        connection.execute(_ASK, {"token": "warm"})
    for connection in connections:
        connection.close()


def request(engine: Engine, stage: Stage, report: Report, name: str, n: int) -> bool:
    """Serve one request on a pooled connection; report what came of it.

    Every fifth request rolls back what it wrote: that row must never appear.

    Args:
        engine: The engine whose pool is drilled.
        stage: Gives the statement and the trial's own prefix.
        report: Where to tell.
        name: The player's name, part of token and row id.
        n: The request's number, ≥ 0.

    Returns:
        Whether it ended without an exception.
    """
    token = f"{stage.tag}/{name}/{n}"
    answered = served = False
    began = time.monotonic()
    intent = "never"
    try:
        with engine.connect() as connection:
            report.say("connected")
            rows = [tuple(row) for row in connection.execute(_ASK, {"token": token})]
            answered = True
            report.say("answered")
            if rows != [(token,)]:
                report.say("wrong", f"asked for {token}, got {rows}")
            connection.execute(stage.insert(), {"id": token})
            report.say("written")
            if n % _ROLLED_BACK_EVERY == _ROLLED_BACK_EVERY - 1:
                connection.rollback()
            else:
                intent = "unknown"
                connection.commit()
                intent = "committed"
        served = True
    except Exception as error:  # noqa: BLE001 (every surfaced error is counted)
        report.error(error)
    report.say("took", repr(time.monotonic() - began))
    if not answered:
        report.say("unanswered")
    report.say(intent, token)
    return served


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the requests of some players came to."""

    requests: int
    wrong: int
    lost: int
    ghosts: int
    errors: int
    samples: tuple[str, ...]
    heard: dict[str, int]
    took: dict[str, int]


def settle(stage: Stage, players: Iterable[Player]) -> Account:
    """Hold what the players reported against what the database holds.

    Args:
        stage: The trial's stage, its players at an end.
        players: Who made requests.

    Returns:
        The account: *lost* are rows whose commit was reported as done and that are
        not there; *ghosts* are rows that nobody tried to commit and that are there.
    """
    cast = list(players)
    committed = [token for p in cast for token in p.values("committed")]
    never = [token for p in cast for token in p.values("never")]
    errors = [error for p in cast for error in p.values("error")]
    wrong = [answer for p in cast for answer in p.values("wrong")]
    present = stage.present([*committed, *never])
    return Account(
        requests=sum(
            len(p.values("answered")) + len(p.values("unanswered")) for p in cast
        ),
        wrong=len(wrong),
        lost=sum(token not in present for token in committed),
        ghosts=sum(token in present for token in never),
        errors=len(errors),
        samples=pick(wrong, errors),
        heard=texts(errors),
        took=by_step(float(took) for p in cast for took in p.values("took")),
    )


def pick(*kinds: list[str]) -> tuple[str, ...]:
    """Return a few different messages of each kind, for people to look at."""
    return tuple(
        message
        for kind in kinds
        for message in list(dict.fromkeys(kind))[:_SAMPLES_MAX]
    )


def texts(errors: Iterable[str]) -> dict[str, int]:
    """Return different error texts, each with how often it was told.

    Args:
        errors: As callers got them; the names that the drill gives to rows and
            sessions are taken out.
    """
    return added_up(Counter(_OWN_NAMES.sub("…", error) for error in errors))


def added_up(*counts: Mapping[str, int]) -> dict[str, int]:
    """Add up texts with their counts, most frequent first.

    Those that differ in numbers alone (a time, a port, an address) are one: the first.
    """
    first: dict[str, str] = {}
    every: Counter[str] = Counter()
    for count in counts:
        for words, times in count.items():
            every[first.setdefault(_NUMBERS.sub("#", words), words)] += times
    return dict(every.most_common())
