"""Notices, notifications, and what a connection knows without asking."""

from __future__ import annotations

import pickle
import select
import time

import pytest

import poolproof.driver as dbapi
from plugins.threads import eventually
from poolproof import _native


def test_notices_reach_their_handler_after_the_statement(connection):
    told = []
    connection.add_notice_handler(told.append)
    connection.add_notice_handler(lambda said: 1 / 0)  # what it raises is lost
    connection.execute("do $$begin raise notice 'look %', 1; end$$")
    assert [said.message_primary for said in told] == ["look 1"]
    assert told[0].severity_nonlocalized == "NOTICE"
    connection.remove_notice_handler(told.append)
    connection.execute("do $$begin raise notice 'again'; end$$")
    assert len(told) == 1


def test_notifications_are_yielded_as_they_come(connecting, looking):
    one = connecting(autocommit=True)
    one.execute("listen news")
    looking.rows("select pg_notify('news', 'a')")
    looking.rows("notify news")
    found = list(one.notifies(timeout=60, stop_after=2))
    assert [(one.channel, one.payload) for one in found] == [
        ("news", "a"),
        ("news", ""),
    ]
    assert found[0].pid > 0
    begun = time.monotonic()
    assert list(one.notifies(timeout=0)) == []
    assert list(one.notifies(timeout=0.2)) == []
    assert time.monotonic() - begun >= 0.2
    assert one.execute("select 1").fetchone() == (1,)


def test_notification_that_came_with_an_answer_is_not_lost(connecting, looking):
    one = connecting(autocommit=True)
    one.execute("listen news")
    looking.rows("select pg_notify('news', 'early')")
    one.execute("select 1")
    assert [found.payload for found in one.notifies(timeout=60, stop_after=1)] == [
        "early"
    ]


def test_info_says_what_the_server_has_said(connection, contrib_pg, looking):
    info = connection.info
    assert (info.host, info.port) == (contrib_pg.host, contrib_pg.port)
    assert (info.user, info.dbname) == ("postgres", "postgres")
    assert info.server_version == int(looking.value("show server_version_num"))
    assert info.parameter_status("server_encoding") == "UTF8"
    assert info.parameter_status("nonsense") is None
    assert info.timezone == looking.value("show TimeZone")
    assert info.tls is None
    found = connection.execute("select pg_backend_pid()").fetchone()
    assert found == (info.backend_pid,)


def test_error_has_what_the_server_says_of_it(connection):
    connection.execute("create temp table t (n int constraint small check (n < 5))")
    with pytest.raises(dbapi.IntegrityError) as refused:
        connection.execute("insert into t values (7)")
    error = refused.value
    assert error.sqlstate == error.pgcode == "23514"
    assert error.diag.constraint_name == "small"
    assert error.diag.table_name == "t"
    assert error.diag.severity_nonlocalized == "ERROR"
    assert error.diag.message_hint is None
    assert "DETAIL" in str(error)
    with pytest.raises(AttributeError):
        _ = error.diag.nonsense


def test_error_survives_pickling(connection):
    with pytest.raises(dbapi.DataError) as refused:
        connection.execute("select 1/0")
    again = pickle.loads(pickle.dumps(refused.value))
    assert type(again) is dbapi.DataError
    assert str(again) == str(refused.value)
    assert again.sqlstate == "22012"
    assert again.outcome == refused.value.outcome


def test_ping_begins_no_transaction(connection):
    connection.ping()
    assert connection.info.transaction_status == 0
    connection.execute("select 1")
    connection.ping()
    assert connection.info.transaction_status == 2


@pytest.mark.parametrize("reads_first", [False, True])
def test_a_session_that_the_server_has_ended_is_lost_each_time_it_is_looked_at(
    connection, looking, reads_first
):
    """Its last words are no answer of another request, whoever looks first."""
    socket = _native.Socket(connection.fileno(), wire=connection.wire)
    try:
        assert socket.probe() is None
        looking.terminate(connection.info.backend_pid)
        eventually(lambda: select.select([connection.fileno()], [], [], 0)[0])
        if reads_first:
            with pytest.raises(dbapi.OperationalError) as caught:
                connection.execute("select 1")
            assert caught.value.sqlstate == "57P01"
        assert [socket.probe() for _ in range(3)] == ["dead"] * 3
    finally:
        socket.end()
