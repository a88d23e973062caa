"""Forks of every kind: of forks, of threads, of C code, of daemons, of listeners.

Long, because it is one idea: one list of ways to fork.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker

import pytest
from sqlalchemy import event, text

import poolproof
from plugins.processes import ForkedChild, run_in_fork, run_script
from plugins.threads import eventually
from poolproof import _native


def answers(engine, questions=5):
    """Ask the engine so many questions; count those that were answered wrongly."""
    wrong = 0
    for n in range(questions):
        with engine.connect() as connection:
            token = f"{os.getpid()}-{n}"
            wrong += connection.scalar(text("select :t"), {"t": token}) != token
    return wrong


def test_a_fork_of_a_fork_of_a_fork(engine, open_transaction, backend_of):
    def child(depth):
        mine = backend_of(engine)
        held = engine.connect()
        held.execute(text("select 1"))
        backends = [mine]
        if depth:
            report = run_in_fork(lambda: child(depth - 1)).assert_silent()
            backends += report.result
        assert held.scalar(text("select 2")) == 2
        held.close()
        assert backend_of(engine) in {mine, *backends}
        return backends

    backends = run_in_fork(lambda: child(2)).assert_silent().result
    assert len(set(backends)) == 3
    assert open_transaction.backend not in backends
    open_transaction.assert_untouched()


def test_forks_while_other_threads_are_inside_the_pool(pg_url, driver, make_engine):
    """Threads check out, wait, connect and check in while the main thread forks."""
    engine = make_engine(pg_url(driver), pool_size=2, max_overflow=1)
    stop = threading.Event()
    wrong = []

    def use():
        while not stop.is_set():
            wrong.append(answers(engine, 1))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(12):
            report = run_in_fork(lambda: answers(engine))
            assert not report.error, report.error
            assert report.result == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong
    assert not any(wrong)


def test_concurrent_children_and_the_parent_get_their_own_answers(engine):
    engine.connect().close()
    children = [ForkedChild(lambda: answers(engine, 50)) for _ in range(3)]
    assert answers(engine, 50) == 0
    for child in children:
        assert child.report().assert_silent().result == 0


_remembered: list = []


def _count_wrong(questions):
    return answers(_remembered[0], questions)


def test_multiprocessing_workers_inherit_a_warm_engine(engine, open_transaction):
    _remembered[:] = [engine]
    try:
        with multiprocessing.get_context("fork").Pool(2) as workers:
            assert workers.map(_count_wrong, [20] * 4) == [0] * 4
    finally:
        _remembered.clear()
    open_transaction.assert_untouched()


def test_spawn_and_subprocess_leave_the_parent_alone(engine, open_transaction):
    before = _native.generation()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=os.getpid)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    resource_tracker._resource_tracker._stop()  # the process beside every spawned one
    subprocess.run([sys.executable, "-c", "pass"], check=True, close_fds=False)
    subprocess.run(["true"], check=True, preexec_fn=lambda: None)
    assert _native.generation() == before
    open_transaction.assert_untouched()


def _c_fork(function_name, child):
    """Fork by C code, which runs no Python hooks; returns the child's exit status."""
    libc = ctypes.PyDLL(None)
    if not hasattr(libc, function_name):
        pytest.skip(f"this C library has no {function_name}")
    pid = getattr(libc, function_name)()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _refuses(action):
    try:
        action()
    except poolproof.ConnectionForked:
        return True
    return False


C_ENDINGS = {
    "rollback": lambda connection, engine: connection.rollback(),
    "close": lambda connection, engine: connection.close(),
    "invalidate": lambda connection, engine: connection.invalidate(),
    "dispose": lambda connection, engine: engine.dispose(),
    "fairy close": lambda connection, engine: connection.connection.close(),
    "commit": lambda connection, engine: _refuses(connection.commit) or 1 / 0,
    "begin_nested": lambda connection, engine: (
        _refuses(connection.begin_nested) or 1 / 0
    ),
}


@pytest.mark.parametrize("ending", C_ENDINGS)
def test_a_fork_by_c_code_needs_no_hook(
    engine, open_transaction, ending, backend_of, capfd, caplog
):
    def child():
        C_ENDINGS[ending](open_transaction.connection, engine)
        assert backend_of(engine) != open_transaction.backend

    assert _c_fork("fork", child) == 0
    assert capfd.readouterr().err == ""
    open_transaction.assert_untouched()


def test_execute_is_refused_after_a_fork_by_c_code(engine, open_transaction):
    def child():
        connection = open_transaction.connection
        assert _refuses(lambda: connection.execute(text("select 1")))

    assert _c_fork("fork", child) == 0
    open_transaction.assert_untouched()


def test_after_fork_severs_where_the_fork_bypassed_the_c_library(
    engine, open_transaction, backend_of
):
    """`_Fork` runs no handler at all: not coverable, but curable by one call."""

    def child():
        poolproof.after_fork()
        poolproof.after_fork()
        assert _refuses(open_transaction.connection.commit)
        open_transaction.connection.close()
        assert backend_of(engine) != open_transaction.backend

    assert _c_fork("_Fork", child) == 0
    open_transaction.assert_untouched()


def test_after_fork_does_nothing_in_a_parent_and_twice_in_a_child(engine, backend_of):
    parent = backend_of(engine)
    poolproof.after_fork()
    assert backend_of(engine) == parent

    def child():
        poolproof.after_fork()
        first = backend_of(engine)
        poolproof.after_fork()
        return first, backend_of(engine)

    first, second = run_in_fork(child).assert_silent().result
    assert first == second != parent


def test_a_daemon_that_closes_every_descriptor(engine, tmp_path, table, observer):
    """The parent exits; the daemon reuses the numbers for files; they stay whole."""
    held = engine.connect()
    held.execute(text(f"insert into {table} values (1)"))
    number = held.connection.driver_connection
    del number

    def daemonise():
        if os.fork():
            os._exit(0)  # the parent of the daemon
        os.setsid()
        done = tmp_path / "done"
        try:
            os.closerange(3, 256)
            files = [
                os.open(tmp_path / f"file{n}", os.O_RDWR | os.O_CREAT)
                for n in range(60)
            ]
            for file in files:
                os.write(file, b"precious")
            held.close()
            engine.dispose()
            wrong = answers(engine, 5)
            for file in files:
                os.lseek(file, 0, os.SEEK_SET)
                assert os.read(file, 100) == b"precious"
            (tmp_path / "daemon").write_text(str(wrong))
        except BaseException as error:
            (tmp_path / "daemon").write_text(repr(error))
        finally:
            (tmp_path / "daemon").rename(done)
            os._exit(0)

    pid = os.fork()
    if pid == 0:
        daemonise()
    os.waitpid(pid, 0)
    eventually((tmp_path / "done").exists, what="the daemon's report")
    assert (tmp_path / "done").read_text() == "0"
    held.commit()
    held.close()
    engine.dispose()
    assert observer.value(f"select count(*) from {table}") == 1
    assert observer.wait_for_backends(0) == []


def test_a_killed_parents_sessions_end_although_its_child_lives(pg, observer, pg_url):
    """A child keeps no copy of the parent's sockets, so the server sees the end."""
    url = pg_url("psycopg2", application_name="poolproof-killed")
    script = """
        import os, signal, sys
        from sqlalchemy import create_engine, text
        import poolproof
        engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
        held = engine.connect()
        held.execute(text("select 1"))
        if os.fork() == 0:
            os.close(1); os.close(2)
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    before = set(_pids_of(url))
    done = run_script(script, url.render_as_string(hide_password=False))
    assert done.returncode == -9, done.stderr
    (orphan,) = set(_pids_of(url)) - before
    try:
        eventually(
            lambda: not observer.backends("poolproof-killed"),
            what="the end of the killed parent's session",
        )
    finally:
        os.kill(orphan, 9)


def _pids_of(url):
    import psutil

    mark = url.render_as_string(hide_password=False)
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if mark in (process.info["cmdline"] or [])
    ]


@pytest.mark.parametrize("driver_name", ["psycopg2", "psycopg", "pg8000"])
def test_a_fork_during_another_threads_first_connect(pg_url, driver_name, make_engine):
    """SQLAlchemy's first-connect mutex is locked at the fork; the child connects."""
    engine = make_engine(pg_url(driver_name))
    inside, forked = threading.Event(), threading.Event()

    def slow_first_connect(*_):
        if not forked.is_set():
            inside.set()
            forked.wait(50)

    event.listen(engine, "connect", slow_first_connect)
    thread = threading.Thread(target=lambda: engine.connect().close())
    thread.start()
    assert inside.wait(10)

    def child():
        forked.set()
        wrong = answers(engine)
        return wrong, engine.dialect.server_version_info

    try:
        report = run_in_fork(child)
    finally:
        forked.set()
        thread.join()
    assert not report.error, report.error
    wrong, version = report.result
    assert wrong == 0
    assert version == engine.dialect.server_version_info != None  # noqa: E711


def test_a_fork_during_the_dialects_initialisation(pg_url, make_engine):
    """What counted as done, but never ended, is done again in the child."""
    engine = make_engine(pg_url("psycopg2"))
    inside, forked = threading.Event(), threading.Event()
    initialize = engine.dialect.initialize

    def slow_initialize(connection):
        if not forked.is_set():
            inside.set()
            forked.wait(50)
        initialize(connection)

    engine.dialect.initialize = slow_initialize
    thread = threading.Thread(target=lambda: engine.connect().close())
    thread.start()
    assert inside.wait(10)

    def child():
        forked.set()
        answers(engine)
        return engine.dialect.server_version_info

    try:
        report = run_in_fork(child)
    finally:
        forked.set()
        thread.join()
    assert not report.error, report.error
    assert report.result == engine.dialect.server_version_info


def test_severed_sockets_are_counted(engine, backend_of):
    backend_of(engine)
    assert run_in_fork(_native.severed).result >= 1


def test_idle_time_between_fork_and_first_use_changes_nothing(engine, backend_of):
    parent = backend_of(engine)

    def child():
        time.sleep(0.05)
        return backend_of(engine)

    assert run_in_fork(child).assert_silent().result != parent
    assert backend_of(engine) == parent


def test_a_fork_from_a_thread(engine, open_transaction):
    reports = []

    def fork_here():
        reports.append(run_in_fork(lambda: answers(engine)))

    thread = threading.Thread(target=fork_here)
    thread.start()
    thread.join()
    assert reports[0].assert_silent().result == 0
    open_transaction.assert_untouched()


@pytest.mark.parametrize("moment", ["do_connect", "connect", "checkout", "checkin"])
def test_a_fork_inside_a_listener(pg_url, driver, make_engine, moment):
    """The child goes on with the very call that the listener was part of."""

    def story():
        engine = make_engine(pg_url(driver))
        here = os.getpid()

        def fork(*_):
            if os.getpid() == here and (child := os.fork()):
                os.waitpid(child, 0)
                os._exit(0)  # the child reports

        event.listen(engine, moment, fork)
        try:
            return answers(engine, 2), os.getpid() != here
        finally:
            engine.dispose()

    assert run_in_fork(story).assert_silent().result == (0, True)


def test_a_fork_while_the_dialect_looks_at_its_first_connection(
    pg_url, driver, make_engine
):
    def story():
        engine = make_engine(pg_url(driver))
        here = os.getpid()
        look = engine.dialect.initialize

        def fork_and_look(connection):
            if os.getpid() == here and (child := os.fork()):
                os.waitpid(child, 0)
                os._exit(0)
            look(connection)

        engine.dialect.initialize = fork_and_look
        try:
            return answers(engine, 2), os.getpid() != here
        finally:
            engine.dispose()

    assert run_in_fork(story).assert_silent().result == (0, True)


def test_a_renewal_that_was_interrupted_is_taken_up_at_the_next_use(
    engine, make_engine, pg_url, driver, monkeypatch
):
    other = make_engine(pg_url(driver))
    held = [each.connect() for each in (engine, other)]
    renew = poolproof.fork.renewal.renew_listeners
    interruptions = [KeyboardInterrupt()]

    def interrupted(pool):
        if interruptions:
            raise interruptions.pop()
        renew(pool)

    monkeypatch.setattr("poolproof.fork.renewal.renew_listeners", interrupted)

    def child():
        refused = 0
        wrong = answers(engine) + answers(other)
        for connection in held:
            with pytest.raises(poolproof.ConnectionForked):
                connection.execute(text("select 1"))
            refused += 1
            connection.close()
        return wrong, refused

    report = run_in_fork(child)
    assert (report.result, report.error) == ((0, 2), "")
    for connection in held:
        connection.close()


def test_a_time_out_in_a_child_names_the_thread_that_holds_on(
    pg_url, driver, make_engine
):
    engine = make_engine(pg_url(driver), pool_size=1, max_overflow=0, pool_timeout=0)
    engine.connect().close()

    def child():
        with engine.connect(), pytest.raises(poolproof.PoolTimeout) as caught:
            engine.connect()
        (holder,) = caught.value.holders
        return holder.thread, holder.process_id == os.getpid()

    assert run_in_fork(child).result == ("MainThread", True)
