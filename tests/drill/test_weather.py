"""Bad weather: too many callers, a server that refuses, sleeps, or may only be read."""

from __future__ import annotations

import threading

import pytest

from plugins.drills import play
from plugins.threads import eventually
from poolproof.drill.incidents import overload, read_only, refused

WEATHER = ("refused", "cold-start", "read-only")


def by_pool(report: dict, incident: str) -> dict[str, dict]:
    return {
        row["pool"]: row["totals"]
        for row in report["rows"]
        if row["incident"] == incident
    }


def test_outages_and_mistakes_are_told_as_what_they_are(url):
    """One run for all of it: most of it is waiting."""
    chosen = (f"--incident={name}" for name in WEATHER)
    _, report, err = play(url, "--driver=psycopg2", "--jobs=6", *chosen)
    assert report["faults"] == {"queue": 0, "poolproof": 0}, err

    pools = by_pool(report, "refused")
    queue, ours = pools["queue"], pools["poolproof"]
    assert queue["answers"] > 20
    assert queue["knocks"] > 20
    assert ours["kept"] == ours["hangs"] == 0, err
    assert ours["knocks"] < queue["knocks"] / 2

    mistakes = read_only.CLIENTS * read_only.REQUESTS / read_only.MISTAKE_EVERY
    for pool, totals in by_pool(report, "read-only").items():
        assert totals["mistakes"] == mistakes, (pool, err)
        assert totals["sessions"] == read_only.CLIENTS, (pool, err)

    for pool, totals in by_pool(report, "cold-start").items():
        assert totals["served"] == 8, (pool, err)
        assert totals["last_ms"] > 7000


@pytest.mark.alone
def test_a_crowd_is_held_against_what_can_be_served_meanwhile(url):
    chosen = ("--incident=overload", "--trials=1")
    _, report, err = play(url, "--driver=psycopg2", *chosen)
    assert report["faults"]["queue"] == 0, err
    assert report["faults"]["poolproof"] == 0, err
    for totals in by_pool(report, "overload").values():
        assert 0 < totals["in_time"] <= 1.2 * totals["capacity"]
        assert totals["refused"] > 0


def test_a_door_that_nobody_opens_refuses_and_then_lets_in():
    free = refused._nobody_listens(0)
    port = free.getsockname()[1]
    free.close()
    with refused._nobody_listens(port) as door:
        with pytest.raises(ConnectionRefusedError):
            refused.socket.create_connection(("127.0.0.1", port))
        door.listen()
        refused.socket.create_connection(("127.0.0.1", port)).close()


def test_a_crowd_served_in_strict_order_too_late_is_missed(stage):
    """A pool that makes everybody wait for longer than he has patience."""

    class Late:
        """An engine whose connections come when nobody waits for them any more."""

        def connect(self):
            threading.Event().wait(2 * overload.PATIENCE_S)
            return stage.witness().connect()

    crowd = overload._Crowd(Late(), 0.5)  # type: ignore[arg-type]
    callers = [threading.Thread(target=crowd.call, args=(n,)) for n in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    eventually(lambda: not any(caller.is_alive() for caller in callers))
    assert sum(crowd.in_time) == 0
