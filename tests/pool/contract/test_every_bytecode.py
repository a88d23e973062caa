"""An interruption at each bytecode of the pool and of SQLAlchemy's half of it.

A tracer raises `KeyboardInterrupt` before the n-th bytecode of a story, for each n, as
a signal or `PyThreadState_SetAsyncExc` may. Whatever the place: no slot is lost, no
connection has two owners, none is left open out of reach.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import sys
import weakref

import pytest
from sqlalchemy import exc
from sqlalchemy.pool.base import _ConnectionFairy

import poolproof
from plugins.bytecodes import Interruption
from plugins.dbapi import OperationalError, SocketDBAPI
from plugins.outages import fail_once, postpone, queued, under_way
from plugins.threads import eventually
from poolproof.pool import host_budget

TRACED = (
    "poolproof/drivers/connect_plan.py",
    "poolproof/drivers/known.py",
    "poolproof/pool/connector.py",
    "poolproof/pool/pool.py",
    "poolproof/pool/entry.py",
    "poolproof/pool/deadlines.py",
    "poolproof/fork/sockets.py",
    "poolproof/fork/renewal.py",
    "poolproof/pool/hold_warning.py",
    "poolproof/pool/host_budget.py",
    "poolproof/pool/idle_hold.py",
    "poolproof/pool/maintenance.py",
    "poolproof/pool/maintenance_thread.py",
    "poolproof/pool/sizing.py",
    "sqlalchemy/pool/base.py",
)

# Each bytecode, or every so many of them where another interpreter has had each.
STEP = int(os.environ.get("POOLPROOF_TEST_STEP", "1"))

pytestmark = [
    pytest.mark.each,  # no interpreter has another's bytecodes
    pytest.mark.difference,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Stage:
    """A pool of two connections over sockets, and the fairies that a story made."""

    def __init__(self, **parameters):
        self.dbapi = SocketDBAPI()
        # As real drivers: a connection that nobody refers to is closed.
        self.dbapi.open = weakref.WeakValueDictionary()
        self.pool = poolproof.Pool(
            self.dbapi.connect,
            **{"pool_size": 1, "max_overflow": 1, "timeout": 0, **parameters},
        )
        self.fairies = []

    def connect(self):
        fairy = self.pool.connect()
        self.fairies.append(fairy)
        return fairy


def one_idle(stage):
    stage.pool.connect().close()


def one_dead(stage):
    with stage.pool.connect() as fairy:
        peer = socket.socket(fileno=os.dup(fairy.dbapi_connection.peer))
        peer.shutdown(socket.SHUT_RDWR)
        peer.close()


def one_failed(stage):
    stage.dbapi.script["connect"] = OperationalError("down")
    fail_once(stage.pool)
    stage.dbapi.script.clear()
    postpone(stage.pool, 0.003)  # waits once


def two_idle(stage):
    for fairy in [stage.pool.connect(), stage.pool.connect()]:
        fairy.close()


def use(stage):
    stage.connect().close()


def use_two(stage):
    for fairy in [stage.connect(), stage.connect()]:
        fairy.close()


def drop(stage):
    stage.pool.connect()


def invalidate(stage):
    stage.connect().invalidate()


def detach(stage):
    fairy = stage.connect()
    fairy.detach()
    fairy.close()


def recycle(stage):
    stage.pool._recycle = 0
    stage.connect().close()


def grow_old(stage):
    idle = stage.pool._idle
    for slot in list(idle):
        idle[slot].expires_at = 1.0
    stage.connect().close()


def dispose(stage):
    stage.pool.dispose()


def drain(stage):
    stage.pool.drain()


def warm(stage):
    stage.pool.warm(2)


def resize(stage):
    stage.pool.resize(1, 1)  # of two that rest one is too many
    stage.pool.resize(2, 0)


STORIES = {
    "a new connection": (None, use),
    "a new connection after a failure": (one_failed, use),
    "an idle connection": (one_idle, use),
    "a connection beyond the size": (None, use_two),
    "a connection that died at rest": (one_dead, use),
    "a connection left to the collector": (one_idle, drop),
    "an invalidation": (one_idle, invalidate),
    "a detachment": (one_idle, detach),
    "a recycling": (one_idle, recycle),
    "a connection that grew too old": (one_idle, grow_old),
    "a hold that is watched": (one_idle, use),
    "connections kept ready": (one_idle, use),
    "a new connection of which one is kept ready": (None, use),
    "a disposal": (two_idle, dispose),
    "a draining": (one_idle, drain),
    "a draining without room": (two_idle, drain),
    "a warming": (None, warm),
    "a resizing": (two_idle, resize),
    "a hold of which each statement counts": (one_idle, use),
    "a new connection of the host's budget": (None, use),
    "an invalidation within the host's budget": (one_idle, invalidate),
}

# The same once more, or longer.
LONG = {
    "a draining without room",
    "a warming",
    "a resizing",
    "a hold of which each statement counts",
    "an invalidation within the host's budget",
}

PARAMETERS = {
    "a new connection after a failure": {"connect_retry_for": 5.0},
    "a disposal": {"pool_size": 2, "max_overflow": 0},
    "a hold that is watched": {"hold_warning": 600.0},
    "a draining without room": {"pool_size": 2, "max_overflow": 0},
    "a warming": {"pool_size": 2, "max_overflow": 0},
    "a resizing": {"pool_size": 2, "max_overflow": 0},
    "a hold of which each statement counts": {"idle_hold_timeout": 600.0},
    "a new connection of the host's budget": {"host_budget": "bytecodes:2"},
    "an invalidation within the host's budget": {"host_budget": "bytecodes:2"},
    # As many as the pool keeps: the keeper is asked, and finds nothing to open.
    "connections kept ready": {"min_idle": 1},
    "a new connection of which one is kept ready": {"min_idle": 1},
}


@pytest.fixture
def _quiet(caplog, monkeypatch, tmp_path):
    """SQLAlchemy logs interrupted closes; destructors cannot raise."""
    caplog.set_level("CRITICAL", logger="sqlalchemy.pool")
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setenv("POOLPROOF_BUDGET_DIR", str(tmp_path))
    # Each interruption leaves a share as one that is killed does.
    monkeypatch.setattr(host_budget, "_MOURNING_S", 0)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    "story",
    [
        pytest.param(story, marks=pytest.mark.soak if story in LONG else ())
        for story in STORIES
    ],
)
def test_difference_interruption_at_any_bytecode_loses_and_doubles_nothing(story):
    """QueuePool loses slots at a third of the places."""
    prepare, play = STORIES[story]
    if play is drop and not hasattr(_ConnectionFairy, "_finalizer"):
        # In its weak reference's callback, before the first line: the module keeps the
        # entry for ever.
        pytest.skip("SQLAlchemy 2.0's own finalizer can be lost")
    parameters = PARAMETERS.get(story, {})
    at = random.randint(1, STEP)  # noqa: S311 - no secret
    while True:
        stage = Stage(**parameters)
        if prepare is not None:
            prepare(stage)
        interruption = Interruption(at, TRACED)
        interruption.run(lambda stage=stage: play(stage))
        if interruption.place is None:
            break
        assert_sound(stage, interruption.place)
        at += STEP
    assert at > 100  # there was something to interrupt


def assert_sound(stage, place):
    """Take everything there is: beside the interrupted caller, then after it."""
    interrupted, stage.fairies = stage.fairies, []
    for fairy in interrupted:
        fairy.close()  # as a context manager does on the way out
    fairy = None
    stage.pool._connecting._next_at = 0.0  # nobody need wait for that now
    taken = []
    take_all(stage.pool, taken)
    mine = {id(fairy.dbapi_connection) for fairy in taken}
    assert mine.isdisjoint({id(fairy.dbapi_connection) for fairy in interrupted}), place
    interrupted.clear()
    gc.collect()  # SQLAlchemy's re-raising leaves cycles of frames

    def has_both():
        take_all(stage.pool, taken)
        return len(taken) == 2

    # The keeper may have one for the moment that it takes to open what is kept ready.
    eventually(has_both)
    assert len({id(fairy.dbapi_connection) for fairy in taken}) == 2, place
    assert not any(fairy.dbapi_connection.closed for fairy in taken), place
    while taken:
        taken.pop().close()
    eventually(lambda: stage.pool.checkedout() == 0)
    assert under_way(stage.pool) == queued(stage.pool) == 0, place
    assert stage.pool._connecting._rights.snapshot().lent == 0, place
    eventually(lambda: len(stage.dbapi.open) == stage.pool.checkedin())
    stage.pool.dispose()


def take_all(pool, taken):
    with contextlib.suppress(exc.TimeoutError):
        while True:
            taken.append(pool.connect())
