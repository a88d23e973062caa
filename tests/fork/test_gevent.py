"""Greenlets live on in both processes: also one that was connecting, or waiting."""

from __future__ import annotations

from plugins.processes import run_script

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


def run(source, pg_url, driver="pg8000"):
    url = pg_url(driver).render_as_string(hide_password=False)
    done = run_script(COMMON + source, url)
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
