"""The PgBouncer of the drill is a real one, lets nobody in, and goes away."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

import poolproof.drill.pooler as module
from plugins.server import unavailable
from plugins.threads import eventually
from poolproof.drill.errors import SetupError
from poolproof.drill.incidents import INCIDENTS
from poolproof.drill.pooler import Pooler, program
from poolproof.drill.target import DRIVERS

GUESS = "not-the-password"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_each_driver_reaches_the_server_through_it(pooler, driver, way):
    running = pooler()
    target = running.target if way == "tcp" else type(running.target)(running.unix_url)
    url, arguments = target.for_driver(driver)
    engine = create_engine(url, connect_args=arguments, poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_two_clients_share_one_session_of_the_server(pooler):
    url = pooler(default_pool_size=1).url.set(drivername="postgresql+psycopg2")
    engine = create_engine(url, poolclass=NullPool)
    pids = set()
    with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            pids.add(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            connection.rollback()
    assert len(pids) == 1


def test_it_closes_a_client_that_idles_too_long(pooler):
    running = pooler(client_idle_timeout=1)
    url = running.url.set(drivername="postgresql+psycopg2")
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.rollback()
        eventually(lambda: "client_idle_timeout" in running.log())
        with pytest.raises(OperationalError, match=r"client_idle_timeout|closed"):
            connection.execute(text("SELECT 1"))


def test_nobody_gets_in_without_its_password(pooler):
    url = pooler().url.set(drivername="postgresql+psycopg2", password=GUESS)
    with pytest.raises(OperationalError, match="authentication failed"):
        create_engine(url, poolclass=NullPool).connect()


def test_it_obeys_on_its_console(pooler):
    running = pooler(default_pool_size=3)
    settings = {row["key"]: row["value"] for row in running.command("SHOW CONFIG")}
    assert settings["default_pool_size"] == "3"
    assert running.command("PAUSE") == []


def test_stop_removes_its_directory_and_may_be_called_twice(pooler):
    running = pooler()
    directory = running.directory
    assert (directory / "users").stat().st_mode & 0o077 == 0
    running.stop()
    assert not directory.exists()
    running.stop()
    with pytest.raises(SetupError, match="PgBouncer was not started"):
        _ = running.url


def test_a_setting_that_it_does_not_know_is_said_in_its_own_words(pooler):
    with pytest.raises(SetupError, match=r"PgBouncer cannot run: .*no_such_setting"):
        pooler(no_such_setting=1)


def test_without_the_program_its_package_is_named(target, monkeypatch):
    monkeypatch.setattr(module, "program", lambda: None)
    with pytest.raises(SetupError, match="Debian's package pgbouncer"):
        Pooler(target).start()
    assert "Debian's package pgbouncer" in module.lacks()
    assert "Debian's package pgbouncer" in INCIDENTS["lease-reaped"].lacks()


def test_a_server_that_asks_for_a_password_lets_it_in(server, target):
    if program() is None:
        unavailable("no PgBouncer: install Debian's package 'pgbouncer'")
    with Pooler(target) as running:
        url = running.url.set(drivername="postgresql+psycopg2")
        with create_engine(url, poolclass=NullPool).connect() as connection:
            assert connection.execute(text("SELECT current_user")).scalar_one() == (
                server.url.username
            )
