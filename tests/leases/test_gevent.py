"""Under gevent whoever waits for a lease lets the other greenlets run."""

from __future__ import annotations

from plugins.processes import run_script

WAITING = """
    import gevent.monkey
    gevent.monkey.patch_all()
    import sys, time, warnings
    import gevent
    from sqlalchemy import create_engine
    import poolproof

    engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
    told = []
    with poolproof.Lease(engine, sys.argv[2], ttl=2, on_lost=told.append) as lease:
        turns = 0

        def turn():
            global turns
            while True:
                turns += 1
                gevent.sleep(0.01)

        other = gevent.spawn(turn)
        try:
            poolproof.Lease(engine, sys.argv[2], timeout=0.5).acquire()
        except poolproof.LeaseTimeout:
            print("waited", turns > 10)
        lease.check()
        row = "delete from poolproof_lease where name = '" + sys.argv[2] + "'"
        with engine.begin() as connection:
            connection.exec_driver_sql(row)
        assert lease.lost.wait(20)
        gevent.sleep(0.3)
        print("told", told == [lease])
        other.kill()
        try:
            lease.check()
        except poolproof.LeaseLost:
            print("lost")
        lease.release()
"""


def test_a_greenlet_waits_without_stopping_the_others(pg_url, name):
    url = pg_url("psycopg").render_as_string(hide_password=False)
    done = run_script(WAITING, url, name, warnings="ignore")
    assert done.stdout.split() == ["waited", "True", "told", "True", "lost"], done


FORKING = """
    import gevent.monkey
    gevent.monkey.patch_all()
    import os, sys
    import gevent
    from sqlalchemy import create_engine
    import poolproof

    engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
    with poolproof.Lease(engine, sys.argv[2]) as lease:
        gevent.sleep(0.2)  # the notifier has begun
        child = os.fork()
        if not child:
            gevent.sleep(0.5)  # it looks, and sees that this is a child
            os._exit(0)
        _, status = os.waitpid(child, 0)
        lease.check()
        print("child", status)
"""


def test_a_child_hears_nothing_of_the_parents_notifier(pg_url, name):
    """A greenlet goes on in both processes."""
    url = pg_url("psycopg").render_as_string(hide_password=False)
    done = run_script(FORKING, url, name, warnings="ignore")
    assert done.stdout.split() == ["child", "0"], done
    assert not done.stderr


ASKING = """
    import gevent.monkey
    gevent.monkey.patch_all()
    import os, sys
    import gevent
    from sqlalchemy import create_engine, event
    import poolproof

    engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
    asked = []

    def listen(*_):
        gevent.sleep(0.01)  # as one does that asks a cloud
        asked.append(os.getpid())

    event.listen(engine, "do_connect", listen)

    def take(name):
        with poolproof.Lease(engine, name) as lease:
            lease.check()

    take(sys.argv[2])
    child = os.fork()
    take(sys.argv[2] + str(child == 0))
    if not child:
        os._exit(0 if asked[-1] == os.getpid() else 1)
    _, status = os.waitpid(child, 0)
    print("asked", set(asked) == {os.getpid()}, "child", status)
"""


def test_a_function_that_gives_the_parameters_may_let_others_run(pg_url, name):
    url = pg_url("psycopg").render_as_string(hide_password=False)
    done = run_script(ASKING, url, name, warnings="ignore")
    assert done.stdout.split() == ["asked", "True", "child", "0"], done
    assert not done.stderr
