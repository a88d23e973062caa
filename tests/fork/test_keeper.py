"""A child has a keeper of its own, at its first need; the parent's goes on."""

from __future__ import annotations

import os
import threading
import time

import pytest
from sqlalchemy import text

from plugins.processes import run_in_fork
from plugins.server import DRIVERS
from plugins.threads import eventually

NAME = "poolproof-keeper"


@pytest.fixture
def engine(make_engine, pg_url):
    return make_engine(pg_url(DRIVERS[0]), max_idle=0.3, min_idle=1)


def use(engine, count):
    connections = [engine.connect() for _ in range(count)]
    for connection in connections:
        connection.execute(text("select 1"))
    for connection in connections:
        connection.close()


def keepers():
    return sum(thread.name == NAME for thread in threading.enumerate())


def test_child_prunes_and_warms_as_the_parent_does(engine, observer):
    use(engine, 3)
    assert len(observer.wait_for_backends(1)) == 1
    (parents,) = observer.backends()

    def child():
        assert keepers() == 0
        assert engine.pool.status().startswith("Pool size: 5  Connections in pool: 0")
        use(engine, 4)
        eventually(lambda: engine.pool.stats().discarded.get("idle", 0) >= 3)
        eventually(lambda: engine.pool.checkedin() == 1)
        assert keepers() == 1
        discarded = engine.pool.stats().discarded["idle"]
        engine.dispose()
        eventually(lambda: keepers() == 0)
        return discarded

    assert run_in_fork(child).assert_silent().result >= 3
    assert observer.wait_for_backends(1) == [parents]
    use(engine, 3)
    assert len(observer.wait_for_backends(1)) == 1


def test_child_that_never_uses_the_pool_has_no_keeper(engine, observer):
    use(engine, 3)

    def child():
        time.sleep(0.5)
        return keepers()

    assert run_in_fork(child).assert_silent().result == 0
    assert len(observer.wait_for_backends(1)) == 1


def test_grandchild_has_one_too(engine):
    use(engine, 2)

    def grandchild():
        use(engine, 2)
        eventually(lambda: engine.pool.checkedin() == 1)
        engine.dispose()
        return os.getpid()

    def child():
        use(engine, 2)
        return run_in_fork(grandchild).assert_silent().result

    assert run_in_fork(child).assert_silent().result


def test_fork_in_the_middle_of_the_keepers_work_harms_neither(
    make_engine, pg_url, observer
):
    engine = make_engine(
        pg_url(DRIVERS[0]), max_idle=0.001, min_idle=2, max_lifetime=1.0
    )

    def child():
        use(engine, 3)
        eventually(lambda: engine.pool.checkedin() == 2)
        engine.dispose()

    for turn in range(25):
        use(engine, 4)
        time.sleep(turn % 5 / 1000)
        run_in_fork(child).assert_silent()
    assert engine.pool.checkedout() <= 1  # what the keeper may be opening
    assert len(observer.wait_for_backends(2)) == 2
