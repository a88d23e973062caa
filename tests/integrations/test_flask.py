"""Flask and Flask-SQLAlchemy with the real libraries on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, event, exc, select, text
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool, QueuePool

import poolproof
from poolproof.integrations import flask as integration

BACKEND = text("select pg_backend_pid()")


@pytest.fixture
def app(pg_url):
    """Make an application with a default engine and one bind."""
    app = flask.Flask("shop")
    app.config.update(
        SQLALCHEMY_DATABASE_URI=pg_url("psycopg2"),
        SQLALCHEMY_BINDS={"reports": pg_url("psycopg2")},
        TESTING=True,
    )
    yield app
    db = app.extensions.get("sqlalchemy")
    if db is not None:
        # Without a context, which would run the functions of a test's teardown.
        for engine in db._app_engines[app].values():
            engine.dispose()


@pytest.fixture
def driven(app, pg_url, driver):
    """Let the application use one driver after the other."""
    app.config["SQLALCHEMY_DATABASE_URI"] = pg_url(driver)
    app.config["SQLALCHEMY_BINDS"] = {"reports": pg_url(driver)}
    return app


def installed(app, order="after", **options):
    """Install both extensions in one of the orders; return Flask-SQLAlchemy's."""
    db = SQLAlchemy()
    if order == "before":
        integration.init_app(app, db, **options)
    elif order == "before, unnamed":
        integration.init_app(app, **options)
    db.init_app(app)
    if order == "after":
        integration.init_app(app, db, **options)
    elif order == "after, unnamed":
        integration.init_app(app, **options)
    return db


@pytest.fixture(params=["after", "before", "after, unnamed", "before, unnamed"])
def order(request):
    """Name when our init_app is called, and whether it is given db."""
    return request.param


def test_every_bind_has_the_pool_whichever_was_installed_first(app, order):
    db = installed(app, order, pool_size=3, pool_timeout=7)
    with app.app_context():
        assert set(db.engines) == {None, "reports"}
        for engine in db.engines.values():
            assert type(engine.pool) is poolproof.Pool
            assert engine.pool.size() == 3
            assert engine.pool.timeout() == 7
            with engine.connect() as connection:
                assert connection.scalar(text("select 1")) == 1


def test_a_pool_class_that_was_chosen_stays_and_is_guarded(app, order):
    app.config["SQLALCHEMY_BINDS"]["jobs"] = {
        "url": app.config["SQLALCHEMY_DATABASE_URI"],
        "poolclass": QueuePool,
    }
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": NullPool}
    db = installed(app, order)
    seen = []
    with app.app_context():
        assert type(db.engine.pool) is NullPool
        assert type(db.engines["jobs"].pool) is QueuePool
        assert type(db.engines["reports"].pool) is poolproof.Pool
        stop = poolproof.on_fault(seen.append)
        try:
            with (
                db.engines["jobs"].connect() as connection,
                pytest.raises(exc.OperationalError),
            ):
                connection.execute(
                    text("select pg_terminate_backend(pg_backend_pid())")
                )
        finally:
            if callable(stop):
                stop()
    assert seen


def test_the_engines_own_options_and_listeners_are_kept(app, order):
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": 2,
        "max_overflow": 1,
        "pool_timeout": 3,
        "pool_use_lifo": True,
        "pool_recycle": 77,
    }
    db = SQLAlchemy()
    connected = []
    if order.startswith("before"):
        integration.init_app(app, db)
    db.init_app(app)
    with contextlib.ExitStack() as stack:
        if order.startswith("after"):
            # By way of the mapping: no context of the application has been pushed.
            engine = db._app_engines[app][None]
            event.listen(engine, "connect", lambda *_: connected.append(1))
            integration.init_app(app, db)
        stack.enter_context(app.app_context())
        pool = db.engine.pool
        assert type(pool) is poolproof.Pool
        assert (pool.size(), pool.timeout(), pool._recycle) == (2, 3, 77)
        assert (pool._max_overflow, pool._lifo) == (1, True)
        with db.engine.connect() as connection:
            assert connection.dialect.server_version_info
        assert connected == ([1] if order.startswith("after") else [])


def test_a_plain_engine_and_scoped_session_are_taken_too(pg_url, observer):
    app = flask.Flask("plain")
    engine = create_engine(pg_url("psycopg2"), pool_size=2)
    session = scoped_session(sessionmaker(engine))
    other = create_engine(pg_url("psycopg2"))
    integration.init_app(app, [session, other])
    assert type(engine.pool) is poolproof.Pool
    assert engine.pool.size() == 2
    assert type(other.pool) is poolproof.Pool

    @app.get("/")
    def index():
        observer.terminate(session.scalar(BACKEND))
        return "done"

    assert app.test_client().get("/").text == "done"
    assert not session.registry.has()
    assert engine.pool.stats().in_use == 0
    engine.dispose()
    other.dispose()


def test_the_session_is_removed_although_its_rollback_fails(app, order, observer):
    db = installed(app, order)

    @app.get("/")
    def index():
        for engine in (db.engines["reports"], db.engine):
            backend = db.session.scalar(BACKEND, bind_arguments={"bind": engine})
            observer.terminate(backend)
        return "done"

    @app.get("/again")
    def again():
        return str(db.session.scalar(select(1)))

    client = app.test_client()
    assert client.get("/").text == "done"
    assert not db.session.registry.registry
    with app.app_context():
        for engine in db.engines.values():
            assert engine.pool.stats().in_use == 0
    assert client.get("/again").text == "1"


def test_functions_that_use_the_session_at_teardown_keep_their_place(
    app, order, table, observer
):
    db = installed(app, order)

    @app.teardown_appcontext
    def finish(_error):
        db.session.commit()

    with app.app_context():
        db.session.execute(text(f"insert into {table} values (1)"))
    assert observer.value(f"select count(*) from {table}") == 1
    assert not db.session.registry.registry


def hold_all(db):
    """Take all connections of the pool out; the stack gives them back."""
    stack = contextlib.ExitStack()
    for _ in range(db.engine.pool.size()):
        stack.enter_context(db.engine.connect())
    return stack


def with_a_route(app, **options):
    db = installed(app, pool_size=1, max_overflow=0, pool_timeout=0.1, **options)

    @app.get("/")
    def index():
        return str(db.session.scalar(select(1)))

    return db


def test_an_exhausted_pool_is_answered_with_503_where_that_is_asked_for(driven):
    db = with_a_route(driven, answer_503=True, retry_after=4)
    driven.register_error_handler(503, lambda error: ("full", 503, error.get_headers()))
    client = driven.test_client()
    with driven.app_context(), hold_all(db):
        answer = client.get("/")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "4"
    assert answer.text == "full"
    assert client.get("/").text == "1"


def test_an_exhausted_pool_raises_by_default(app):
    db = with_a_route(app)
    with app.app_context(), hold_all(db), pytest.raises(poolproof.PoolTimeout):
        app.test_client().get("/")


def test_an_argument_goes_before_the_configuration_and_that_before_the_environment(
    app, monkeypatch
):
    for key in ("POOL_SIZE", "MAX_OVERFLOW", "POOL_TIMEOUT"):
        monkeypatch.setenv(f"POOLPROOF_{key}", "1")
    monkeypatch.setenv("POOLPROOF_POOL_USE_LIFO", "yes")
    monkeypatch.setenv("POOLPROOF_KEEP_ALIVE", "9, 8, 7")
    monkeypatch.setenv("POOLPROOF_HOLD_TIMEOUT", "none")
    app.config["POOLPROOF_MAX_OVERFLOW"] = 2
    app.config["POOLPROOF_POOL_TIMEOUT"] = 2
    db = installed(app, pool_timeout=3)
    with app.app_context():
        pool = db.engine.pool
        assert (pool.size(), pool._max_overflow, pool.timeout()) == (1, 2, 3)
        assert pool._lifo is True
        assert pool.settings.keep_alive == (9, 8, 7)
        assert pool.settings.hold_timeout is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("POOLPROOF_POOL_SIZE", "5"),
        ("POOLPROOF_POOL_SIZE", True),
        ("POOLPROOF_MAX_OVERFLOW", 1.5),
        ("POOLPROOF_POOL_TIMEOUT", "soon"),
        ("POOLPROOF_POOL_USE_LIFO", 1),
        ("POOLPROOF_POOL_PRE_PING", "sometimes"),
        ("POOLPROOF_HOLD_TIMEOUT", 0),
        ("POOLPROOF_KEEP_ALIVE", (1, 2)),
        ("POOLPROOF_POOL_RECYCLE", "1h"),
        ("POOLPROOF_ANSWER_503", "yes"),
        ("POOLPROOF_RETRY_AFTER", 0),
        ("POOLPROOF_POOLSIZE", 5),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(app, key, value):
    app.config[key] = value
    with pytest.raises(exc.ArgumentError, match=rf"^{key} "):
        integration.init_app(app)
    assert "poolproof" not in app.extensions


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("POOLPROOF_POOL_SIZE", "many"),
        ("POOLPROOF_POOL_USE_LIFO", "perhaps"),
        ("POOLPROOF_ANSWER_503", "2"),
        ("POOLPROOF_RETRY_AFTER", "1.5"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(app, monkeypatch, key, value):
    monkeypatch.setenv(key, value)
    with pytest.raises(exc.ArgumentError, match=rf"^{key} \(environment\)"):
        integration.init_app(app)


def test_what_does_not_exist_is_refused(app):
    with pytest.raises(TypeError, match="poolsize"):
        integration.init_app(app, poolsize=5)
    with pytest.raises(TypeError, match="str"):
        integration.init_app(app, "postgresql://")


def test_a_second_call_is_refused(app):
    integration.init_app(app)
    with pytest.raises(RuntimeError, match="already"):
        integration.init_app(app)


def test_the_doctor_prints_what_the_pools_see(driven, driver, order):
    url = driven.config["SQLALCHEMY_DATABASE_URI"].set(password="secret")  # noqa: S106
    driven.config["SQLALCHEMY_DATABASE_URI"] = url
    installed(driven, order, pool_size=3)
    done = driven.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert done.exit_code == 0, done.output
    for words in (
        f"default: postgresql+{driver}://",
        f"reports: postgresql+{driver}://",
        "pool: poolproof.Pool",
        "size 3, overflow 10",
        "idle 1, in use 0, waiting 0",
        "checkouts 1",
        "answered in ",
        "backend pid ",
    ):
        assert words in done.output
    assert ":***@" in done.output
    assert "secret" not in done.output


def test_the_doctor_names_who_holds(app):
    db = installed(app)
    with app.app_context(), db.engine.connect():
        done = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert "held by MainThread (process " in done.output


def test_the_doctor_fails_where_no_connection_is_to_be_had(app, refusing):
    app.config["SQLALCHEMY_BINDS"] = {"away": refusing.url("psycopg2")}
    installed(app, pool_timeout=0.2, checkout_timeout=0.5)
    done = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    assert done.exit_code == 1
    assert "NO CONNECTION" in done.output


def test_without_the_framework_the_error_names_the_extra():
    script = (
        "import sys; sys.modules['flask'] = None\nimport poolproof.integrations.flask"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "ImportError: poolproof.integrations.flask needs Flask" in done.stderr
    assert 'pip install "Flask>=2.3"' in done.stderr


def test_poolproof_imports_no_framework():
    script = (
        "import sys, poolproof, poolproof.plugin, poolproof.auto\n"
        "names = {'flask', 'flask_sqlalchemy', 'gunicorn', 'celery', 'luigi'}\n"
        "sys.exit(str(names & set(sys.modules)) if names & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
