"""What arrives at a StatsD socket."""

from __future__ import annotations

import contextlib
import gc
import re
import socket

import pytest

from metrics.names import EVERY
from metrics.test_otel import use_everything
from plugins.processes import run_in_fork
from plugins.threads import eventually
from poolproof.metrics.statsd import StatsD

LINE = re.compile(r"([\w.]+(?:\.[\w@/-]+)*):([\d.e+-]+)\|([cg])(?:\|#(.+))?")


_RCVBUFFORCE = 33  # Linux's; beyond what the system allows, for root alone


@pytest.fixture
def daemon():
    gc.collect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        # What pools of other tests have to say has room as well.
        for option in (socket.SO_RCVBUF, _RCVBUFFORCE):
            with contextlib.suppress(PermissionError):
                made.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
        made.bind(("127.0.0.1", 0))
        made.setblocking(False)
        yield made


def received(daemon, sender):
    """Send, and return (name, value, kind, tags) of each line that arrives."""
    sender.send()
    lines = []
    # On the loopback all of it has arrived by then.
    with contextlib.suppress(BlockingIOError):
        while True:
            packet = daemon.recv(65536)
            assert len(packet) <= 1400
            lines += packet.decode().split("\n")
    assert any(line.startswith("poolproof.info") for line in lines)
    found = []
    for line in lines:
        name, value, kind, tags = LINE.fullmatch(line).groups()
        labels = dict(tag.split(":", 1) for tag in (tags or "").split(",") if tag)
        found.append((name, float(value), kind, labels))
    return found


@pytest.fixture
def sender(daemon):
    return StatsD("127.0.0.1", daemon.getsockname()[1])


def test_every_name_arrives_and_no_other(daemon, sender, make_pool, tmp_path):
    budget = ("sent", 40, str(tmp_path))
    pool = make_pool(logging_name="sent", host_budget=budget)
    use_everything(pool)
    arrived = {
        re.sub(r"\.(count|sum|p\d\d)$", "", name)
        for name, *_ in received(daemon, sender)
    }
    wanted = {name.replace("_", ".", 1) for name in EVERY}
    # No lease is held here, and no loop has waited, but perhaps in another test.
    elsewhere = {"poolproof.lease_left_seconds", "poolproof.loop_lag_seconds"}
    assert arrived - elsewhere == wanted - elsewhere


def test_counters_are_what_was_gained(daemon, sender, make_pool):
    pool = make_pool(logging_name="gained")

    def checkouts():
        return [
            (value, kind)
            for name, value, kind, labels in received(daemon, sender)
            if name == "poolproof.checkouts_total"
            and labels == {"pool": "gained", "waited": "false"}
        ]

    pool.connect().close()
    pool.connect().close()
    assert checkouts() == [(2, "c")]
    pool.connect().close()
    assert checkouts() == [(1, "c")]
    assert checkouts() == [(0, "c")]


def test_quantiles_are_gauges(daemon, sender, make_pool):
    pool = make_pool(logging_name="quantiles")
    pool.totals.timings.record_ping(0.02)
    found = {
        name: (value, kind)
        for name, value, kind, labels in received(daemon, sender)
        if labels.get("pool") == "quantiles" and name.startswith("poolproof.ping")
    }
    value, kind = found["poolproof.ping_seconds.p95"]
    assert kind == "g"
    assert 0.01 <= value <= 0.025
    assert found["poolproof.ping_seconds.count"] == (1, "c")


def test_without_tags_labels_stand_behind_the_name(daemon, make_pool):
    make_pool(logging_name="app@db.host").connect().close()
    sender = StatsD("127.0.0.1", daemon.getsockname()[1], tags=False)
    names = {name for name, *_ in received(daemon, sender)}
    assert "poolproof.connections.app@db_host.idle" in names


def test_it_sends_by_itself_until_it_is_stopped(daemon, make_pool):
    make_pool(logging_name="by itself").connect().close()
    daemon.settimeout(60)
    sender = StatsD("127.0.0.1", daemon.getsockname()[1], every_s=0.02)
    sender.start()
    assert daemon.recv(65536)
    assert daemon.recv(65536)
    sender.stop()
    eventually(lambda: not sender._thread.runs)


def test_a_child_begins_by_itself(daemon, make_pool):
    """What was started before a fork goes on in the child, with the child's numbers."""
    sender = StatsD("127.0.0.1", daemon.getsockname()[1], every_s=0.02)
    parents = make_pool(logging_name="of the parent")
    parents.connect().close()
    sender.start()

    def child():
        make_pool(logging_name="of the child").connect().close()
        daemon.settimeout(60)
        while "of_the_child" not in daemon.recv(65536).decode():
            pass
        return sender._thread.runs

    try:
        assert run_in_fork(child).assert_silent().result
    finally:
        sender.stop()


def test_one_that_was_stopped_may_be_started_again(daemon, make_pool):
    pool = make_pool(logging_name="again")
    daemon.settimeout(60)
    sender = StatsD("127.0.0.1", daemon.getsockname()[1], every_s=0.02)
    sender.start()
    sender.stop()
    pool.connect().close()
    eventually(lambda: not sender._thread.runs)  # it does not begin by itself
    sender.start()
    assert daemon.recv(65536)
    sender.stop()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"port": 0}, ValueError),
        ({"port": 65536}, ValueError),
        ({"port": "8125"}, TypeError),
        ({"every_s": 0}, ValueError),
        ({"every_s": float("nan")}, ValueError),
    ],
)
def test_bad_numbers_are_refused(wrong, error):
    with pytest.raises(error):
        StatsD(**wrong)
