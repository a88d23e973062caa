"""Requests and their account: what is lost, what is a ghost, what is wrong."""

from __future__ import annotations

import os
import threading

import pytest
from sqlalchemy import text

from plugins.threads import eventually
from poolproof.drill.player import Player, Report
from poolproof.drill.traffic import request, settle


@pytest.fixture
def player():
    read, write = os.pipe()
    player = Player("player", read)
    yield player, Report(write)
    os.close(write)
    player.end()


def listen(player: Player) -> None:
    player.listen(player.reports)


def write(stage, row: str) -> None:
    with stage.witness().begin() as connection:
        connection.execute(stage.insert(), {"id": row})


def test_requests_on_a_pool_of_ones_own_go_well(stage, player):
    player, report = player
    engine = stage.engine()
    for n in range(10):
        request(engine, stage, report, "player", n)
    engine.dispose()
    listen(player)
    account = settle(stage, [player])
    assert account.requests == 10
    assert account.wrong == account.lost == account.ghosts == account.errors == 0
    assert len(player.values("committed")) == 8
    assert len(player.values("never")) == 2


def test_a_reported_commit_without_its_row_is_lost(stage, player):
    player, report = player
    write(stage, "there")
    report.say("committed", "there")
    report.say("committed", "not there")
    listen(player)
    assert settle(stage, [player]).lost == 1


def test_a_row_that_nobody_committed_is_a_ghost(stage, player):
    player, report = player
    write(stage, "there")
    report.say("never", "there")
    report.say("never", "not there")
    listen(player)
    assert settle(stage, [player]).ghosts == 1


def test_a_commit_that_raised_may_have_happened_or_not(stage, player):
    player, report = player
    write(stage, "there")
    report.say("unknown", "there")
    report.say("unknown", "not there")
    listen(player)
    account = settle(stage, [player])
    assert account.lost == account.ghosts == 0


def test_a_request_on_a_dead_connection_is_an_error_and_commits_nothing(stage, player):
    player, report = player
    engine = stage.engine(pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with stage.witness().begin() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    gone = text("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = :pid")
    with stage.witness().connect() as other:
        others = other.execution_options(isolation_level="AUTOCOMMIT")
        eventually(lambda: others.execute(gone, {"pid": pid}).scalar_one())
    request(engine, stage, report, "player", 0)
    engine.dispose()
    listen(player)
    account = settle(stage, [player])
    assert account.errors == 1
    assert player.values("unanswered") == [""]
    assert account.lost == account.ghosts == 0


def test_a_commit_that_is_still_under_way_is_waited_for(stage, player):
    player, report = player
    engine = stage.engine()
    at_work = threading.Event()

    def slow() -> None:
        with engine.begin() as connection:
            connection.execute(stage.insert(), {"id": "late"})
            at_work.set()
            connection.execute(text("SELECT pg_sleep(1.5)"))

    thread = threading.Thread(target=slow)
    thread.start()
    assert at_work.wait(20)
    eventually(lambda: not stage.is_idle())
    report.say("committed", "late")
    listen(player)
    account = settle(stage, [player])
    thread.join()
    engine.dispose()
    assert account.lost == 0
