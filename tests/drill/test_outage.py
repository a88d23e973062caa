"""A silent peer: late is what is later than the machine, and all that is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import fields

import pytest

from poolproof.drill.incidents.hang import Stalling
from poolproof.drill.incidents.outage import OutageOutcome, suffer
from poolproof.drill.proxy import Proxy
from poolproof.drill.stage import Stage

BUSY = 4
BEHIND_S = 0.1


class Behind(Stage):
    """A stage whose deadlines come 100 ms late, as from a slow watchdog."""

    def deadline(self, seconds: float) -> AbstractContextManager[object]:
        return super().deadline(seconds + BEHIND_S)


@pytest.fixture
def busy() -> Iterator[None]:
    """Four processes that never rest."""
    loops = [
        subprocess.Popen([sys.executable, "-ISc", "while True: pass"])
        for _ in range(BUSY)
    ]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


def on_poolproof(stage: Stage, kind: type[Stage]) -> Stage:
    values = {field.name: getattr(stage, field.name) for field in fields(stage)}
    return kind(**{**values, "pool": "poolproof"})


def hang(stage: Stage) -> OutageOutcome:
    with Proxy(stage.target.address()) as proxy:
        return suffer(
            stage,
            Stalling(proxy, stage.target.through(proxy.port)),
            incident="hang",
            moments=("execute", "reset"),
            newcomers_at_ping=False,
        )


@pytest.mark.alone
def test_a_busy_machine_is_no_fault(stage, busy):
    outcome = hang(on_poolproof(stage, Stage))
    assert outcome.overdue == 0, outcome
    assert outcome.unusable == 0, outcome
    assert outcome.machine_ms >= 0


@pytest.mark.alone
def test_a_watchdog_that_is_100_ms_late_is_a_fault(stage):
    outcome = hang(on_poolproof(stage, Behind))
    assert outcome.overdue == 8, (
        outcome
    )  # those that execute; a reset has its own bound
    assert outcome.late_ms >= 100
