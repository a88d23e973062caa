"""Recipes against fork trouble that circulate run unchanged, and do no harm.

Each is written here as people have it in their applications.  The parent has an open
transaction and an idle connection at the fork.  The child runs the recipe and then
works; it must be silent, and the parent must keep its transaction, its rows and its
idle connection.  Long, because it is one idea: one list of recipes.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import warnings

import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.orm import close_all_sessions, scoped_session, sessionmaker

import poolproof
from plugins.processes import run_in_fork, run_script
from plugins.server import DRIVERS

BACKEND = text("select pg_backend_pid()")


class Application:
    """An application's globals: an engine, a session, an open unit of work."""

    def __init__(self, engine, table):
        self.engine = engine
        self.table = table
        self.session = scoped_session(sessionmaker(engine))

    def start(self):
        """Leave one connection idle and one in a transaction with a row."""
        with self.engine.connect() as connection:
            self.insert()
            self.busy = self.session.scalar(BACKEND)
            self.idle = connection.scalar(BACKEND)
        assert self.busy != self.idle

    def insert(self):
        self.session.execute(
            text(f"insert into {self.table} values (:n)"), {"n": os.getpid()}
        )

    def work(self):
        """Commit a row in this process; return the backends that were used."""
        self.insert()
        used = {self.session.scalar(BACKEND)}
        self.session.commit()
        with self.engine.begin() as connection:
            used.add(connection.scalar(BACKEND))
        self.session.remove()
        return used

    def finish(self, observer, children=1):
        """Commit in the parent; assert that everything is there."""
        self.insert()
        assert self.session.scalar(BACKEND) == self.busy
        self.session.commit()
        self.session.remove()
        with self.engine.connect() as first, self.engine.connect() as second:
            assert {first.scalar(BACKEND), second.scalar(BACKEND)} == {
                self.busy,
                self.idle,
            }
        rows = observer.rows(f"select n from {self.table}")
        assert len(rows) == 2 + children
        assert rows.count((os.getpid(),)) == 2


@pytest.fixture
def application(engine, table):
    made = Application(engine, table)
    yield made
    made.session.remove()


# --- in the child, at the place where it starts to work -----------------------------


def roll_the_session_back(application):
    application.session.rollback()


def close_the_session(application):
    application.session.close()


def remove_the_session(application):
    application.session.remove()


def invalidate_the_session(application):
    application.session().invalidate()
    application.session.remove()


def forget_the_session(application):
    application.session.registry.clear()
    gc.collect()


def close_all_the_sessions(application):
    close_all_sessions()


def dispose_of_the_engine(application):
    """Gunicorn's post_fork and uWSGI's postfork, as found most."""
    application.session.remove()
    application.engine.dispose()


def dispose_of_the_engine_first(application):
    application.engine.dispose()
    application.session.remove()


def dispose_without_closing(application):
    """SQLAlchemy's own advice, in worker_process_init or a Pool's initializer."""
    application.engine.dispose(close=False)
    application.session.remove()


def dispose_of_the_bind_of_the_session(application):
    bind = application.session.get_bind()
    application.session.rollback()
    bind.dispose()
    application.session.remove()


def replace_the_pool(application):
    application.engine.pool = application.engine.pool.recreate()
    application.session.remove()


def dispose_of_the_pool_and_replace_it(application):
    application.engine.pool.dispose()
    application.engine.pool = application.engine.pool.recreate()
    application.session.remove()


def make_a_new_engine(application):
    """post_worker_init with a new engine; the old one becomes garbage."""
    application.engine = create_engine(
        application.engine.url, poolclass=poolproof.Pool, pool_timeout=10
    )
    application.session = scoped_session(sessionmaker(application.engine))
    gc.collect()


def dispose_and_configure_again(application):
    """dispose_orm() and configure_orm(), as a scheduler does for its tasks."""
    application.session.remove()
    application.session = None
    application.engine.dispose()
    make_a_new_engine(application)


def everything_at_once(application):
    for _ in range(2):
        application.session.rollback()
        application.session.close()
        application.session.remove()
        application.engine.dispose(close=False)
        application.engine.dispose()
    poolproof.after_fork()
    gc.collect()


IN_THE_CHILD = [
    roll_the_session_back,
    close_the_session,
    remove_the_session,
    invalidate_the_session,
    forget_the_session,
    close_all_the_sessions,
    dispose_of_the_engine,
    dispose_of_the_engine_first,
    dispose_without_closing,
    dispose_of_the_bind_of_the_session,
    replace_the_pool,
    dispose_of_the_pool_and_replace_it,
    make_a_new_engine,
    dispose_and_configure_again,
    everything_at_once,
]


@pytest.mark.fork
@pytest.mark.parametrize("recipe", IN_THE_CHILD, ids=lambda recipe: recipe.__name__)
def test_recipe_in_the_child_does_no_harm(application, observer, recipe):
    application.start()

    def child():
        recipe(application)
        return application.work()

    report = run_in_fork(child).assert_silent()
    assert report.result.isdisjoint({application.busy, application.idle})
    application.finish(observer)


@pytest.mark.fork
def test_recipe_before_each_task_does_no_harm(application, observer):
    """task_prerun and task_postrun: once a task, not once a process."""
    application.start()

    def child():
        used = set()
        for _ in range(3):
            application.session.remove()
            used |= application.work()
            application.session.remove()
        return used

    report = run_in_fork(child).assert_silent()
    assert report.result.isdisjoint({application.busy, application.idle})
    application.finish(observer, children=3)


# --- events that compare process ids, from SQLAlchemy's documentation ----------------


def compare_process_ids(engine):
    """Install the two listeners of "Using Connection Pools with Multiprocessing"."""

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection, connection_record):
        connection_record.info["pid"] = os.getpid()

    @event.listens_for(engine, "checkout")
    def checkout(dbapi_connection, connection_record, connection_proxy):
        pid = os.getpid()
        if connection_record.info["pid"] != pid:
            connection_record.dbapi_connection = None
            connection_proxy.dbapi_connection = None
            message = (
                f"Connection record belongs to pid {connection_record.info['pid']}, "
                f"attempting to check out in pid {pid}"
            )
            raise exc.DisconnectionError(message)


@pytest.mark.fork
def test_listeners_that_compare_process_ids_do_no_harm(application, observer):
    compare_process_ids(application.engine)
    application.start()

    def child():
        application.session.remove()
        return application.work()

    report = run_in_fork(child).assert_silent()
    assert report.result.isdisjoint({application.busy, application.idle})
    application.finish(observer)


@pytest.mark.fork
def test_dispose_in_the_parent_before_the_fork_does_no_harm(
    application, table, observer
):
    """Gunicorn's preload with a dispose at the end of the application's module."""
    application.start()
    application.session.rollback()
    application.session.remove()
    application.engine.dispose()
    assert observer.wait_for_backends(0) == []
    report = run_in_fork(application.work).assert_silent()
    assert len(report.result) == 1
    assert observer.value(f"select count(*) from {table}") == 1


# --- multiprocessing, whose children run an initializer -----------------------------

_global = None


def initialize_without_closing():
    _global.engine.dispose(close=False)
    _global.session.remove()


def initialize_with_dispose():
    _global.session.remove()
    _global.engine.dispose()


def work(_):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return _global.work()


@pytest.mark.fork
@pytest.mark.parametrize(
    "initializer", [initialize_without_closing, initialize_with_dispose]
)
def test_initializer_of_a_process_pool_does_no_harm(
    application, observer, monkeypatch, capfd, initializer
):
    monkeypatch.setattr(f"{__name__}._global", application)
    application.start()
    context = multiprocessing.get_context("fork")
    with context.Pool(2, initializer=initializer) as pool:
        used = set().union(*pool.map(work, range(6), chunksize=1))
        pool.close()
        pool.join()
    assert used.isdisjoint({application.busy, application.idle})
    assert capfd.readouterr().err == ""
    application.finish(observer, children=6)


# --- os.register_at_fork, which cannot be undone: in a process of its own -----------

AT_FORK = """
import json, os, sys
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

url, table, order = sys.argv[1:]
applications = {}

def dispose():
    applications["dispose"].engine.dispose()

def dispose_without_closing():
    applications["without closing"].engine.dispose(close=False)

def remove_and_dispose():
    applications["remove"].session.remove()
    applications["remove"].engine.dispose()

hooks = [dispose, dispose_without_closing, remove_and_dispose]
if order == "before":
    for hook in hooks:
        os.register_at_fork(after_in_child=hook)

import poolproof
from plugins.processes import run_in_fork

if order == "after":
    for hook in hooks:
        os.register_at_fork(after_in_child=hook)

class Application:
    def __init__(self):
        self.engine = create_engine(url, poolclass=poolproof.Pool, pool_timeout=10)
        self.session = scoped_session(sessionmaker(self.engine))
        with self.engine.connect() as connection:
            self.insert()
            self.backends = {self.backend(self.session), self.backend(connection)}

    def backend(self, where):
        return where.scalar(text("select pg_backend_pid()"))

    def insert(self):
        self.session.execute(text(f"insert into {table} values ({os.getpid()})"))

    def work(self):
        self.session.remove()
        self.insert()
        used = self.backend(self.session)
        self.session.commit()
        self.session.remove()
        return used

    def finish(self):
        self.insert()
        assert self.backend(self.session) in self.backends
        self.session.commit()
        self.session.remove()
        with self.engine.connect() as first, self.engine.connect() as second:
            assert {self.backend(first), self.backend(second)} == self.backends
        self.engine.dispose()

for name in ("dispose", "without closing", "remove"):
    applications[name] = Application()

def child():
    return {name: each.work() for name, each in applications.items()}

report = run_in_fork(child).assert_silent()
for name, each in applications.items():
    assert report.result[name] not in each.backends
    each.finish()
print(json.dumps(os.getpid()))
"""


@pytest.mark.fork
@pytest.mark.parametrize(
    ("driver", "order"),
    [
        *((DRIVERS[0], order) for order in ("before", "after")),
        *(pytest.param(name, "after", marks=pytest.mark.soak) for name in DRIVERS[1:]),
    ],
)
def test_dispose_by_register_at_fork_does_no_harm(
    driver, pg_url, table, observer, order
):
    """The hook may be registered before poolproof's own, and so run before it."""
    url = pg_url(driver).render_as_string(hide_password=False)
    done = run_script(AT_FORK, url, table, order)
    assert (done.returncode, done.stderr) == (0, "")
    parent = json.loads(done.stdout)
    rows = [n for (n,) in observer.rows(f"select n from {table}")]
    assert len(rows) == 3 * 3
    assert rows.count(parent) == 3 * 2
