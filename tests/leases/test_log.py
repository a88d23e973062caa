"""What the log says of leases and heartbeats."""

from __future__ import annotations

import logging

import pytest

from poolproof import Heartbeat, Lease, LeaseLost


@pytest.fixture
def said(caplog):
    """Return a function that gives the log's lines that hold a text."""
    caplog.set_level(logging.INFO, "poolproof.lease")

    def lines(part, level):
        return [
            one.getMessage()
            for one in caplog.records
            if (one.name, one.levelname) == ("poolproof.lease", level)
            and part in one.getMessage()
        ]

    return lines


def test_a_loss_is_a_warning_once(engine, name, observer, eventually, said):
    lease = Lease(engine, name, ttl=1).acquire()
    observer.rows("delete from poolproof_lease where name = %s", name)
    eventually(lease.lost.is_set)
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()
    (line,) = said(name, "WARNING")
    assert "is lost: its row was deleted" in line


def test_blips_and_their_end_are_infos(engine, name, observer, eventually, said):
    table = "leases_with_blips"
    try:
        with Lease(engine, name, ttl=6, table=table) as lease:
            observer.rows(f"alter table {table} rename to {table}_away")
            eventually(lambda: lease.stats().blips)
            observer.rows(f"alter table {table}_away rename to {table}")
            eventually(lambda: said("is renewed again", "INFO"))
            lines = said(name, "INFO")
            assert "failed attempts to renew it: " in lines[0]
            # Of a session's second attempt, which looks whether the table is there.
            second = f"there is no table {table}"
            assert f'{table}" does not exist' in lines[0] or second in lines[0]
            assert "certain for" in lines[0]
            lease.check()
    finally:
        observer.rows(f"drop table if exists {table}, {table}_away")
    assert len(said("is renewed again", "INFO")) == 1
    assert not said("", "WARNING")


def test_a_lease_that_has_no_trouble_is_silent(engine, name, eventually, said):
    with Lease(engine, name, ttl=1) as lease:
        eventually(lambda: lease.stats().renewals >= 3)
    assert not said(name, "INFO")
    assert not said("", "WARNING")


def test_failures_of_a_heartbeat_in_a_row_are_one_warning(
    engine, table, observer, eventually, said
):
    query = f"insert into {table}_of_beats values (1)"
    observer.rows(f"create table {table}_of_beats (n int)")
    try:
        with Heartbeat(engine, query, every=0.1) as beating:
            observer.rows(f"alter table {table}_of_beats rename to {table}_away")
            eventually(lambda: beating.stats().failures >= 3)
            eventually(lambda: said("heartbeat fails", "WARNING"))
            observer.rows(f"alter table {table}_away rename to {table}_of_beats")
            eventually(lambda: said("beats again", "INFO"))
    finally:
        observer.rows(f"drop table if exists {table}_of_beats, {table}_away")
    (line,) = said("heartbeat", "WARNING")
    assert f"{table}_of_beats" in line
    assert len(said("heartbeat", "INFO")) == 1
    assert beating.stats().failures >= 3


def test_a_heartbeat_that_never_beat_says_so(
    engine, name, make_engine, eventually, said
):
    """Its failure is told while it starts: to the notifier of others, if it runs."""
    away = make_engine("postgresql+psycopg2://app:hidden@127.0.0.1:1/app")
    with Lease(engine, name), Heartbeat(away, "select 1", every=60) as beating:
        eventually(lambda: said("127.0.0.1:1", "WARNING"))
    assert not said("hidden", "WARNING")
    assert beating.stats().beats == 0
    assert "127.0.0.1:1" in beating.stats().last_error
