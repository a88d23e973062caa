"""Behind PgBouncer in transaction mode: each transaction may have another session."""

from __future__ import annotations

import threading

import pytest

import poolproof.driver

CLIENTS, STATEMENTS, SERVERS = 6, 50, 2


@pytest.fixture
def behind(pooler):
    """Name a PgBouncer that has fewer sessions than there are clients."""
    started = pooler(pool_mode="transaction", default_pool_size=SERVERS)
    url = started.url.set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


@pytest.mark.parametrize("autocommit", [False, True])
def test_each_client_gets_its_own_answers(behind, autocommit):
    wrong: list[object] = []

    def ask(number):
        try:
            with poolproof.driver.connect(behind, autocommit=autocommit) as connection:
                for step in range(STATEMENTS):
                    value = number * 1000 + step
                    found = connection.execute("select %s, %s", [value, str(value)])
                    rows = found.fetchall()
                    if rows != [(value, str(value))]:
                        wrong.append((value, rows))
                    connection.commit()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
