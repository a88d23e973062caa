"""Calls with a clock: what came back, how late, and what never did."""

from __future__ import annotations

import sys
import threading
import time

from poolproof.drill.calls import SLACK_S, Call, Control, all_at_once, join


def test_a_call_in_time_is_not_late_and_is_cleaned_up_outside_its_time():
    closed = []

    def close(value: object) -> None:
        time.sleep(1.2)
        closed.append(value)

    call = Call(lambda: 7, 1.0, close)
    all_at_once([call], 1.0)
    assert join([call], 20)
    assert call.late_s == 0
    assert closed == [7]


def test_a_late_call_says_how_late():
    call = Call(lambda: time.sleep(0.2), 0.05)
    all_at_once([call], 20)
    assert call.has_returned
    assert 0.15 <= call.late_s < 10
    assert call.late_s > SLACK_S


def test_a_call_that_raises_is_a_call_that_came_back():
    def fail() -> None:
        raise ValueError("no\nmore")

    call = Call(fail, 1.0)
    all_at_once([call], 20)
    assert call.has_returned
    assert call.complaint == "ValueError: no"


def test_a_call_that_never_comes_back_is_waited_for_no_longer_than_told():
    gate = threading.Event()
    call = Call(gate.wait, 0.05)
    began = time.monotonic()
    all_at_once([call], 0.1)
    assert time.monotonic() - began < 10
    assert not call.has_returned
    assert not join([call], 0.05)
    call.freeze()
    late = call.late_s
    gate.set()
    assert join([call], 20)
    assert call.late_s == late >= 0.1


def test_what_the_machine_oversleeps_is_taken_off_and_what_a_call_idles_is_not():
    """The interpreter's lock stands in for a machine that lets nobody run."""
    sleepy = Call(lambda: time.sleep(0.25), 0.05)
    starved = Call(lambda: (time.sleep(0.05), spin(0.25)), 0.05)
    interval = sys.getswitchinterval()
    with Control() as control:
        all_at_once([sleepy], 20)
        sys.setswitchinterval(0.5)
        try:
            all_at_once([starved], 20)
        finally:
            sys.setswitchinterval(interval)
    assert min(sleepy.late_s, starved.late_s) >= 0.2
    assert control.late_s(starved) > 0.1
    assert control.excess_s(starved) < control.excess_s(sleepy)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
