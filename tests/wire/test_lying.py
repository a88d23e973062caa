"""A server that lies: an error, in time, and in bounded memory."""

from __future__ import annotations

import signal
import struct
import threading

import pytest

from plugins.liar import LET_IN, READY, Liar, columns, peak, row
from plugins.wire import message
from poolproof._native import WireError

# Far more than is meant, and far less than what is announced, or comes in a second.
MOST = 400 << 20
ENDED = message(b"C", b"SELECT 1\0")
NOTICE = message(b"N", b"SNOTICE\0VNOTICE\0Mhush\0\0")
LONG = message(b"N", b"SNOTICE\0VNOTICE\0M" + b"x" * (1 << 20) + b"\0\0")


class Struck(Exception):  # noqa: N818 - what a signal's handler raises
    pass


@pytest.fixture
def liar():
    made = []

    def start(**speech):
        made.append(Liar(**speech))
        return {"host": "127.0.0.1", "port": made[-1].port, "sslmode": "disable"}

    yield start
    for one in made:
        one.close()


@pytest.fixture
def refused(make_wire):
    def connect(place, timeout_s=2):
        caught = []

        def action():
            with pytest.raises(WireError) as error:
                make_wire(**place, password="x", timeout_s=timeout_s)  # noqa: S106
            caught.append(error.value)

        assert peak(action) < MOST
        return caught[0]

    return connect


LOGINS = {
    "a length of 2 GiB": b"R\x7f\xff\xff\xff" + b"x" * 1000,
    "a negative length": b"R\xff\xff\xff\xf0" + b"x" * 1000,
    "a length that is none": b"R\0\0\0\3",
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "nothing but the end": READY,
    "a row": LET_IN[:9] + row(b"1"),
    "an error without an end": message(b"E", b"SFATAL\0M" + b"x" * 100),
}
LOGINS_WITHOUT_END = {
    "passwords": message(b"R", struct.pack("!i", 3)),
    "hashes": message(b"R", struct.pack("!i", 5) + b"salt"),
    "being let in": message(b"R", struct.pack("!i", 0)),
    "SCRAM": message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"),
    "settings": LET_IN[:9] + message(b"S", b"name\0" + b"x" * 1000 + b"\0"),
    "notices": NOTICE,
    "long notices": LET_IN[:9] + LONG,
    "keys": LET_IN[:9] + message(b"K", bytes(8)),
    "versions": message(b"v", bytes(8)),
    # Made when it is wanted: all workers, and all their forks, would have it.
    "a length that it keeps": lambda: message(b"S", b"n\0" + b"x" * (60 << 20) + b"\0")[
        :-1
    ],
}


@pytest.mark.parametrize("login", LOGINS)
def test_login_that_is_none_is_an_error(liar, refused, login):
    error = refused(liar(login=LOGINS[login]))
    assert error.kind in {"connect", "timeout", "server"}


@pytest.mark.parametrize("login", LOGINS_WITHOUT_END)
def test_login_without_an_end_is_an_error_in_time(liar, refused, login):
    said = LOGINS_WITHOUT_END[login]
    said = said() if callable(said) else said
    error = refused(liar(login=said, login_ends=False))
    assert error.kind in {"connect", "timeout"}


def test_login_that_says_little_all_the_time_is_late(liar, refused):
    # A question of the driver's own, which is answered with notices.
    place = liar(login=LET_IN, answer=NOTICE, answer_ends=False)
    error = refused(place | {"target_session_attrs": "read-only"})
    assert error.kind == "timeout"


ANSWERS = {
    "a length of 2 GiB": b"D\x7f\xff\xff\xff" + b"x" * 1000,
    "a negative length": b"T\xff\xff\xff\xf0" + b"x" * 1000,
    "a row of more columns": columns(1) + row(b"1", b"2") + ENDED + READY,
    "a row of fewer columns": columns(2) + row(b"1") + ENDED + READY,
    "a row that says it had more": columns(2) + row(b"1", told=2) + ENDED + READY,
    "a row of 65535 columns": columns(1) + row(b"1", told=65535) + ENDED + READY,
    "columns that are not there": columns(1, told=65535) + row(b"1") + ENDED + READY,
    "more columns than it said": columns(3, told=1) + row(b"1") + ENDED + READY,
    "a value of 2 GiB": columns(1)
    + message(b"D", b"\0\1\x7f\xff\xff\xff1")
    + ENDED
    + READY,
    "a value of a negative length": columns(1)
    + message(b"D", b"\0\1\xff\xff\xff\xfe")
    + ENDED
    + READY,
    "a row too few": columns(1) + ENDED + READY,
    "a row too many": columns(1) + row(b"1") * 2 + ENDED + READY,
    "no end of the statement": columns(1) + row(b"1") + READY,
    "an end that is none": columns(1) + row(b"1") + ENDED + message(b"Z", b"X"),
    "a key": message(b"K", bytes(8)),
    "a password": message(b"R", struct.pack("!i", 3)),
    "a setting of a megabyte": message(b"S", b"name\0" + b"x" * (1 << 20) + b"\0"),
}


@pytest.mark.parametrize("parameters", [None, ["1"]])
@pytest.mark.parametrize("answer", ANSWERS)
def test_answer_that_is_none_is_an_error(liar, make_wire, answer, parameters):
    wire = make_wire(**liar(answer=ANSWERS[answer]))
    caught = []

    def ask():
        with pytest.raises(WireError) as error:
            wire.execute("select 1", parameters)
        caught.append(error.value)

    assert peak(ask) < MOST
    assert wire.closed
    assert (caught[0].kind, caught[0].lost) == ("out_of_step", True)


FLOODS = {
    "notices": NOTICE,
    "long notices": LONG,
    "settings": message(b"S", b"name\0" + b"x" * 1000 + b"\0"),
    "notifications": message(b"A", bytes(4) + b"c\0" + b"x" * 7999 + b"\0"),
}


@pytest.mark.parametrize("parameters", [None, ["1"]])
@pytest.mark.parametrize("flood", FLOODS)
def test_flood_in_a_request_can_be_interrupted(liar, make_wire, flood, parameters):
    wire = make_wire(**liar(answer=FLOODS[flood], answer_ends=False))

    def handler(*_):
        raise Struck

    before = signal.signal(signal.SIGALRM, handler)

    def ask():
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(Struck):
            wire.execute("select 1", parameters)

    try:
        assert peak(ask) < MOST
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert wire.closed


def test_flood_lets_other_threads_run_and_ends_when_it_is_closed(liar, make_wire):
    wire = make_wire(**liar(answer=NOTICE, answer_ends=False))
    closing = threading.Timer(0.5, wire.close)
    closing.start()
    with pytest.raises(WireError) as caught:
        wire.execute("select 1")
    assert caught.value.kind == "closed"
    closing.join()


def test_flood_while_a_notification_is_waited_for_ends_in_time(liar, make_wire):
    wire = make_wire(**liar(unasked=NOTICE))
    assert wire.wait_notification(0.5) is False
    assert wire.notices()
