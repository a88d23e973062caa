"""Rows that a server's SQLSTATE decides, a standby's among them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading

import psycopg
import pytest
import sqlalchemy as sa

import poolproof
from plugins.cluster import Cluster, _free_port
from plugins.harm import first_error, pid_of, wait_for_the_end
from plugins.rows import decided_by, row
from plugins.threads import eventually
from poolproof import Fault

SELECT = sa.text("select 42")


def test_a_terminated_session_is_known_where_the_driver_reads_its_last_words(
    make_engine, observer
):
    with make_engine("psycopg").connect() as connection:
        observer.terminate(pid_of(connection))
        error = first_error(lambda: connection.execute(SELECT))
    assert decided_by(error) == row("SQLSTATE `57P01`")


def test_under_psycopg2_the_words_count_where_there_is_no_sqlstate(
    make_engine, observer
):
    """A FATAL that comes while psycopg2 reads, which is late: it cannot lose them."""
    engine = make_engine("psycopg2")
    with engine.connect() as connection:
        pid = pid_of(connection)
        ending = threading.Timer(0.2, observer.terminate, (pid,))
        ending.start()
        error = first_error(lambda: connection.execute(sa.text("select pg_sleep(5)")))
        ending.join()
    assert decided_by(error) in {
        row("message begins `terminating connection due to`"),
        row("message has `server closed the connection"),  # libpq 17 and newer
    }


@pytest.mark.parametrize(
    ("setting", "begins", "expected"),
    [
        ("idle_session_timeout", False, row("SQLSTATE `57P05`")),
        ("idle_in_transaction_session_timeout", True, row("SQLSTATE `25P03`")),
        ("transaction_timeout", True, row("SQLSTATE `25P04`")),
    ],
)
def test_a_timeout_of_the_server_ends_the_session(
    make_engine, observer, setting, begins, expected
):
    if not observer.rows("select 1 from pg_settings where name = %s", setting):
        pytest.skip(f"this server knows no {setting}")
    with make_engine("psycopg").connect() as connection:
        # Long enough for the answer to be read before: libpq takes a message that comes
        # with it for a notice, and forgets it.
        connection.execute(sa.text(f"set {setting} = 1000"))  # in a transaction
        if not begins:
            connection.commit()
        wait_for_the_end(connection)
        error = first_error(lambda: connection.execute(SELECT))
    assert decided_by(error) == expected
    assert expected.fault is Fault.TERMINATED


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("set local statement_timeout = 20; select pg_sleep(5)", row("`57014`")),
        ("set local lock_timeout = 20; lock table {table}", row("`55P03`")),
        ("set transaction read only; insert into {table} values (1)", None),
    ],
)
def test_an_error_of_the_transaction_leaves_the_connection(
    make_engine, driver, observer, table, statement, expected
):
    with make_engine(driver).connect() as connection:
        with psycopg.connect(
            host=observer._connection.info.host,
            port=observer._connection.info.port,
            user="postgres",
            dbname="postgres",
        ) as holder:
            holder.execute(f"lock table {table} in access share mode")
            first, second = statement.format(table=table).split("; ")
            connection.execute(sa.text(first))
            error = first_error(lambda: connection.execute(sa.text(second)))
            holder.rollback()
        connection.rollback()
        assert connection.execute(SELECT).scalar() == 42
    if expected is None:
        expected = row("SQLSTATE `25006`", "asked for it")
        assert decided_by(error, read_only="chosen") == expected
        always = row("SQLSTATE `25006`", "so from their start")
        assert decided_by(error, read_only="always") == always
    assert decided_by(error, read_only="chosen") == expected


def test_a_serialization_failure_and_a_deadlock_are_told_apart(
    make_engine, driver, observer, table
):
    observer.rows(f"insert into {table} values (1), (2)")
    engine = make_engine(driver)
    strict = engine.execution_options(isolation_level="REPEATABLE READ")
    update = sa.text(f"update {table} set n = n where n = :n")
    with strict.connect() as first, strict.connect() as second:
        second.execute(sa.text(f"select * from {table}"))
        first.execute(update, {"n": 1})
        first.commit()
        error = first_error(lambda: second.execute(update, {"n": 1}))
    assert decided_by(error) == row("SQLSTATE `40001`")

    errors = []
    both = threading.Barrier(2)

    def lock(mine, other):
        with engine.connect() as connection:
            connection.execute(sa.text("set local deadlock_timeout = 50"))
            connection.execute(update, {"n": mine})
            both.wait(10)
            with contextlib.suppress(sa.exc.DBAPIError):
                try:
                    connection.execute(update, {"n": other})
                except sa.exc.DBAPIError as error:
                    errors.append(error)

    threads = [threading.Thread(target=lock, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (error,) = errors
    assert decided_by(error) == row("SQLSTATE `40P01`")


# --- a server that stops --------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_shuts_down_refuses_newcomers(pg):
    cluster = Cluster(pg.binaries, package=pg.package)
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start()
        url = cluster.url("psycopg").set(drivername="postgresql")
        stack.enter_context(psycopg.connect(url.render_as_string(hide_password=False)))
        cluster._postmaster.send_signal(signal.SIGTERM)  # waits for the session
        for driver in ("psycopg2", "psycopg", "pg8000"):
            expected = row("failed with `FATAL: the database system is `")
            if driver == "pg8000":
                expected = row("SQLSTATE `57P03`")
            engine = sa.create_engine(cluster.url(driver), poolclass=sa.NullPool)

            def refused(engine=engine, expected=expected):
                try:
                    engine.connect().close()
                except sa.exc.DBAPIError as error:
                    return decided_by(error) == expected
                return False

            eventually(refused, what=f"{driver} is refused")


# --- a standby ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(pg):
    """Run a server and a standby of it; give the standby, and a way to the first."""
    primary = Cluster(pg.binaries, package=pg.package)
    second = Cluster(pg.binaries, package=pg.package)
    with contextlib.ExitStack() as stack:
        for each in (primary, second):
            stack.callback(each.stop)
        primary.start()
        admin = psycopg.connect(
            host=primary.host,
            port=primary.port,
            user="postgres",
            dbname="postgres",
            autocommit=True,
        )
        stack.callback(admin.close)
        admin.execute("create table t (n integer)")
        admin.execute("insert into t select generate_series(1, 100)")
        admin.execute("create database doomed")
        copy_of(primary, second, admin)
        second.settings |= {
            "primary_conninfo": f"host=127.0.0.1 port={primary.port} user=postgres",
            "max_standby_streaming_delay": "0",
        }
        second._launch()
        eventually(lambda: can_connect(second), seconds=30, what="the standby is up")
        yield second, admin


@pytest.fixture
def standby(pair):
    """Have the standby done with what another test has left it to replay.

    That takes no heed of anybody, not of who is only connecting.
    """
    eventually(lambda: has_caught_up(*pair), seconds=30, what="all is replayed")
    return pair


def has_caught_up(second, admin):
    (written,) = admin.execute("select pg_current_wal_flush_lsn()").fetchone()
    with contextlib.suppress(psycopg.OperationalError), connected(second) as asking:
        query = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
        return asking.execute(query, (written,)).fetchone()[0]
    return False


def copy_of(primary, second, admin):
    """Copy a server's files while it runs, as its manual describes."""
    admin.execute("select pg_backup_start('copy', true)")
    shutil.copytree(
        primary.data,
        second.data,
        ignore=shutil.ignore_patterns("postmaster.pid", "postmaster.opts"),
        ignore_dangling_symlinks=True,
        copy_function=copy_if_there,
    )
    label = admin.execute("select labelfile from pg_backup_stop()").fetchone()[0]
    (second.data / "backup_label").write_text(label)
    for path in (primary.data / "pg_wal").iterdir():
        if path.is_file():
            shutil.copy2(path, second.data / "pg_wal" / path.name)
    (second.data / "standby.signal").touch()
    second.port = _free_port(second.host)
    second.home.chmod(0o755)
    if second.account is not None:
        second._make_binaries_reachable()
        owner = f"{second.account.pw_uid}:{second.account.pw_gid}"
        subprocess.run(["chown", "-R", owner, second.home], check=True)
    second.data.chmod(0o700)


def copy_if_there(source, target):
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def connected(cluster, database="postgres"):
    return psycopg.connect(
        host=cluster.host, port=cluster.port, user="postgres", dbname=database
    )


def can_connect(cluster, database="postgres"):
    with contextlib.suppress(psycopg.OperationalError):
        connected(cluster, database).close()
        return True
    return False


def on(cluster, stack, database="postgres", driver="psycopg"):
    engine = sa.create_engine(cluster.url(driver).set(database=database))
    poolproof.guard(engine)
    stack.callback(engine.dispose)
    return stack.enter_context(engine.connect())


def is_gone(pid):
    """Say whether a session's process has ended; asking a standby may be refused."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_a_standby_refuses_writes(standby, driver):
    second, _ = standby
    with contextlib.ExitStack() as stack:
        connection = on(second, stack, driver=driver)
        insert = sa.text("insert into t values (1)")
        error = first_error(lambda: connection.execute(insert))
    assert decided_by(error) == row("SQLSTATE `25006`")
    assert poolproof.classify(error).cost == "generation"


@pytest.mark.slow
def test_a_standby_whose_recovery_needs_a_sessions_snapshot_ends_it(standby, events):
    second, admin = standby
    with contextlib.ExitStack() as stack:
        plain = on(second, stack)
        connection = plain.execution_options(isolation_level="REPEATABLE READ")
        pid = connection.execute(sa.text("select pg_backend_pid() from t")).scalar()

        def conflicts():
            admin.execute("update t set n = n")
            admin.execute("vacuum t")
            return is_gone(pid)

        eventually(conflicts, seconds=30, what="recovery ends the session")
        error = first_error(lambda: connection.execute(SELECT))
    assert decided_by(error) == row("`40001`", "begins `terminating connection`")
    assert events[-1].verdict.cost == "generation"


@pytest.mark.slow
def test_a_standby_ends_the_sessions_of_a_database_that_is_dropped(standby):
    second, admin = standby
    eventually(lambda: can_connect(second, "doomed"), what="the database is there")
    with contextlib.ExitStack() as stack:
        connection = on(second, stack, "doomed")
        pid = pid_of(connection)
        admin.execute("drop database doomed")
        eventually(lambda: is_gone(pid), seconds=30, what="the session ends")
        error = first_error(lambda: connection.execute(SELECT))
    assert decided_by(error) == row("SQLSTATE `57P04`")
