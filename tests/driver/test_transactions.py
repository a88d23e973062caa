"""How transactions begin and end, in one phase and in two."""

from __future__ import annotations

import threading
import time

import pytest

import poolproof.driver as dbapi
from poolproof.driver import Xid

IDLE, IN_TRANSACTION, FAILED = 0, 2, 3


def test_transaction_begins_with_the_first_statement(connection):
    assert connection.info.transaction_status == IDLE
    connection.execute("select 1")
    assert connection.info.transaction_status == IN_TRANSACTION
    connection.commit()
    assert connection.info.transaction_status == IDLE


def test_autocommit_begins_none(connecting):
    one = connecting(autocommit=True)
    assert one.autocommit
    one.execute("select 1")
    assert one.info.transaction_status == IDLE
    one.autocommit = False
    one.execute("select 1")
    assert one.info.transaction_status == IN_TRANSACTION


def test_failed_transaction_answers_nothing_until_it_is_rolled_back(connection):
    with pytest.raises(dbapi.DataError):
        connection.execute("select 1/0")
    assert connection.info.transaction_status == FAILED
    with pytest.raises(dbapi.InternalError) as refused:
        connection.execute("select 1")
    assert refused.value.sqlstate == "25P02"
    connection.rollback()
    assert connection.execute("select 1").fetchone() == (1,)


def test_commit_of_a_failed_transaction_says_that_it_was_rolled_back(connection):
    with pytest.raises(dbapi.DataError):
        connection.execute("select 1/0")
    with pytest.raises(dbapi.InternalError) as refused:
        connection.commit()
    assert refused.value.outcome == "not_done"
    assert connection.info.transaction_status == IDLE


def test_error_of_a_deferred_constraint_comes_at_commit_with_its_outcome(connection):
    connection.execute(
        "create temp table t (n int unique deferrable initially deferred)"
    )
    connection.commit()
    connection.execute("insert into t values (1), (1)")
    with pytest.raises(dbapi.IntegrityError) as refused:
        connection.commit()
    assert refused.value.outcome == "not_done"
    assert refused.value.diag.constraint_name == "t_n_key"
    assert connection.execute("select count(*) from t").fetchone() == (0,)


def test_error_of_begin_is_its_own(connection):
    connection.isolation_level = "SERIALIZABLE"
    connection.read_only = False
    connection.begin = "BEGIN ISOLATION LEVEL CHAOS"
    with pytest.raises(dbapi.ProgrammingError, match="CHAOS"):
        connection.execute("create temp table never (n int)")
    connection.begin = "BEGIN"
    found = connection.execute("select to_regclass('pg_temp.never')").fetchone()
    assert found == (None,)


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("SERIALIZABLE", "serializable"),
        ("repeatable read", "repeatable read"),
        ("READ_COMMITTED", "read committed"),
        ("READ UNCOMMITTED", "read uncommitted"),
    ],
)
def test_isolation_level_is_that_of_the_transactions_to_come(connection, level, said):
    connection.isolation_level = level
    query = "show transaction isolation level"
    assert connection.execute(query).fetchone() == (said,)
    connection.rollback()
    connection.isolation_level = None
    assert connection.execute(query).fetchone() == ("read committed",)


def test_transactions_are_read_only_and_deferrable_as_was_said(connection):
    connection.isolation_level = "SERIALIZABLE"
    connection.read_only = connection.deferrable = True
    assert connection.read_only is connection.deferrable is True
    for name in ("transaction_read_only", "transaction_deferrable"):
        assert connection.execute(f"show {name}").fetchone() == ("on",)
    with pytest.raises(dbapi.InternalError) as refused:
        connection.execute("create table never (n int)")
    assert refused.value.sqlstate == "25006"
    connection.rollback()
    connection.read_only = connection.deferrable = None
    assert connection.execute("show transaction_read_only").fetchone() == ("off",)


def test_statement_that_another_thread_cancels_ends_with_57014(connection, looking):
    ended = []

    def wait():
        try:
            connection.execute("select pg_sleep(60)")
        except dbapi.OperationalError as error:
            ended.append(error.sqlstate)

    pid = connection.info.backend_pid
    thread = threading.Thread(target=wait)
    thread.start()
    until = time.monotonic() + 60
    query = "select count(*) from pg_stat_activity where pid = %s and state = 'active'"
    while not looking.value(query, pid) and time.monotonic() < until:
        time.sleep(0.01)
    connection.cancel()
    thread.join(60)
    assert ended == ["57014"]
    connection.rollback()
    assert connection.execute("select 1").fetchone() == (1,)


def test_threads_share_a_connection_one_statement_at_a_time(connection):
    wrong = []

    def ask(number):
        for step in range(50):
            value = number * 1000 + step
            found = connection.cursor().execute("select %s", [value]).fetchone()
            if found != (value,):
                wrong.append((value, found))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_lost_connection_is_an_operational_error_and_then_closed(connection, looking):
    looking.terminate(connection.info.backend_pid)
    with pytest.raises(dbapi.OperationalError):
        connection.execute("select 1")
    assert connection.closed
    assert connection.broken
    with pytest.raises(dbapi.OperationalError):
        connection.execute("select 1")


# --- two phases -----------------------------------------------------------------------


@pytest.fixture
def pending(looking):
    """Name what is prepared; roll back what a test has left."""
    looking.rows("create table if not exists phases (n int)")
    query = "select gid from pg_prepared_xacts order by gid"
    yield lambda: [gid for (gid,) in looking.rows(query)]
    for (gid,) in looking.rows(query):
        looking.rows(f"rollback prepared '{gid}'")
    looking.rows("drop table phases")


@pytest.mark.parametrize("verb", ["commit", "rollback"])
@pytest.mark.parametrize("prepares", [True, False])
def test_transaction_in_two_phases_ends_as_it_is_told(
    connection, looking, pending, verb, prepares
):
    name = connection.xid(1, "global", "branch")
    connection.tpc_begin(name)
    connection.execute("insert into phases values (1)")
    if prepares:
        connection.tpc_prepare()
        assert pending() == [str(name)]
    getattr(connection, f"tpc_{verb}")()
    assert pending() == []
    assert len(looking.rows("select * from phases")) == (verb == "commit")
    connection.execute("select 1")
    connection.commit()


@pytest.mark.parametrize("verb", ["commit", "rollback"])
def test_prepared_transaction_is_found_and_ended_by_another_session(
    connecting, looking, pending, verb
):
    one, two = connecting(), connecting()
    one.tpc_begin(one.xid(7, "g", ""))
    one.execute("insert into phases values (1)")
    one.tpc_prepare()
    one.close()
    (found,) = two.tpc_recover()
    assert two.info.transaction_status == IDLE
    assert (found.format_id, found.gtrid, found.bqual) == (7, "g", "")
    assert found.owner == "postgres"
    assert found.prepared is not None
    getattr(two, f"tpc_{verb}")(found)
    assert two.tpc_recover() == []
    assert len(looking.rows("select * from phases")) == (verb == "commit")


def test_name_that_is_not_of_three_parts_is_kept_as_it_is(connection, pending):
    connection.tpc_begin("it's \\ mine")
    connection.execute("insert into phases values (1)")
    connection.tpc_prepare()
    assert pending() == ["it's \\ mine"]
    connection.tpc_rollback()
    assert pending() == []


def test_name_is_written_as_psycopg_writes_it(other):
    for parts in ((0, "a", "b"), (2147483647, "x_y", "")):
        theirs = other.xid(*parts)
        ours = Xid.of_parts(*parts)
        assert str(ours) == str(theirs)
        assert Xid.of_text(str(theirs))[:3] == parts


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: c.tpc_prepare(), "after tpc_begin"),
        (lambda c: c.tpc_commit(), "after tpc_begin"),
        (lambda c: (c.execute("select 1"), c.tpc_begin("x")), "a transaction is open"),
        (lambda c: (c.tpc_begin("x"), c.commit()), "tpc_commit"),
        (lambda c: (c.tpc_begin("x"), c.rollback()), "tpc_rollback"),
        (lambda c: (c.tpc_begin("x"), c.tpc_begin("y")), "a transaction is open"),
        (lambda c: (c.tpc_begin("x"), c.tpc_commit("y")), "without an argument"),
        (lambda c: (c.execute("select 1"), c.tpc_commit("y")), "inside"),
        (lambda c: c.xid(-1, "a", "b"), "format_id"),
        (lambda c: c.xid(1, "a" * 65, "b"), "gtrid"),
        (lambda c: c.xid(1, "a", "ü"), "bqual"),
    ],
)
def test_calls_out_of_order_are_refused(connection, call, said):
    with pytest.raises(dbapi.ProgrammingError, match=said):
        call(connection)


def test_two_phases_do_not_go_with_autocommit(connecting):
    with pytest.raises(dbapi.ProgrammingError, match="autocommit"):
        connecting(autocommit=True).tpc_begin("x")


def test_transaction_that_cannot_be_prepared_is_over(connection, pending):
    connection.tpc_begin("x")
    with pytest.raises(dbapi.DataError):
        connection.execute("select 1/0")
    with pytest.raises(dbapi.Error):
        connection.tpc_prepare()
    assert pending() == []
    assert connection.info.transaction_status == IDLE
    assert connection.execute("select 1").fetchone() == (1,)
