"""Greenlets live on in both processes: also one that was connecting, or waiting."""

from __future__ import annotations

import pytest

from plugins.processes import run_script
from plugins.threads import Task, eventually
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address

COMMON = """
    from gevent import monkey; monkey.patch_all()
    import os, sys, time
    import gevent
    from gevent.event import Event
    from sqlalchemy import create_engine, text
    import poolproof

    url = sys.argv[1]

    def backend(engine):
        with engine.connect() as connection:
            return connection.scalar(text("select pg_backend_pid()"))

    def leave(child_status=0):
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(child_status)
"""


def run(source, pg_url, driver="pg8000", *arguments, **parts):
    url = pg_url(driver).set(**parts).render_as_string(hide_password=False)
    done = run_script(COMMON + source, url, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_a_greenlet_that_was_connecting_at_the_fork(pg_url):
    """Both processes go on with what connect() returns; only the parent may keep it."""
    source = """
    connected, go = Event(), Event()
    import pg8000.dbapi
    engine = create_engine(url, poolclass=poolproof.Pool)
    backend(engine)  # the dialect is initialised
    engine.dispose()

    def connect():
        made = pg8000.dbapi.connect(user="postgres", host=engine.url.host,
                                    port=engine.url.port, database="postgres")
        if not connected.is_set():
            connected.set()
            go.wait()
        return made

    engine = create_engine(url, poolclass=poolproof.Pool, creator=connect)
    asking = gevent.spawn(backend, engine)
    connected.wait()
    pid = os.fork()
    go.set()
    mine = asking.get(timeout=10)
    if pid == 0:
        print(mine, backend(engine)); leave()
    assert os.waitpid(pid, 0)[1] == 0
    print(mine, backend(engine))
    engine.dispose()
    """
    child, child_again, parent, parent_again = run(source, pg_url)
    assert child == child_again
    assert parent == parent_again
    assert child != parent


def test_a_greenlet_that_was_waiting_at_the_fork_is_served_in_both(pg_url):
    source = """
    engine = create_engine(url, poolclass=poolproof.Pool, pool_size=1, max_overflow=0,
                           pool_timeout=30)
    held = engine.connect()  # for as long as the child lives
    waiting = gevent.spawn(backend, engine)
    while not engine.pool.stats().waiting:
        gevent.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        mine = waiting.get(timeout=20)  # the child's pool is empty: it connects
        print(mine); leave()
    assert os.waitpid(pid, 0)[1] == 0
    held.close()
    print(waiting.get(timeout=10))
    engine.dispose()
    """
    child, parent = run(source, pg_url)
    assert child != parent


WAIT_CALLBACK = """
    from gevent.socket import wait_read, wait_write
    from psycopg2 import extensions

    def wait(connection):
        while (state := connection.poll()) != extensions.POLL_OK:
            wait_for = wait_read if state == extensions.POLL_READ else wait_write
            wait_for(connection.fileno())

    extensions.set_wait_callback(wait)
"""


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_a_greenlet_whose_driver_was_connecting_at_the_fork(
    pg, pg_url, driver, tmp_path
):
    """The server's answer is for the parent alone; the child connects by itself."""
    source = WAIT_CALLBACK if driver == "psycopg2" else ""
    source += """
    import warnings
    from pathlib import Path
    place = Path(sys.argv[2])
    engine = create_engine(url, poolclass=poolproof.Pool, pool_timeout=15)
    asking = gevent.spawn(backend, engine)
    while not (place / "connecting").exists():
        gevent.sleep(0.01)
    pid = os.fork()
    if pid == 0:  # pg8000 leaves a socket that has ended to the collector
        warnings.simplefilter("ignore", ResourceWarning)
    (place / ("parent" if pid else "child")).touch()
    mine = asking.get(timeout=25)
    assert backend(engine) == mine
    if pid == 0:
        print(mine)
        leave()
    assert os.waitpid(pid, 0)[1] == 0
    print(mine)
    engine.dispose()
    """
    with Proxy(Address(host=pg.host, port=pg.port)) as proxy:
        proxy.stall()

        def stand_between():
            eventually(lambda: proxy.links, what="a driver that connects")
            (tmp_path / "connecting").touch()
            both = (tmp_path / "parent", tmp_path / "child")
            eventually(lambda: all(path.exists() for path in both), what="the fork")
            proxy.resume()

        standing = Task(stand_between)
        child, parent = run(source, pg_url, driver, str(tmp_path), port=proxy.port)
        standing.result()
    assert child != parent
