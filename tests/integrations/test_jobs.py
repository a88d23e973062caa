"""One job after another in a worker: sessions, connections and names of each.

Long, because it is one idea: what a job may leave behind, and what it is called.
"""

from __future__ import annotations

import logging
import threading

import psycopg2
import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

import poolproof
from plugins.sessions import all_are_gone
from poolproof.drill.target import Target
from poolproof.integrations.jobs import Jobs, StartError
from poolproof.integrations.naming import fit

BACKEND = text("select pg_backend_pid()")
SECRET = "s3cret!"  # noqa: S105
NAME = text("select current_setting('application_name')")


@pytest.fixture
def engine(pg_url, driver):
    """An engine with one connection, so that nobody can take another."""
    engine = create_engine(
        pg_url(driver),
        poolclass=poolproof.Pool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0,
    )
    yield engine
    engine.dispose()


@pytest.fixture
def working():
    """Return a function that makes jobs and starts them; they are stopped."""
    made = []

    def make(session=None, engine=None, **options):
        jobs = Jobs("task", **options)
        made.append(jobs)
        jobs.add(session, engine)
        jobs.start("w@1")
        return jobs

    yield make
    for jobs in made:
        jobs.stop()


def test_a_session_ends_with_its_job(engine, working):
    session = scoped_session(sessionmaker(engine))
    jobs = working(session)
    with jobs.job("first"):
        session.execute(text("select 1"))
        assert engine.pool.checkedout() == 1
    assert engine.pool.checkedout() == 0
    assert not session.registry.has()


def test_a_session_from_before_is_not_the_jobs(engine, working):
    session = scoped_session(sessionmaker(engine))
    jobs = working(session)
    stale = session()
    stale.execute(text("select 1"))
    with jobs.job("first"):
        assert session() is not stale
        assert engine.pool.checkedout() == 0


def test_a_job_inside_a_job_leaves_the_session_to_it(engine, working):
    session = scoped_session(sessionmaker(engine))
    jobs = working(session)
    with jobs.job("outer"):
        backend = session.scalar(BACKEND)
        with jobs.job("inner"):
            assert session.scalar(BACKEND) == backend
        assert session().in_transaction()
    assert engine.pool.checkedout() == 0


def test_a_connection_that_is_left_out_is_reported_and_taken_back(
    alone, engine, working, observer, caplog
):
    jobs = working()
    with jobs.job("shop.leak"):
        left = engine.connect()
        backend = left.scalar(BACKEND)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "task shop.leak left a connection of pool" in record.message
    assert f"backend pid {backend}" in record.message
    assert engine.pool.checkedout() == 0
    assert engine.pool.stats().discarded == {"left_out": 1}
    # Whoever still has it can neither use it nor harm the next one.
    with pytest.raises(exc.ResourceClosedError, match=r"task shop\.leak, and"):
        left.execute(text("select 1"))
    with jobs.job("shop.next"), engine.connect() as connection:
        assert connection.scalar(BACKEND) != backend
        left.close()
        assert connection.scalar(text("select 7")) == 7
    assert engine.pool.checkedout() == 0
    assert len(caplog.records) == 1
    engine.dispose()
    assert all_are_gone(observer)


def test_what_is_left_out_in_a_transaction_is_not_committed(
    engine, working, observer, table, caplog
):
    jobs = working()
    with jobs.job("shop.leak"):
        session = Session(engine)
        session.execute(text(f"insert into {table} values (1)"))
    assert engine.pool.checkedout() == 0
    with pytest.raises(exc.ResourceClosedError):
        session.commit()
    session.close()
    assert "left a connection" in caplog.text
    assert observer.value(f"select count(*) from {table}") == 0


def test_a_session_of_a_sessionmaker_is_closed_and_its_connection_kept(
    engine, working, caplog
):
    maker = sessionmaker(engine)
    jobs = working(maker)
    with jobs.job("shop.leak"):
        session = maker()
        backend = session.scalar(BACKEND)
    assert "task shop.leak left a session open" in caplog.text
    with engine.connect() as connection:
        assert connection.scalar(BACKEND) == backend
    assert engine.pool.stats().discarded == {}
    assert not session.in_transaction()


def test_what_another_thread_has_is_left_alone(pg_url, working):
    engine = create_engine(
        pg_url("psycopg2"), poolclass=poolproof.Pool, pool_size=2, max_overflow=0
    )
    jobs = working()
    has_one, is_over = threading.Event(), threading.Event()
    answers = []

    def other():
        with jobs.job("other"), engine.connect() as connection:
            connection.execute(text("select 1"))
            has_one.set()
            is_over.wait(20)
            answers.append(connection.scalar(text("select 7")))

    thread = threading.Thread(target=other)
    thread.start()
    assert has_one.wait(20)
    with jobs.job("mine"):
        left = engine.connect()
    assert engine.pool.checkedout() == 1
    is_over.set()
    thread.join()
    assert answers == [7]
    left.close()
    engine.dispose()


def test_what_is_detached_is_the_jobs_own(engine, working, caplog):
    jobs = working()
    with jobs.job("shop.listen"):
        kept = engine.connect()
        kept.detach()
    assert kept.scalar(text("select 7")) == 7
    assert caplog.records == []
    kept.close()


def test_a_failing_listener_does_not_keep_the_slot(engine, working):
    jobs = working()

    def fail(*_arguments):
        raise RuntimeError

    event.listen(engine, "invalidate", fail)
    with jobs.job("shop.leak"):
        left = engine.connect()
    assert engine.pool.checkedout() == 0
    left.close()


def test_an_interruption_of_the_clearing_leaves_nothing_out(pg_url, working):
    """A time limit that passes between a task and its end comes once."""

    class Interruption(BaseException):
        pass

    engines = [
        create_engine(pg_url("psycopg2"), poolclass=poolproof.Pool) for _ in range(2)
    ]
    session = scoped_session(sessionmaker(engines[0]))
    jobs = working(session)
    coming = [Interruption()]

    @event.listens_for(engines[0], "checkin")
    def interrupt(*_arguments):
        while coming:
            raise coming.pop()

    job = jobs.begin("shop.leak")
    session.execute(text("select 1"))
    left = engines[1].connect()
    with pytest.raises(Interruption):
        jobs.end(job)
    assert [engine.pool.checkedout() for engine in engines] == [0, 0]
    left.close()
    for engine in engines:
        engine.dispose()


def test_a_job_that_was_cut_off_at_its_begin_does_not_swallow_the_others(
    engine, working
):
    """A time limit may pass before the caller of `begin` has the job."""
    session = scoped_session(sessionmaker(engine))
    jobs = working(session)
    jobs.begin("cut off", alone=True)
    left = engine.connect()
    for name in ("second", "third"):
        job = jobs.begin(name, alone=True)
        assert job.outer is None
        assert engine.pool.checkedout() == 0
        session.execute(text("select 1"))
        jobs.end(job)
    assert engine.pool.checkedout() == 0
    left.close()


def test_the_end_of_other_work_leaves_the_listeners(engine, working):
    """Two kinds of jobs in one process, with the same sessionmaker."""
    maker = sessionmaker(engine)
    first, second = working(maker), working(maker)
    first.stop()
    session = maker()
    with second.job("step"):
        session.execute(text("select 1"))
    assert not session.in_transaction()
    with second.job("step"):
        left = engine.connect()
    assert engine.pool.checkedout() == 0
    left.close()


# --- names ----------------------------------------------------------------------------


def test_a_session_has_the_names_of_worker_and_job(engine, working):
    jobs = working()
    with jobs.job("shop.pay"), engine.connect() as connection:
        backend = connection.scalar(BACKEND)
        assert connection.scalar(NAME) == "poolproof-tests w@1 shop.pay"
    with jobs.job("shop.ship"), engine.connect() as connection:
        assert connection.scalar(BACKEND) == backend
        assert connection.scalar(NAME) == "poolproof-tests w@1 shop.ship"
        connection.rollback()
        assert connection.scalar(NAME) == "poolproof-tests w@1 shop.ship"
    with engine.connect() as connection:
        assert connection.scalar(NAME) == "poolproof-tests w@1"


@pytest.mark.parametrize(
    ("naming", "jobs_names", "is_renamed"),
    [("job", "aa", False), ("job", "ab", True), ("worker", "ab", False)],
)
def test_nothing_is_sent_where_the_name_stays(
    engine, working, observer, naming, jobs_names, is_renamed
):
    jobs = working(naming=naming)
    first, second = jobs_names
    with jobs.job(first), engine.connect() as connection:
        backend = connection.scalar(BACKEND)
        connection.scalar(NAME)
    with jobs.job(second), engine.connect():
        query = observer.value(
            "select query from pg_stat_activity where pid = %s", backend
        )
    assert query.startswith("set application_name") == is_renamed


def test_the_workers_name_can_stand_alone(engine, working):
    jobs = working(naming="worker")
    with jobs.job("shop.pay"), engine.connect() as connection:
        assert connection.scalar(NAME) == "poolproof-tests w@1"


def test_names_can_be_left_alone(engine, working):
    jobs = working(naming=None)
    with jobs.job("shop.pay"), engine.connect() as connection:
        assert connection.scalar(NAME) == "poolproof-tests"


def test_a_session_is_renamed_outside_of_transactions(engine, working):
    """Else a rollback would give it its old name back."""
    jobs = working()
    engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    for name in ("a", "b"):
        with jobs.job(name), engine.connect() as connection:
            assert connection.scalar(NAME) == f"poolproof-tests w@1 {name}"


def test_one_that_cannot_be_renamed_is_replaced(engine, working, observer):
    jobs = working()
    with jobs.job("a"), engine.connect() as connection:
        backend = connection.scalar(BACKEND)

    # It ends when it has been looked at, and before it is renamed.
    def terminate(_connection, record, _fairy):
        if record.info.pop("is_old", False):
            observer.terminate(backend)

    with engine.connect() as connection:
        connection.connection.info["is_old"] = True
    event.listen(poolproof.Pool, "checkout", terminate, insert=True)
    try:
        with jobs.job("b"), engine.connect() as connection:
            assert connection.scalar(BACKEND) != backend
            assert connection.scalar(NAME) == "poolproof-tests w@1 b"
    finally:
        event.remove(poolproof.Pool, "checkout", terminate)


def test_behind_a_pooler_nobody_has_anothers_name(pooler, working, driver):
    """In transaction mode, with one server connection that all clients share."""
    behind = pooler(pool_mode="transaction", default_pool_size=1)
    url, arguments = Target.parse(
        behind.url.render_as_string(hide_password=False)
    ).for_driver(driver)
    if driver == "psycopg":  # this PgBouncer does not know prepared statements
        arguments["prepare_threshold"] = None
    engines = [
        create_engine(
            url,
            connect_args=arguments | {"application_name": name},
            poolclass=poolproof.Pool,
            pool_size=1,
        )
        for name in ("a", "b")
    ]
    jobs = working()
    backends = set()
    for name in ("x", "y", "x", "y"):
        with jobs.job(name):
            for base, engine in zip("ab", engines, strict=True):
                for _ in range(2):
                    with engine.connect() as connection:
                        assert connection.scalar(NAME) == f"{base} w@1 {name}"
                        backends.add(connection.scalar(BACKEND))
    assert len(backends) == 1
    for engine in engines:
        engine.dispose()


def test_a_creators_connection_has_no_name_of_anothers(pg_url, working):
    url = pg_url("psycopg2")
    named = url.update_query_dict({"application_name": "other"})
    other = create_engine(named, poolclass=NullPool)
    own = url.update_query_dict({"application_name": "mine"})
    dsn = own.set(drivername="postgresql").render_as_string(hide_password=False)
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: psycopg2.connect(dsn),
        poolclass=poolproof.Pool,
    )
    jobs = working(engine=[other, engine])
    names = []
    for name in ("one", "two"):
        with jobs.job(name):
            for each in (other, engine):
                with each.connect() as connection:
                    names.append(connection.scalar(NAME))
    assert names == ["other w@1 one", "mine", "other w@1 two", "mine"]
    engine.dispose()


def test_names_end_with_the_work(engine, working):
    jobs = working()
    jobs.stop()
    with jobs.job("a"), engine.connect() as connection:
        assert connection.scalar(NAME) == "poolproof-tests"


@pytest.mark.parametrize(
    ("base", "job", "fitted"),
    [
        ("app", "shop.tasks.pay", "app w@1 shop.tasks.pay"),
        ("", "pay", "w@1 pay"),
        ("app", "", "app w@1"),
        ("a" * 40, "shop.tasks.payments.pay", "a" * 40 + " w@1 tasks.payments.pay"),
        ("a" * 45, "shop.tasks.payments.pay", "a" * 45 + " w@1 payments.pay"),
        ("a" * 40, "p" * 30, "a" * 40 + " w@1 " + "p" * 18),
        ("a" * 62, "pay", "a" * 62),
        ("it's 100 %", "tü\\", "it?s 100 ? w@1 t??"),
    ],
)
def test_a_long_name_keeps_what_tells_most(base, job, fitted):
    assert fit(base, "w@1", job) == fitted


# --- the worker -----------------------------------------------------------------------


def test_a_check_leaves_no_connection(alone, engine, observer):
    jobs = Jobs("task")
    jobs.add(engine=engine)
    jobs.check()
    assert all_are_gone(observer)
    assert engine.pool.checkedin() == 0


def test_an_engine_that_needs_a_loop_is_not_asked(pg_url):
    engine = create_async_engine(pg_url("psycopg"), poolclass=poolproof.AsyncPool)
    jobs = Jobs("task")
    jobs.add(engine=engine.sync_engine)
    jobs.check()
    jobs.connect()
    assert engine.pool.stats().checkouts_total == 0


def test_who_is_not_let_in_is_told_so_without_the_password(pg_url):
    url = pg_url("psycopg2").set(database="nowhere", password=SECRET)
    url = url.update_query_dict({"sslpassword": SECRET})
    jobs = Jobs("task")
    jobs.add(engine=create_engine(url))
    for ask in (jobs.check, jobs.connect):
        with pytest.raises(StartError, match="no connection to postgresql") as caught:
            ask()
        assert "/nowhere" in str(caught.value)
        assert SECRET not in str(caught.value)


def test_the_first_connection_is_opened_and_closed_with_the_work(
    alone, engine, working, observer
):
    jobs = working(engine=engine)
    jobs.connect()
    assert engine.pool.checkedin() == 1
    jobs.stop()
    assert all_are_gone(observer)


def test_an_engine_without_the_pool_gets_it(pg_url):
    engine = create_engine(pg_url("psycopg2"))
    jobs = Jobs("task")
    jobs.add(sessionmaker(engine))
    jobs.add(sessionmaker(engine))
    assert isinstance(engine.pool, poolproof.Pool)
    assert jobs.engines() == [engine]


@pytest.mark.parametrize("wrong", [{"session": "db"}, {"engine": "postgresql://"}])
def test_what_is_of_another_kind_is_refused(wrong):
    with pytest.raises(TypeError, match="not str"):
        Jobs("task").add(**wrong)


def test_a_naming_that_does_not_exist_is_refused():
    with pytest.raises(exc.ArgumentError, match="'always'"):
        Jobs("task", naming="always")
