"""Each check is bounded in time, and all of them together; what is late is skipped."""

from __future__ import annotations

import threading

import pytest

from poolproof.doctor.catalogue import CHECKS
from poolproof.doctor.check import Check
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.finding import fine
from poolproof.doctor.run import examine, meet_server
from poolproof.doctor.target import read
from poolproof.doctor.time_limit import TooLateError, within
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address


def a_check(run, *, code="PP199", seconds=0.2, needs="nothing"):
    words = dict.fromkeys(("name", "looks", "why", "fix", "problems"), "It.")
    return Check(
        code=code, worst="note", needs=needs, run=run, seconds=seconds, **words
    )


@pytest.fixture
def subject(pg_url):
    text = pg_url("psycopg2").render_as_string(hide_password=False)
    subject = read(text, Deployment())
    yield subject
    if subject.connection is not None:
        subject.connection.close()


def test_a_check_that_hangs_is_skipped_and_the_next_one_runs(subject):
    released = threading.Event()
    hangs = a_check(lambda _: released.wait(60))
    works = a_check(lambda _: fine("looked"), code="PP198")
    found = {one.code: one for one in examine(subject, [hangs, works]).findings}
    released.set()
    assert found["PP199"].state == "skipped"
    assert "had not ended after 0.2 s" in found["PP199"].summary
    assert found["PP198"].state == "fine"


def test_a_check_that_raises_is_skipped_with_what_it_said(subject):
    def breaks(_):
        raise OSError("no such device")

    (finding,) = examine(subject, [a_check(breaks)]).findings
    assert finding.state == "skipped"
    assert "no such device" in finding.summary


def test_without_time_left_it_is_skipped_and_not_fine(subject):
    works = a_check(lambda _: fine("looked"))
    (finding,) = examine(subject, [works], seconds=0.1).findings
    assert finding.state == "skipped"
    assert "no time was left" in finding.summary


def test_a_server_that_falls_silent_costs_no_more_than_its_bounds(pg, pg_url):
    """Five seconds are meant; the machine may be busy."""
    with Proxy(Address(host=pg.host, port=pg.port)) as proxy:
        url = pg_url("psycopg2").set(port=proxy.port)
        subject = read(url.render_as_string(hide_password=False), Deployment())
        meet_server(subject)
        proxy.stall()
        report = examine(subject, CHECKS)
        proxy.resume()
    states = {one.code: one.state for one in report.findings}
    assert states["PP206"] == states["PP401"] == "skipped"
    assert states["PP108"] == "fine"  # known before
    assert len(states) == len(CHECKS)
    assert report.seconds < 20


def test_a_call_that_is_late_is_left_behind():
    released, cut = threading.Event(), threading.Event()
    with pytest.raises(TooLateError):
        within(0.05, lambda: released.wait(60), late=cut.set)
    assert cut.is_set()
    released.set()
    with pytest.raises(KeyError):
        within(60, lambda: {}["absent"])
    assert within(60, lambda: None) is None
