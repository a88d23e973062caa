"""Connection strings are read as libpq itself reads them."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from poolproof import _native
from poolproof.drivers.server_params import from_dsn, from_pool

SECRET = "s3cr3t"  # noqa: S105


def libpq(text: bytes) -> dict[str, bytes] | None:
    """Return what libpq finds in a text; None where it refuses it."""
    try:
        options = psycopg.pq.Conninfo.parse(text)
    except psycopg.OperationalError:
        return None
    return {
        option.keyword.decode(): option.val
        for option in options
        if option.val is not None
    }


def ours(text: bytes) -> dict[str, bytes] | None:
    """Return what the control plane finds in it."""
    error = ""
    try:
        return dict(_native.parse_conninfo(text))
    except _native.Refused as refused:
        error = refused.args[1]
    assert error
    assert SECRET not in error
    return None


WORDS = (
    *("host", "port", "user", "password", "dbname", "hostaddr", "sslmode", "options"),
    *("application_name", "requiressl", "ssl", "true", "1", "0", "5432", "nothing"),
    *("h", "h2", "u", SECRET, "::1", "1.2.3.4", "%2Fsocket", "%20", "%41", "%00", "%4"),
    *("=", "&", "?", "/", ":", "@", ",", "[", "]", "'", "\\", "\\ ", "\\'", "%40"),
    *(" ", "\t", "\n", "\v", "\f", "\r", "\u00e9", "\u2028", "\x1c", "\x85"),
)
PIECES = st.lists(st.sampled_from(WORDS), max_size=14).map("".join)
NAMES = st.sampled_from(("host", "port", "user", "password", "dbname", "requiressl"))
SPACES = st.text(" \t\v\n", max_size=2)


@st.composite
def pairs(draw):
    """Make pairs, with the spaces and quotes that there may be."""
    text = ""
    for _ in range(draw(st.integers(0, 4))):
        value = draw(st.text(f" '\\\t\vx{SECRET}=@:/\u00e9", max_size=6))
        quote = draw(st.sampled_from(("'", "")))
        text += draw(SPACES) + draw(NAMES) + draw(SPACES) + "=" + draw(SPACES)
        text += quote + value + quote + draw(st.sampled_from((" ", "", "\v")))
    return text


@st.composite
def urls(draw):
    """Make URLs of likely parts."""
    part = st.text("ab1%2F .:[],=\t", max_size=4)
    text = draw(st.sampled_from(("postgresql://", "postgres://")))
    if draw(st.booleans()):
        text += draw(part) + draw(st.sampled_from((":", ""))) + draw(part) + "@"
    hosts = st.sampled_from(
        ("h", "", "[::1]", "[]", "[a", "%2Fs", "h h", ",", "1.2.3.4")
    )
    ports = st.sampled_from(("", ":1", ":", ":1:2", ": 1", "x"))
    for n in range(draw(st.integers(1, 3))):
        text += "," * (n > 0) + draw(hosts) + draw(ports)
    text += draw(st.sampled_from(("", "/", "/d", "/d b", "/d/e", "/ d ", "/%64")))
    values = st.sampled_from(("", "h", "1", "true", "a b", " a ", "%20a", "a=b", "a%"))
    names = st.sampled_from(
        ("host", "port", "dbname", "ssl", "requiressl", "sslmode", "%68ost", "", "x")
    )
    if draw(st.booleans()):
        text += "?"
        for n in range(draw(st.integers(0, 3))):
            text += "&" * (n > 0) + draw(names) + draw(st.sampled_from(("=", "")))
            text += draw(values)
        text += draw(st.sampled_from(("", "&", "&&")))
    return text


def body_of(text: str) -> str:
    """Return what follows the scheme of a URL; nothing where it is none."""
    for scheme in ("postgresql://", "postgres://"):
        if text.startswith(scheme):
            return text.removeprefix(scheme)
    return ""


def is_refused_on_purpose(text: str) -> bool:
    """Tell whether it has a second @, or one after a /: part of a password, perhaps."""
    body = body_of(text)
    ends = [body.find(mark) for mark in "@/" if mark in body]
    first = min(ends, default=0)
    rest = body[first + 1 :] if body[first : first + 1] == "@" else body
    return "@" in rest.partition("?")[0] or ("[" in rest and "@" in rest)


def is_sqlalchemy_s(text: str) -> bool:
    """Tell whether it may have a form that SQLAlchemy alone has: host=name:port."""
    query = body_of(text).partition("?")[2]
    return "plugin" in query or ("ost=" in query and (":" in query or "%3A" in query))


@settings(
    max_examples=400,
    deadline=None,  # a busy machine
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.one_of(
        *(pairs(), urls(), PIECES, PIECES.map("postgresql://".__add__)),
        st.builds("{}{}{}".format, SPACES, urls(), SPACES),
    )
)
@example(" postgresql://h/d")
@example("postgresql://h/d\n")
@example("postgresql://h/d ")
@example("\npostgresql://h:1\n")
@example(" postgresql://h/d?host=a")
@example("postgresql://u:p @h\t/d?host=a ")
@example("postgresql://h/d?host=")
@example("postgresql://h/d?host=a&host=b")
@example("postgresql://a b/d")
@example("postgresql://u%20v: p @h/d")
@example("postgresql://[]/d")
@example("postgresql://h/d?&host=a")
@example("postgresql://h/d?host=a&")
@example("postgresql://h,/d")
@example("postgresql://,,:/d")
@example("postgresql://[a/b?c]:1/d")
@example("postgresql://h/d?host=a=b")
@example("postgresql://h/d?%68ost=x")
@example("host=h\vuser=u")
@example("password=abc\\ ")
@example("password=abc\\")
@example("password='abc\\")
@example("  host = h ")
@example("=x")
def test_a_text_is_read_as_by_libpq(text):
    assume("\0" not in text)
    assume(not is_sqlalchemy_s(text))
    theirs = libpq(text.encode())
    mine = ours(text.encode())
    if is_refused_on_purpose(text):
        assert mine is None or mine == theirs
    else:
        assert mine == theirs


def test_a_url_with_a_driver_is_read_as_by_sqlalchemy():
    for url in (
        "postgresql+psycopg2://u:p@/d?host=a,b&port=1,2",
        "postgresql+psycopg2://u:p@/d?host=a&host=b",
        "postgresql+psycopg2://u:p@/d?host=a:1&host=b:2",
        "postgresql+psycopg2://u:p@h:3/d",
        "postgresql+psycopg2://u+v:p@h/d?application_name=a+b%2Bc%20d",
        "postgresql+psycopg2://u@h/d?user=x+y&dbname=a+b",
        "postgresql+psycopg2://u@h/d?sslmode=&application_name=",
    ):
        engine = create_engine(url)
        known = from_pool(engine.pool, engine.dialect)
        assert from_dsn(url).places() == known.places()
        assert repr(from_dsn(url)) == repr(known)


def test_an_empty_host_is_the_socket_s_directory_whatever_the_environment(monkeypatch):
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGUSER", "u")
    for dsn in ("postgresql:///d?host=", "host='' dbname=d"):
        [(host, _, _)] = from_dsn(dsn).places()
        assert host.startswith("/")
    [(host, _, _)] = from_dsn("postgresql:///d").places()
    assert host == "elsewhere"


@pytest.mark.parametrize("name", ["dbname", "user", "application_name", "host"])
def test_a_url_that_strays_into_a_parameter_is_not_shown(name):
    url = f"postgresql://u:{SECRET}@h/d"
    given_so = from_dsn(f"{name}='{url}'")
    assert SECRET not in repr(given_so)
    arguments = {"dbname" if name == "dbname" else name: url}
    engine = create_engine("postgresql+psycopg2://u@h/d", connect_args=arguments)
    assert SECRET not in repr(from_pool(engine.pool, engine.dialect))
