"""What a person typed, spelled for each driver, without its secrets."""

from __future__ import annotations

import ssl

import pytest

from poolproof.drill.errors import UsageError
from poolproof.drill.target import Address, Target

ODD = "p@ss/w'ord%"
QUOTED = "p%40ss%2Fw%27ord%25"


@pytest.fixture
def target() -> Target:
    return Target.parse(
        f"postgresql+asyncpg://user:{QUOTED}@db:6543/app?plugin=poolproof"
    )


@pytest.mark.parametrize(
    "text", ["postgres://h/d", "postgresql+psycopg://h/d", " postgresql://h/d "]
)
def test_every_spelling_of_postgresql_is_understood(text):
    assert Target.parse(text).render() == "postgresql://h/d"


@pytest.mark.parametrize(
    "text", ["", "h/d", "sqlite://", "postgresql://u:secret@h:x/d"]
)
def test_what_is_no_url_of_postgresql_is_refused_without_being_quoted(text):
    with pytest.raises(UsageError) as refused:
        Target.parse(text)
    assert "secret" not in str(refused.value)


def test_the_drill_chooses_driver_and_pool(target):
    url, _ = target.for_driver("psycopg2")
    assert url.drivername == "postgresql+psycopg2"
    assert "plugin" not in url.query
    assert url.password == ODD


@pytest.mark.parametrize(
    "spelling", [ODD, QUOTED, repr(ODD)[1:-1], f"dsn: password={ODD} x"]
)
def test_every_spelling_of_the_password_is_blotted_out(target, spelling):
    blotted = target.redact(f"could not use {spelling}")
    assert "***" in blotted
    assert ODD not in blotted
    assert QUOTED not in blotted


def test_the_password_is_neither_shown_nor_in_the_repr(target):
    assert ODD not in target.shown() + repr(target)
    assert QUOTED not in target.shown() + repr(target)
    assert target.shown() == "postgresql://user:***@db:6543/app"


def test_a_password_in_the_query_is_blotted_out_too():
    target = Target.parse("postgresql://db/app?user=u&password=hush")
    assert target.redact("hush") == "***"
    assert "hush" not in target.shown()


def test_pg8000_is_given_its_own_words(tmp_path):
    target = Target.parse(
        f"postgresql://u@/app?host={tmp_path}&sslmode=disable&connect_timeout=3"
    )
    url, arguments = target.for_driver("pg8000")
    assert arguments == {"unix_sock": f"{tmp_path}/.s.PGSQL.5432", "ssl_context": False}
    assert not url.query


@pytest.mark.parametrize(
    ("mode", "checks", "name"),
    [
        ("require", ssl.CERT_NONE, False),
        ("verify-ca", ssl.CERT_REQUIRED, False),
        ("verify-full", ssl.CERT_REQUIRED, True),
    ],
)
def test_pg8000_checks_what_sslmode_asks_for(mode, checks, name):
    _, arguments = Target.parse(f"postgresql://h/d?sslmode={mode}").for_driver("pg8000")
    context = arguments["ssl_context"]
    assert context.verify_mode == checks
    assert context.check_hostname is name


def test_a_parameter_that_pg8000_lacks_is_refused_by_name():
    with pytest.raises(UsageError, match="'channel_binding'"):
        Target.parse("postgresql://h/d?channel_binding=require").for_driver("pg8000")


def test_the_address_of_a_host_and_of_a_socket(tmp_path, monkeypatch):
    monkeypatch.delenv("PGPORT", raising=False)
    assert Target.parse("postgresql://db:6543/app").address() == Address("db", 6543)
    assert Target.parse("postgresql://db/app").address() == Address("db", 5432)
    path = tmp_path / ".s.PGSQL.6000"
    path.touch()
    socket = Target.parse(f"postgresql://:6000/app?host={tmp_path}")
    assert socket.address() == Address(port=6000, path=str(path))


def test_a_proxy_stands_in_for_the_host():
    through = Target.parse("postgresql://db/app").through(7000)
    assert through.render() == "postgresql://127.0.0.1:7000/app"


def test_a_checked_certificate_still_names_the_real_host():
    through = Target.parse("postgresql://db/app?sslmode=verify-full").through(7000)
    url, _ = through.for_driver("psycopg")
    assert url.host == "db"
    assert url.query["hostaddr"] == "127.0.0.1"
    with pytest.raises(UsageError, match="pg8000 cannot check"):
        through.for_driver("pg8000")


def test_no_driver_asks_for_tls_where_there_is_none(target):
    plain = target.without_tls()
    assert plain.for_driver("pg8000")[1] == {"ssl_context": False}
    assert plain.for_driver("asyncpg")[1] == {"ssl": False}
    assert plain.through(1).for_driver("psycopg2")[0].query["sslmode"] == "disable"


def test_asyncpg_is_given_its_own_words():
    target = Target.parse("postgresql:///d?host=/run/pg&sslmode=disable")
    url, arguments = target.for_driver("asyncpg")
    assert url.query == {}
    assert arguments == {"host": "/run/pg", "ssl": False}
    with pytest.raises(UsageError, match=r"asyncpg does not know .*'channel_binding'"):
        Target.parse("postgresql://h/d?channel_binding=require").for_driver("asyncpg")
