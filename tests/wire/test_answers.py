"""Answers belong to their questions, whatever stands between client and server."""

from __future__ import annotations

import contextlib

import pytest

from plugins.harm import Proxy
from plugins.wire import answer, message
from poolproof._native import WireError


@pytest.fixture
def proxy(pg):
    made = Proxy(("127.0.0.1", pg.port))
    yield made
    made.close()


@pytest.fixture
def behind(proxy, make_wire):
    return lambda: make_wire(port=proxy.port)


STRAYS = {
    "a whole answer": answer("wrong"),
    "a row": message(b"D", b"\0\1\0\0\0\5wrong"),
    "an end": message(b"C", b"SELECT 1\0"),
    "rest": message(b"Z", b"I"),
    "an error": message(b"E", b"SERROR\0VERROR\0C42601\0Mwrong\0\0"),
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a length without end": b"T\x7f\xff\xff\xff",
}


@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("parameters", [None, ["right"]])
def test_what_nobody_has_asked_for_is_an_error_at_that_request(
    stray, parameters, proxy, behind
):
    wire = behind()
    statement = "select $1::text" if parameters else "select 'right'"
    assert wire.execute(statement, parameters).rows == [("right",)]
    proxy.inject(STRAYS[stray])
    with pytest.raises(WireError) as caught:
        wire.execute(statement, parameters)
    assert (caught.value.kind, caught.value.lost) == ("out_of_step", True)
    assert wire.closed
    assert "wrong" not in str(caught.value)


def test_what_came_between_two_requests_is_an_error_before_the_next_is_sent(
    proxy, behind, observer, table
):
    wire = behind()
    # A notice of another session wakes the way down, and the stray goes with it.
    wire.execute("listen between")
    proxy.inject(answer("wrong"))
    observer.rows("notify between")
    assert _came(wire)
    with pytest.raises(WireError) as caught:
        wire.execute(f"insert into {table} values (1)")
    assert (caught.value.kind, caught.value.outcome) == ("out_of_step", "not done")
    assert observer.value(f"select count(*) from {table}") == 0


def _came(wire):
    import select

    return select.select([wire.fileno()], [], [], 20)[0]


def test_a_connection_that_is_cut_is_lost_and_says_so(proxy, behind):
    wire = behind()
    wire.execute("select 1", begin="BEGIN")
    proxy.cut()
    with pytest.raises(WireError) as caught:
        wire.commit()
    assert caught.value.kind == "closed"
    assert wire.closed
    wire = behind()
    proxy.reset()
    with pytest.raises(WireError) as caught:
        wire.execute("select 1")
    assert caught.value.kind == "closed"


def test_of_many_strays_at_random_moments_none_reaches_a_caller(proxy, behind):
    """The proxy puts a stray before an answer again and again."""
    wire = behind()
    errors = 0
    for n in range(300):
        if n % 7 == 3:
            proxy.inject(list(STRAYS.values())[n % len(STRAYS)])
        try:
            assert wire.execute("select $1::text", [f"own {n}"]).rows == [(f"own {n}",)]
        except WireError:
            errors += 1
            with contextlib.suppress(WireError):
                wire.close()
            wire = behind()
    assert errors == len([n for n in range(300) if n % 7 == 3])
