"""The table of libpq's keywords is whole, and shown as it is."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, exc

from poolproof import Lease, Pool, _native
from poolproof.drivers.server_params import from_dsn, from_pool

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BY_NAME = {name: (variable, told) for name, variable, told in _native.keywords()}


def test_the_table_has_every_keyword_of_the_installed_libpq():
    for option in psycopg.pq.Conninfo.get_defaults():
        variable, _ = BY_NAME[option.keyword.decode()]
        assert variable == (option.envvar or b"").decode()


def test_the_page_shows_the_table():
    rows = re.findall(
        r"^\| `(\w+)` \| `?(\w*)`? ?\| (.*) \|$", PAGE.read_text(), re.MULTILINE
    )
    shown = {name: (variable, told) for name, variable, told in rows}
    assert shown == BY_NAME


REFUSED = {
    "gssencmode": "require",
    "min_protocol_version": "3.2",
    "replication": "database",
    "scram_client_key": "x",
    "something_new": "1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_at_control_dsn_and_at_the_first_lease(name):
    value = REFUSED[name]
    with pytest.raises(exc.ArgumentError, match=name):
        create_engine(
            "postgresql+psycopg2://h/d",
            poolclass=Pool,
            control_dsn=f"host=h {name}={value}",
        )
    for driver in ("psycopg2", "psycopg"):
        engine = create_engine(f"postgresql+{driver}://h/d", connect_args={name: value})
        with pytest.raises(exc.ArgumentError, match=name):
            Lease(engine, "x").acquire()


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("PGGSSENCMODE", "gssencmode"),
        ("PGMINPROTOCOLVERSION", "min_protocol_version"),
    ],
)
def test_a_variable_counts_as_its_keyword(monkeypatch, variable, name):
    monkeypatch.setenv(variable, "require")
    with pytest.raises(exc.ArgumentError, match=name):
        from_dsn("host=h")


def test_what_is_the_driver_s_own_is_none_of_libpq_s():
    own = {
        "psycopg2": {"cursor_factory": None, "async_": 0, "connection_factory": None},
        "psycopg": {"autocommit": True, "prepare_threshold": None, "context": None},
    }
    for driver, arguments in own.items():
        engine = create_engine(f"postgresql+{driver}://u@h/d", connect_args=arguments)
        assert from_pool(engine.pool, engine.dialect).places() == [("h", None, 5432)]


def test_pg8000_reads_no_environment(monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGPORT", "7")
    engine = create_engine("postgresql+pg8000://u@h/d")
    given = from_pool(engine.pool, engine.dialect)
    assert given.places() == [("h", None, 5432)]
    assert "mode: Prefer" in repr(given)
