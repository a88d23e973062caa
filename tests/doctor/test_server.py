"""1xx: each check provoked by a server's or a role's own settings, and silent."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import poolproof
from plugins.threads import eventually
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.target import read


@pytest.fixture
def slots(observer):
    return observer.value(
        "select current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - current_setting('reserved_connections')::int"
    )


def test_more_connections_than_slots_are_an_error_with_the_sum(look, pg_url, slots):
    finding = look(
        pg_url("psycopg2"), "PP101", workers=slots, fleet=2, pool_size=1, max_overflow=1
    )
    assert (finding.state, finding.severity) == ("found", "error")
    assert (
        f"2 machines × {slots} workers × 2 (pool_size + max_overflow) = "
        f"{4 * slots} connections, but the server has {slots} slots"
    ) in finding.summary
    assert any(line.startswith("max_connections = ") for line in finding.evidence)


def test_what_fits_is_fine_with_the_sum(look, pg_url, slots):
    finding = look(pg_url("psycopg2"), "PP101", workers=2, pool_size=2, max_overflow=1)
    assert finding.state == "fine"
    assert "2 workers × 3 (pool_size + max_overflow) = 6 connections" in finding.summary
    assert f"{slots} slots" in finding.summary


def test_the_limit_of_a_role_counts(look, role, url_of):
    url = url_of(role(options="connection limit 4"))
    finding = look(url, "PP101", pool_size=5, max_overflow=0)
    assert finding.severity == "error"
    assert "may have 4 connections (its CONNECTION LIMIT)" in finding.summary
    assert look(url, "PP101", pool_size=4, max_overflow=0).state == "fine"


def test_the_limit_of_a_database_counts(look, observer, pg_url):
    observer.rows("drop database if exists narrow")
    observer.rows("create database narrow connection limit 3")
    try:
        finding = look(pg_url("psycopg2").set(database="narrow"), "PP101", workers=2)
        assert "the database narrow may have 3 connections" in finding.summary
    finally:
        observer.rows("drop database narrow")


@pytest.mark.parametrize("stranded", [False, True])
def test_the_control_planes_connections_count(
    look, make_engine, pg_url, slots, stranded
):
    engine = make_engine(
        pg_url("psycopg2"),
        poolclass=poolproof.Pool,
        pool_size=slots - 1,
        max_overflow=0,
        end_stranded_backends=stranded,
    )
    summary = look(engine, "PP101").summary
    if stranded:
        assert f"1 worker × {slots + 1} (pool_size + max_overflow, and 2" in summary
        assert f"but the server has {slots} slots" in summary
    else:
        assert f"= {slots - 1} connections fit" in summary


def test_what_others_have_now_counts(look, make_engine, pg_url, slots):
    engine = make_engine(
        pg_url("psycopg2", application_name="mine"),
        poolclass=poolproof.Pool,
        pool_size=slots - 1,
        max_overflow=0,
    )
    others = make_engine(pg_url("psycopg2", application_name="theirs"))
    with others.connect(), others.connect():
        finding = look(engine, "PP101")
    assert finding.severity == "warning"
    assert any("theirs 2" in line for line in finding.evidence)


def test_the_applications_own_sessions_do_not_count_twice(
    look, role, url_of, make_engine
):
    url = url_of(role(options="connection limit 4")).set(query={})
    engine = make_engine(url, poolclass=poolproof.Pool, pool_size=4, max_overflow=0)
    with engine.connect(), engine.connect():
        assert look(engine, "PP101").state == "fine"


def test_overflow_without_bound_and_a_connection_a_thread_are_seen(
    look, make_engine, pg_url
):
    unbounded = make_engine(pg_url("psycopg2"), max_overflow=-1)
    assert "max_overflow sets no bound" in look(unbounded, "PP101").summary
    each = make_engine(pg_url("psycopg2"), poolclass=NullPool)
    summary = look(each, "PP101", threads=7, workers=2).summary
    assert "2 workers × 7 (NullPool, one for each of 7 threads) = 14" in summary


def test_a_server_that_ends_idle_sessions_is_seen(look, role, url_of, make_engine):
    url = url_of(role("idle_session_timeout = '90s'"))
    on_queue = look(make_engine(url), "PP102")
    assert (on_queue.state, on_queue.severity) == ("found", "warning")
    assert "90 s" in on_queue.summary
    ours = make_engine(url, poolclass=poolproof.Pool, max_idle=600)
    assert look(ours, "PP102").severity == "note"
    shorter = make_engine(url, poolclass=poolproof.Pool, max_idle=30)
    assert look(shorter, "PP102").state == "fine"


def test_an_idle_transaction_that_nothing_ends_is_noted(
    look, role, url_of, make_engine
):
    finding = look(url_of(role()), "PP103")
    assert (finding.state, finding.severity) == ("found", "note")
    ended = url_of(role("idle_in_transaction_session_timeout = '45s'"))
    assert "45 s" in look(ended, "PP103").summary
    assert look(ended, "PP103").state == "fine"
    held = make_engine(ended, poolclass=poolproof.Pool, hold_timeout=300)
    assert "before hold_timeout (5 min)" in look(held, "PP103").summary


def test_transactions_that_are_ended_too_soon_are_seen(look, role, url_of):
    url = url_of(role("transaction_timeout = '20s'"))
    finding = look(url, "PP104", timeout_s=30)
    assert finding.severity == "warning"
    assert "after 20 s, before the request's time-out (30 s)" in finding.summary
    assert look(url, "PP104", timeout_s=10).state == "fine"
    assert look(url_of(role()), "PP104", timeout_s=30).state == "fine"


def test_statements_that_outlive_their_request_are_seen(look, role, url_of):
    longer = look(url_of(role("statement_timeout = '60s'")), "PP105", timeout_s=30)
    assert longer.severity == "warning"
    assert "may run for 60 s" in longer.summary
    shorter = look(url_of(role("statement_timeout = '20s'")), "PP105", timeout_s=30)
    assert shorter.state == "fine"


def test_a_statement_that_nothing_ends_is_worse_inside_psycopg2(look, role, url_of):
    name = role()
    assert look(url_of(name), "PP105", timeout_s=30).severity == "warning"
    assert look(url_of(name, "psycopg"), "PP105", timeout_s=30).severity == "note"


def test_backends_that_nobody_looks_after_are_noted(
    look, observer, pg_url, own_database, make_engine
):
    assert look(pg_url("psycopg2"), "PP106").severity == "note"
    setting = (
        f"alter database {own_database} {{}} client_connection_check_interval {{}}"
    )
    observer.rows(setting.format("set", "= '5s'"))
    try:
        assert look(pg_url("psycopg2"), "PP106").state == "fine"
    finally:
        observer.rows(setting.format("reset", ""))
    ours = make_engine(
        pg_url("psycopg2"), poolclass=poolproof.Pool, end_stranded_backends=True
    )
    assert look(ours, "PP106").state == "fine"


def test_a_server_that_keeps_silent_clients_for_hours_is_noted(
    look, role, url_of, pg_url
):
    assert "2.19 h" in look(pg_url("psycopg2"), "PP107").summary
    url = url_of(role("tcp_keepalives_idle = 60", "tcp_keepalives_interval = 10"))
    assert look(url, "PP107").state == "fine"
    unix = pg_url("psycopg2", unix=True)
    assert look(unix, "PP107").state == "fine"


def test_names_that_have_to_be_quoted_are_no_hindrance(look, observer, pg_url):
    role, database = 'An "odd" Role', "An odd's Database"
    observer.rows('create role "An ""odd"" Role" login')
    observer.rows(f'create database "{database}"')
    try:
        url = pg_url("psycopg2").set(username=role, database=database)
        found = look(url, "PP101", "PP110", "PP402", "PP403")
        assert {one.state for one in found.values()} <= {"fine", "found"}
    finally:
        observer.rows(f'drop database "{database}"')
        observer.rows('drop role "An ""odd"" Role"')


def test_a_role_that_may_not_write_is_seen(look, role, url_of):
    finding = look(url_of(role("default_transaction_read_only = on")), "PP108")
    assert finding.severity == "warning"
    assert any("set in: user" in line for line in finding.evidence)
    assert look(url_of(role()), "PP108").state == "fine"


def test_a_version_past_its_last_day_is_seen(look, pg_url):
    text = pg_url("psycopg2").render_as_string(hide_password=False)
    subject = read(text, Deployment())
    subject.today = dt.date(2019, 1, 1)
    assert look(subject, "PP109").state == "fine"
    subject.today = dt.date(2039, 1, 1)
    assert look(subject, "PP109").severity == "warning"


def test_hidden_sessions_are_counted_and_the_grant_is_shown(
    look, role, url_of, make_engine, pg_url, observer
):
    name = role()
    with make_engine(pg_url("psycopg2")).connect():
        finding = look(url_of(name), "PP110")
        assert finding.severity == "note"
        assert finding.advice == f"grant pg_read_all_stats to {name}"
        observer.rows(f"grant pg_read_all_stats to {name}")
        assert look(url_of(name), "PP110").state == "fine"


def test_without_the_right_to_look_it_is_skipped_and_not_fine(
    look, role, url_of, observer, pg_url
):
    """In a database of its own: the right is taken from everybody there."""
    name = role()
    observer.rows("drop database if exists closed_eyes")
    observer.rows("create database closed_eyes")
    url = url_of(name).set(database="closed_eyes")
    engine = create_engine(
        pg_url("psycopg2").set(database="closed_eyes"), poolclass=NullPool
    )
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql("revoke select on pg_stat_activity from public")
        finding = look(url, "PP110")
        assert finding.state == "skipped"
        assert f"grant pg_read_all_stats to {name}" in finding.summary
        slots = look(url, "PP101")
        assert any("cannot be read" in line for line in slots.evidence)
    finally:
        observer.rows("drop database closed_eyes")


def all_seen(found):
    """Return the findings if none is skipped that needs no application."""
    left_out = [
        one
        for one in found.values()
        if one.state == "skipped" and "MODULE:ENGINE" not in one.summary
    ]
    return None if left_out else found


@pytest.mark.parametrize("name", ["psycopg2", "psycopg", "pg8000", "asyncpg"])
def test_every_driver_is_asked_in_its_own_way(look, pg, name):
    url = pg.url("psycopg2").set(drivername=f"postgresql+{name}", query={})
    # A check that was not done in its time is skipped, on a machine that is busy.
    found = eventually(lambda: all_seen(look(url)))
    assert found["PP108"].state == "fine"


@pytest.mark.parametrize("name", ["psycopg", "asyncpg"])
def test_an_async_engine_is_asked_with_its_own_driver(look, pg, name):
    url = pg.url("psycopg2").set(drivername=f"postgresql+{name}", query={})
    engine = create_async_engine(url)
    found = look(engine.sync_engine)
    assert found["PP108"].state == "fine"
    assert "of 200" in found["PP206"].summary
    assert found["PP201"].state == "fine"
    assert found["PP309"].state == "fine"


def test_it_leaves_no_session_behind(look, pg_url, observer):
    name = "poolproof-doctor-reads"
    look(pg_url("psycopg2", application_name=name))
    assert eventually(lambda: not observer.backends(name))


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_every_transaction_is_read_only_from_its_first_statement(
    look, role, url_of, pg, driver
):
    """The server's own log says what it was sent."""
    name = role("log_statement = 'all'", "log_min_duration_statement = -1")
    begins = pg.log.stat().st_size
    look(url_of(name, driver))
    with pg.log.open(errors="replace") as log:
        log.seek(begins)
        sent = re.findall(
            r"\[(\d+)\] LOG:  (?:statement|execute [^:]+): (\w+(?: \w+)?(?: \w+)?)",
            log.read(),
        )
    first = ""
    for _pid, words in sent:
        lower = words.lower()
        if lower.startswith(("begin", "rollback")):
            first = ""
        else:
            first = first or lower
            assert first == "set transaction read", sent
            assert lower.startswith(("set transaction read", "set local", "select"))
    assert len(sent) > 20
