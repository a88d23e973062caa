"""A child of a fork cannot use its parent's connection, and does no harm to it."""

from __future__ import annotations

import gc
import threading

import pytest

from plugins.processes import said_in_fork
from poolproof._native import WireError

pytestmark = pytest.mark.fork


@pytest.mark.parametrize("tls", [False, True])
def test_a_child_cannot_use_it_and_its_parent_goes_on(
    tls, debian_pg, make_wire, observer
):
    wire = make_wire(url=debian_pg.url("psycopg2") if tls else None)
    wire.execute("select 1", begin="BEGIN")

    def use() -> str:
        said = []
        for verb in (
            lambda: wire.execute("select 1"),
            wire.commit,
            wire.rollback,
            wire.ping,
            wire.cancel,
        ):
            try:
                verb()
            except WireError as error:
                said.append(error.kind)
        wire.close()
        said.append(str(wire.is_ours))
        return " ".join(said)

    assert said_in_fork(use) == "forked " * 5 + "False"
    assert wire.status == "T"
    assert wire.execute("select 2").rows == [(2,)]
    wire.rollback()
    wire.close()


def test_dropping_it_in_a_child_sends_nothing(make_wire):
    wires = [make_wire()]
    wires[0].execute("select 1", begin="BEGIN")

    def drop() -> str:
        made = gc.get_referrers(wires[0])
        del made
        wires.clear()
        gc.collect()
        return "dropped"

    kept = wires[0]
    assert said_in_fork(drop) == "dropped"
    assert kept.execute("select 3").rows == [(3,)]


def test_a_child_makes_connections_of_its_own(make_wire):
    assert make_wire().execute("select 1").rows == [(1,)]
    assert said_in_fork(lambda: make_wire().execute("select 2").rows) == "[(2,)]"


def test_forks_while_threads_connect_over_tls_and_ask(make_wire, debian_pg):
    url = debian_pg.url("psycopg2")
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            try:
                wire = make_wire(url=url, sslmode="require")
                assert wire.execute("select $1::text", ["own"]).rows == [("own",)]
                wire.close()
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert said_in_fork(lambda: "lived") == "lived"
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures
