"""How the control plane reaches the server that an engine uses."""

from __future__ import annotations

import ssl

import pytest
from sqlalchemy import create_engine, exc
from sqlalchemy.ext.asyncio import create_async_engine

from poolproof import Lease
from poolproof.control.server import server_of
from poolproof.drivers.server_params import from_dsn, from_pool
from poolproof.integrations.naming import Naming


def _from(engine):
    return from_pool(engine.pool, engine.dialect)


SECRET = "s3cr:t\\x"  # noqa: S105


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch, tmp_path):
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_url_with_a_list_of_hosts():
    url = "postgresql+psycopg2://u:p@/d?host=a:1&host=b:2&target_session_attrs=any"
    given = _from(create_engine(url))
    assert given.places() == [("a", None, 1), ("b", None, 2)]
    assert 'user: "u", database: "d"' in repr(given)
    assert repr(given) == repr(from_dsn(url))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_libpq_s_options_come_from_arguments_and_environment(driver, monkeypatch):
    monkeypatch.setenv("PGHOST", "h")
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("PGSSLMODE", "require")
    arguments = {"application_name": "a" * 60, "connect_timeout": 7, "port": "6"}
    given = _from(create_engine(f"postgresql+{driver}://u@/d", connect_args=arguments))
    assert given.places() == [("h", None, 6)]
    assert "mode: Require" in repr(given)
    assert "connect_timeout: Some(7s)" in repr(given)


def test_pairs_may_be_quoted():
    given = from_dsn("host=h user='it\\'s me' dbname = 'a b' hostaddr=1.2.3.4")
    assert """user: "it's me", database: "a b\"""" in repr(given)
    assert given.places() == [("h", "1.2.3.4", 5432)]


def test_pg8000_s_own_arguments():
    url = "postgresql+pg8000://u:p@h:6/d"
    off = create_engine(url, connect_args={"ssl_context": False})
    assert "mode: Disable" in repr(_from(off))
    assert "mode: Prefer" in repr(_from(create_engine(url)))
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    any_one = create_engine(url, connect_args={"ssl_context": unchecked})
    assert "mode: Require" in repr(_from(any_one))
    local = create_engine(
        "postgresql+pg8000://u@/d", connect_args={"unix_sock": "/s/.s.PGSQL.7"}
    )
    assert _from(local).places() == [("/s", None, 7)]


def test_asyncpg_s_engine_will_do():
    engine = create_async_engine("postgresql+asyncpg://u:p@h:6/d?ssl=require")
    given = _from(engine.sync_engine)
    assert given.places() == [("h", None, 6)]
    assert "mode: Require" in repr(given)


def test_the_names_of_the_integrations_lead_to_no_other_server():
    """A worker that names its sessions may have leases on the same engine."""
    url = "postgresql+psycopg2://u:p@h:6/d"
    naming = Naming(lambda: "worker", lambda: "", renames=False)
    naming.begin()
    try:
        assert repr(_from(create_engine(url))) == repr(from_dsn(url))
    finally:
        naming.end()


def custom_creator(url):
    return create_engine(url, creator=lambda: None)


def function_as_password(url):
    return create_engine(url, connect_args={"password": lambda: SECRET})


def custom_async_creator(url):
    url = url.replace("psycopg2", "asyncpg")
    return create_async_engine(url, async_creator=lambda: None)


def checked_context(url):
    url = url.replace("psycopg2", "pg8000")
    return create_engine(
        url, connect_args={"ssl_context": ssl.create_default_context()}
    )


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (custom_creator, "the engine has a creator of its own"),
        (custom_async_creator, "the engine has a creator of its own"),
        (function_as_password, "the password is made by a function"),
        (checked_context, "SSLContext"),
    ],
)
def test_what_cannot_be_known_asks_for_a_dsn_of_its_own(make, cause, pg_url, name):
    engine = make(pg_url("psycopg2").render_as_string(hide_password=False))
    for _ in range(2):  # nor does the first refusal lead to a guess
        with pytest.raises(exc.ArgumentError, match=f"{cause}.*control_dsn=") as caught:
            Lease(engine, name).acquire()
    assert SECRET not in str(caught.value)
    url = pg_url("psycopg2").set(drivername="postgresql")
    with Lease(engine, name, control_dsn=str(url)) as lease:
        lease.check()


def test_the_dsn_of_the_pool_is_taken(make_engine, pg_url, name):
    def connect():
        pytest.fail("a lease needs none of the pool's connections")

    dsn = str(pg_url("psycopg2").set(drivername="postgresql"))
    engine = make_engine("postgresql+psycopg2://", creator=connect, control_dsn=dsn)
    with Lease(engine, name) as lease:
        lease.check()


@pytest.mark.parametrize(
    "dsn",
    ["", "mysql://u:s3cret@h/d", "://s3cret", "host=h password='s3cret", "s3"],
)
def test_a_dsn_that_cannot_be_read_is_not_quoted(dsn):
    with pytest.raises(exc.ArgumentError, match="control_dsn") as caught:
        from_dsn(dsn)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn", ["host=a,b port=1,2,3", "host=a,b hostaddr=1.1.1.1", "port=x", "port=70000"]
)
def test_hosts_and_ports_must_fit(dsn):
    with pytest.raises(exc.ArgumentError):
        from_dsn(dsn)


def test_of_two_hosts_the_one_that_is_there_is_taken(pg, make_engine, name):
    query = f"host=127.0.0.1:1&host={pg.host}:{pg.port}"
    engine = make_engine(f"postgresql+psycopg2://postgres@/postgres?{query}")
    with Lease(engine, name) as lease:
        lease.check()


def test_one_engine_has_one_server(engine):
    assert server_of(engine) is server_of(engine)
    assert "password" not in repr(server_of(engine))
