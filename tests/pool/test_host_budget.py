"""`host_budget`: all processes of the host together have so many connections.

Long, because it is one idea: one promise, with one process and with a crowd of them.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from sqlalchemy import create_engine, exc, text

import poolproof
from plugins.processes import ForkedChild, run_in_fork, run_script
from plugins.threads import Task, eventually
from poolproof.pool.host_budget import HostBudget


@pytest.fixture
def budgeted(make_engine, pg_url, driver, tmp_path):
    """Make engines that share a budget in a directory of the test's own."""

    def make(most=2, name="app", **parameters):
        parameters.setdefault("pool_size", 5)
        return make_engine(
            pg_url(driver), host_budget=(name, most, str(tmp_path)), **parameters
        )

    return make


def one(engine):
    with engine.connect() as connection:
        return connection.scalar(text("select 1"))


def held(engine):
    return sum(engine.pool.budget.parts().held.values())


def test_engines_of_a_process_share_it_and_the_error_says_who_has_what(budgeted):
    first, second = budgeted(), budgeted(pool_timeout=0.2)
    with first.connect(), first.connect():
        with pytest.raises(poolproof.PoolTimeout) as caught:
            second.connect()
        assert second.pool.totals.timeouts.copy() == {"host_budget": 1}
    said = str(caught.value)
    assert "host budget 'app'" in said
    assert "2 connections together, and 2 are held" in said
    assert f"2 by this process ({os.getpid()})" in said
    assert second.pool.stats().in_use == 0
    assert one(second) == 1  # what rests in the first is given up for it


def test_a_closed_connection_gives_its_share_back(budgeted, observer):
    engine = budgeted(most=3)
    with engine.connect(), engine.connect():
        assert held(engine) == 2
    engine.pool.dispose()
    assert held(engine) == 0
    connection = engine.connect()
    connection.detach()
    assert held(engine) == 1
    connection.close()
    assert held(engine) == 0
    with engine.connect() as connection:
        connection.invalidate()
    assert held(engine) == 0


def left_behind(engine):
    """Count the shares whose last holder may have something alive at the server."""
    budget = engine.pool.budget
    shares = budget._shares()
    every = [shares.take(budget.most) for _ in range(budget.most)]
    return sum(share.was_left for share in every)


def test_what_was_closed_in_order_is_waited_for_by_nobody(budgeted):
    engine = budgeted(most=3)
    for _ in range(3):
        with engine.connect() as connection:
            connection.invalidate()
    with engine.connect():
        pass
    engine.pool.dispose()
    assert left_behind(engine) == 0


def test_what_was_severed_may_be_alive_at_the_server(budgeted):
    engine = budgeted(most=3, reset_timeout=0.3)
    with engine.connect() as connection:
        connection.connection._connection_record.socket.sever()
    engine.pool.dispose()
    assert left_behind(engine) == 1


def test_what_was_collected_or_could_not_be_opened_holds_none(budgeted, pg_url, driver):
    engine = budgeted(most=1, pool_timeout=5)
    if driver != "psycopg":  # whose warning of it keeps the connection
        fairy = engine.pool.connect()
        fairy.detach()
        del fairy
        gc.collect()
        assert held(engine) == 0
    bad = create_engine(
        pg_url(driver).set(database="none-such"),
        poolclass=poolproof.Pool,
        host_budget=engine.pool.settings.host_budget,
    )
    with pytest.raises(exc.DBAPIError):
        bad.connect()
    assert held(engine) == 0
    assert one(engine) == 1


def test_who_waits_takes_what_comes_to_rest_in_its_own_pool(budgeted):
    engine = budgeted(most=1)
    with engine.connect():
        waiting = Task(one, engine)
        eventually(lambda: sum(engine.pool.budget.parts().waiting.values()) == 1)
    assert waiting.result() == 1
    assert held(engine) == 1


# --- other processes ---


@pytest.mark.quick("psycopg2")
def test_what_rests_in_another_process_is_given_up_for_who_waits(budgeted):
    engine = budgeted(most=3)

    def child():
        for connection in [engine.connect() for _ in range(2)]:
            connection.close()
        eventually(lambda: len(engine.pool.shares) == 0)
        return engine.pool.stats().discarded

    other = ForkedChild(child)
    eventually(lambda: held(engine) == 2)
    with engine.connect(), engine.connect(), engine.connect():
        assert held(engine) == 3
    assert other.report().assert_silent().result == {"host_budget": 2}


@pytest.mark.quick("psycopg2")
def test_what_a_process_keeps_ready_stays_and_the_error_names_it(budgeted):
    engine = budgeted(most=2, min_idle=2, pool_timeout=1)
    patient = budgeted(most=2, min_idle=2, pool_timeout=60)
    ready, end = os.pipe(), os.pipe()

    def child():
        patient.pool.warm(2)
        os.write(ready[1], b"x")
        os.read(end[0], 1)

    busy = ForkedChild(child)
    os.close(ready[1])
    assert os.read(ready[0], 1) == b"x"
    with pytest.raises(poolproof.PoolTimeout, match=f"2 by process {busy.pid}"):
        engine.connect()
    os.write(end[1], b"x")
    busy.report().assert_silent()
    for descriptor in (ready[0], *end):
        os.close(descriptor)


@pytest.mark.quick("psycopg2")
def test_a_process_that_is_always_busy_lets_another_in(budgeted):
    engine = budgeted(most=2, pool_size=2, max_overflow=0, pool_timeout=60)
    stop = os.pipe()

    def child():
        done = threading.Event()

        def work():
            while not done.is_set():
                with engine.connect() as connection:
                    connection.execute(text("select pg_sleep(0.005)"))

        tasks = [Task(work) for _ in range(4)]
        os.read(stop[0], 1)
        done.set()
        for task in tasks:
            task.result()

    busy = ForkedChild(child)
    eventually(lambda: held(engine) == 2)
    for _ in range(3):
        assert one(engine) == 1
        engine.pool.dispose()
    os.write(stop[1], b"x")
    busy.report().assert_silent()
    for descriptor in stop:
        os.close(descriptor)


@pytest.mark.quick("psycopg2")
def test_a_child_holds_none_of_its_parents_and_has_its_own(budgeted):
    engine = budgeted(most=2, pool_timeout=0.3)
    with engine.connect():

        def child():
            mine = engine.pool.budget.parts().held.get(os.getpid(), 0)
            with engine.connect():
                both = engine.pool.budget.parts().held
                try:
                    engine.connect()
                except poolproof.PoolTimeout:
                    return mine, both[os.getpid()], both[os.getppid()]

        assert run_in_fork(child).assert_silent().result == (0, 1, 1)
        assert held(engine) == 1
        # The child's copy of the descriptor was closed at its end.
        assert engine.pool.budget.parts().held == {os.getpid(): 1}


@pytest.mark.quick("psycopg2")
def test_a_parent_that_is_killed_loses_its_shares_though_its_child_lives(budgeted):
    engine = budgeted(most=2)
    told, end = os.pipe(), os.pipe()

    def parent():
        _kept = [engine.connect(), engine.connect()]
        pid = os.fork()
        if not pid:
            os.read(end[0], 1)
            os._exit(0)
        os.write(told[1], b"x")
        time.sleep(60)

    killed = ForkedChild(parent)
    os.read(told[0], 1)
    assert held(engine) == 2
    os.kill(killed.pid, signal.SIGKILL)
    eventually(lambda: held(engine) == 0)
    assert one(engine) == 1
    os.write(end[1], b"x")
    with pytest.raises(ChildProcessError):
        killed.report()
    for descriptor in (*told, *end):
        os.close(descriptor)


@pytest.mark.quick("psycopg2")
def test_processes_with_different_numbers_are_told_and_the_larger_bounds(
    budgeted, tmp_path, caplog
):
    engine = budgeted(most=3)
    with engine.connect(), caplog.at_level(logging.WARNING, "poolproof.budget"):

        def child():
            other = HostBudget("app", 1, engine.pool.budget.path)
            other.take(time.monotonic() + 60, lambda: True)

        report = run_in_fork(child)
    (line,) = report.log
    assert "is 1 in process" in line
    assert f"3 in process {os.getpid()}" in line


@pytest.mark.quick("psycopg2")
def test_one_who_is_suspended_at_the_head_of_the_line_holds_up_nobody(budgeted):
    engine = budgeted(most=1, pool_timeout=60)

    def child():
        with engine.connect():
            return True

    with engine.connect():
        suspended = ForkedChild(child)
        eventually(lambda: engine.pool.budget.parts().waiting == {suspended.pid: 1})
        os.kill(suspended.pid, signal.SIGSTOP)
    engine.pool.dispose()
    try:
        assert one(engine) == 1
        assert engine.pool.budget.parts().waiting == {suspended.pid: 1}
    finally:
        os.kill(suspended.pid, signal.SIGCONT)
    engine.pool.dispose()
    assert suspended.report().assert_silent().result


@pytest.mark.quick("psycopg2")
def test_at_the_interpreters_end_what_rests_is_closed_in_order(pg_url, tmp_path):
    source = f"""
        from sqlalchemy import create_engine, text
        import poolproof
        engine = create_engine(
            {pg_url("psycopg2").render_as_string(hide_password=False)!r},
            poolclass=poolproof.Pool,
            host_budget=("app", 2, {str(tmp_path)!r}),
        )
        with engine.connect() as connection:
            connection.execute(text("select 1"))
        """
    done = run_script(source)
    assert (done.returncode, done.stderr) == (0, "")
    shares = HostBudget("app", 2, f"{tmp_path}/poolproof-budget-app")._shares()
    assert not shares.take(2).was_left


def test_a_drain_keeps_to_it(budgeted):
    engine = budgeted(most=2, min_idle=2, pool_timeout=5)
    engine.pool.warm(2)
    assert engine.pool.drain() == 2
    assert held(engine) == 2


# --- its file, and bad input ---


def test_the_file_is_the_users_alone(budgeted, tmp_path):
    one(budgeted())
    found = (tmp_path / "poolproof-budget-app").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600


@pytest.fixture
def make_one(tmp_path):
    def make(budget=None, **parameters):
        budget = budget or ("app", 2, str(tmp_path))
        return poolproof.Pool(lambda: None, host_budget=budget, **parameters)

    return make


def test_another_number_in_the_same_process_is_refused(make_one, tmp_path):
    kept = make_one()
    with pytest.raises(exc.ArgumentError, match=r"3 here and 2 in another"):
        make_one(("app", 3, str(tmp_path)))
    del kept
    gc.collect()
    make_one(("app", 3, str(tmp_path)))  # nobody goes by the other any more


def test_more_kept_ready_than_there_may_be_is_refused(make_one):
    with pytest.raises(exc.ArgumentError, match="min_idle is 3 and host_budget is 2"):
        make_one(min_idle=3)


def test_a_directory_that_is_not_there_is_named(make_one, tmp_path):
    with pytest.raises(exc.ArgumentError, match="none-such does not exist"):
        make_one(("app", 2, str(tmp_path / "none-such")))


@pytest.mark.skipif(not os.geteuid(), reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_named(make_one, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(exc.ArgumentError, match="may not write there"):
        make_one()


def test_nothing_is_written_through_a_link_or_into_what_is_no_file(make_one, tmp_path):
    place, target = tmp_path / "poolproof-budget-app", tmp_path / "target"
    target.write_text("mine")
    place.symlink_to(target)
    with pytest.raises(exc.ArgumentError, match="symbolic link"):
        make_one()
    place.unlink()
    place.hardlink_to(target)
    with pytest.raises(exc.ArgumentError, match="hard links"):
        make_one()
    place.unlink()
    place.mkdir()
    with pytest.raises(exc.ArgumentError, match="cannot be opened"):
        make_one()
    place.rmdir()
    os.mkfifo(place)
    with pytest.raises(exc.ArgumentError, match="no regular file"):
        make_one()
    assert target.read_text() == "mine"


def test_without_a_directory_the_environment_says_one(monkeypatch, tmp_path):
    monkeypatch.delenv("POOLPROOF_BUDGET_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(exc.ArgumentError, match="POOLPROOF_BUDGET_DIR nor XDG"):
        poolproof.Pool(lambda: None, host_budget="app:2")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert poolproof.Pool(lambda: None, host_budget="app:2").budget.path == str(
        tmp_path / "poolproof-budget-app"
    )


def test_the_url_says_it_as_well(tmp_path):
    url = "postgresql+psycopg2://app@db/app?plugin=poolproof"
    engine = create_engine(f"{url}&poolproof_host_budget=app:40:{tmp_path}")
    assert engine.pool.settings.host_budget == ("app", 40, str(tmp_path))


def test_a_file_that_was_taken_away_is_made_again(budgeted, tmp_path):
    engine = budgeted()
    with engine.connect():
        (tmp_path / "poolproof-budget-app").unlink()
        with engine.connect():
            assert held(engine) == 1  # of the new file; the old one has the other
    engine.pool.dispose()
    assert one(engine) == 1
    assert held(engine) == 1


# --- all of it together ---

WORKER = """
import os, random, sys, threading, time
from pathlib import Path
from sqlalchemy import create_engine, text
import poolproof

url, place, most, threads = sys.argv[1:]
engine = create_engine(
    url, poolclass=poolproof.Pool, pool_size=3, max_overflow=5, pool_timeout=60,
    host_budget=("crowd", int(most), place),
)
stop = Path(place, "stop")
progress = Path(place, f"progress-{os.getpid()}")
Path(place, f"ready-{os.getpid()}").touch()
errors = []

def work():
    try:
        while not stop.exists():
            with engine.connect() as connection:
                connection.execute(text("select pg_sleep(0.002)"))
            with progress.open("a") as file:
                file.write("x")
            time.sleep(random.random() / 200)
    except Exception as error:
        errors.append(error)
        print(repr(error), file=sys.stderr, flush=True)

workers = [threading.Thread(target=work) for _ in range(int(threads))]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
engine.dispose()
sys.exit(1 if errors else 0)
"""


chance = random.SystemRandom()


def crowd(url, observer, place, *, processes, threads, most, seconds, kill_every):
    """Run processes, kill some at random, and count what the server has.

    Returns:
        What the server has counted, how many were killed, and of those that lived how
        many times each has worked, with the seconds since it was ready.
    """
    command = [sys.executable, "-c", WORKER, url, str(place), str(most), str(threads)]
    born = []

    def start():
        born.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))

    def ready(process):
        return place / f"ready-{process.pid}"

    for _ in range(processes):
        start()
    counts, killed = [], 0
    budget = HostBudget("crowd", most, f"{place}/poolproof-budget-crowd")
    eventually(lambda: all(ready(process).exists() for process in born))
    began = time.monotonic()
    next_kill = began + kill_every
    while time.monotonic() < began + seconds:
        counts.append(
            observer.value(
                "select count(*) from pg_stat_activity where application_name = 'crowd'"
            )
        )
        assert sum(budget.parts().held.values()) <= most
        if time.monotonic() > next_kill:
            next_kill = time.monotonic() + kill_every * chance.uniform(0.5, 1.5)
            victim = chance.choice(born)
            victim.kill()
            victim.communicate()
            born.remove(victim)
            killed += 1
            start()
        time.sleep(0.001)
    worked = []
    for process in born:
        if ready(process).exists():
            progress = place / f"progress-{process.pid}"
            times = progress.stat().st_size if progress.exists() else 0
            worked.append((times, time.time() - ready(process).stat().st_mtime))
    (place / "stop").touch()
    ended = {
        process.pid: (process.communicate(timeout=90)[1], process.returncode)
        for process in born
    }
    assert not {pid: said for pid, said in ended.items() if said[1]}
    # None is lost: all can be had at once.
    shares = budget._shares()
    every = [shares.take(most) for _ in range(most)]
    assert all(every)
    assert shares.take(most) is None
    del every
    return counts, killed, worked


@pytest.mark.alone
def test_the_server_never_counts_more_whoever_is_killed(pg_url, observer, tmp_path):
    url = pg_url("psycopg2", application_name="crowd").render_as_string(
        hide_password=False
    )
    counts, killed, _worked = crowd(
        url,
        observer,
        tmp_path,
        processes=4,
        threads=3,
        most=5,
        seconds=4,
        kill_every=1,
    )
    assert killed
    assert any(file.stat().st_size for file in tmp_path.glob("progress-*"))
    assert max(counts) <= 5


@pytest.mark.soak
@pytest.mark.alone
def test_sixteen_processes_of_eight_threads_keep_to_it(pg_url, observer, tmp_path):
    url = pg_url("psycopg2", application_name="crowd").render_as_string(
        hide_password=False
    )
    counts, killed, worked = crowd(
        url,
        observer,
        tmp_path,
        processes=16,
        threads=8,
        most=20,
        seconds=60,
        kill_every=1,
    )
    assert killed > 20
    assert max(counts) <= 20
    # Nobody starves: each process that had the time to start has worked.
    assert all(times for times, age in worked if age > 20), worked
