"""Ctrl-C where Python waits for a thread of ours: as it begins, and at the very end."""

from __future__ import annotations

import pytest

from plugins.processes import run_script

HEAD = """
    import atexit, contextlib, sys, threading, time
    from sqlalchemy import create_engine, text
    import poolproof
    from poolproof.control.notifier import NAME

    def interrupt_in(function, of):
        \"\"\"Have the next call of a function, by a function, interrupted.\"\"\"
        def look(frame, event, _argument):
            if event == "call" and frame.f_code.co_name == function:
                if frame.f_back and frame.f_back.f_code.co_name == of:
                    sys.setprofile(None)
                    print("interrupted")
                    raise KeyboardInterrupt
        sys.setprofile(look)

    url, name, function, of = sys.argv[1:]
    engine = create_engine(url, poolclass=poolproof.Pool)
"""
INTERRUPTED = (
    HEAD
    + """
    first = poolproof.Lease(engine, name, ttl=600)
    interrupt_in(function, of)
    with contextlib.suppress(KeyboardInterrupt):
        first.acquire()
"""
)
BEGINNING = (
    INTERRUPTED
    + """
    def notifiers():
        return [each for each in threading.enumerate() if each.name == NAME]

    told = threading.Event()
    with contextlib.suppress(poolproof.LeaseLost):
        with poolproof.Lease(
            engine, name, ttl=600, on_lost=lambda _lease: told.set()
        ) as second:
            end = time.monotonic() + 20
            while len(notifiers()) > 1 and time.monotonic() < end:
                time.sleep(0.01)
            print(len(notifiers()), "tells")
            with engine.begin() as connection:
                connection.execute(
                    text("delete from poolproof_lease where name = :name"),
                    {"name": name},
                )
            with engine.begin() as connection:
                second.guard(connection)
    print("told", told.wait(20))
"""
)


def shown(url):
    return url.render_as_string(hide_password=False)


as_it_begins = pytest.mark.parametrize(
    ("function", "of"),
    [("start", "_start"), ("wait", "start")],
    ids=["before it runs", "while it begins"],
)


@as_it_begins
def test_an_interrupted_start_of_the_notifier_prints_nothing_at_the_end(
    pg_url, name, function, of
):
    ran = run_script(INTERRUPTED, shown(pg_url("psycopg2")), name, function, of)
    assert ran.stdout.split() == ["interrupted"], ran.stderr
    assert (ran.returncode, ran.stderr) == (0, "")


@as_it_begins
def test_an_interrupted_start_of_the_notifier_costs_neither_lease_nor_the_next_one(
    pg_url, name, function, of
):
    ran = run_script(BEGINNING, shown(pg_url("psycopg2")), name, function, of)
    told = ["interrupted", "1", "tells", "told", "True"]
    assert ran.stdout.split() == told, ran.stderr
    (loss,) = ran.stderr.splitlines()  # and nothing at the interpreter's end
    assert f"Lease {name!r} is lost" in loss


ENDING = (
    HEAD
    + """
    lease = poolproof.Lease(engine, name, ttl=600).acquire()
    engine.connect().close()  # now there is a keeper
    # Before what the pool does there, since it comes last first.
    atexit.register(interrupt_in, function, of)
"""
)


@pytest.mark.parametrize(
    ("function", "of"),
    [("finish", "_give_all_back"), ("join", "end"), ("join", "_end")],
    ids=["giving back", "the notifier", "the keeper"],
)
def test_ctrl_c_at_the_interpreter_s_end_prints_nothing(pg_url, name, function, of):
    ran = run_script(ENDING, shown(pg_url("psycopg2")), name, function, of)
    assert ran.stdout.split() == ["interrupted"], ran.stderr
    assert (ran.returncode, ran.stderr) == (0, "")
