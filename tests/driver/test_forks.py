"""A child of a fork and the connections of its parent, one of them in the middle."""

from __future__ import annotations

import threading
import time

import pytest

import poolproof.driver as dbapi
from plugins.processes import said_in_fork

pytestmark = pytest.mark.fork

SECONDS = 60


def refusals(connection, cursor, named):
    """Return the classes of what each use raises, and whether closing is silent."""
    found = set()
    for use in (
        lambda: cursor.execute("select 1"),
        lambda: cursor.executemany("select %s", [(1,)]),
        lambda: named.fetchone(),
        connection.commit,
        connection.rollback,
        connection.ping,
        connection.cancel,
        lambda: list(connection.notifies(timeout=1)),
    ):
        try:
            use()
        except dbapi.Error as error:
            found.add(f"{type(error).__name__}: {'child' in str(error)}")
        else:
            found.add("nothing")
    named.close()
    connection.close()
    return found


def test_child_is_refused_at_once_and_its_parent_goes_on(connection):
    cursor, named = connection.cursor(), connection.cursor("named")
    named.execute("select generate_series(1, 3)")
    said = said_in_fork(lambda: refusals(connection, cursor, named))
    assert said == "{'InterfaceError: True'}"
    assert named.fetchall() == [(1,), (2,), (3,)]


def test_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_had(
    connection, looking
):
    cursor, named = connection.cursor(), connection.cursor("named")
    named.execute("select generate_series(1, 3)")
    ended = []

    def wait():
        ended.append(connection.execute("select pg_sleep(3), 42").fetchone()[1])

    pid = connection.info.backend_pid
    thread = threading.Thread(target=wait)
    thread.start()
    until = time.monotonic() + SECONDS
    query = "select count(*) from pg_stat_activity where pid = %s and state = 'active'"
    while not looking.value(query, pid) and time.monotonic() < until:
        time.sleep(0.01)
    said = said_in_fork(lambda: refusals(connection, cursor, named))
    thread.join()
    assert said == "{'InterfaceError: True'}"
    assert ended == [42]
