"""Behind PgBouncer in transaction mode: each transaction may have another session."""

from __future__ import annotations

import random
import threading

import pytest
import sqlalchemy as sa

import poolproof.driver

SERVERS = 3


@pytest.fixture(params=["installed", "fetched"])
def behind(request):
    """Name a PgBouncer that has fewer sessions than there are clients: 1.18, 1.26."""
    names = {"installed": "pooler", "fetched": "telling_pooler"}
    start = request.getfixturevalue(names[request.param])
    started = start(
        pool_mode="transaction", default_pool_size=SERVERS, max_client_conn=100
    )
    return started.url.set(drivername="postgresql")


def served(clients, work):
    """Let so many clients work at once; return what went wrong."""
    wrong: list[object] = []

    def run(number):
        try:
            wrong.extend(work(number))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def ask(behind, number, statements, autocommit):
    """Ask so many things as one client; yield what was answered wrongly."""
    chance = random.Random(number)  # noqa: S311
    dsn = behind.render_as_string(hide_password=False)
    with poolproof.driver.connect(dsn, autocommit=autocommit) as connection:
        for step in range(statements):
            value = number * 1_000_000 + step
            kind = chance.randrange(4)
            if kind == 0:
                rows = [(value, str(value))]
                found = connection.execute("select %s, %s", [value, str(value)])
            elif kind == 1:
                rows = [(value,)]
                found = connection.execute(f"select {value}")
            elif kind == 2:
                count = chance.randrange(4)
                rows = [(value + g,) for g in range(1, count + 1)]
                many = "select %s + g from generate_series(1, %s) g"
                found = connection.execute(many, [value, count])
            else:
                rows = [("22012",)]
                try:
                    found = connection.execute("select %s / 0", [value])
                except poolproof.driver.DataError as error:
                    connection.rollback()
                    found = connection.execute("select %s", [error.sqlstate])
            answered = found.fetchall()
            if answered != rows:
                yield (rows, answered)
            if chance.random() < 0.5:
                connection.commit()


@pytest.mark.parametrize("autocommit", [False, True])
def test_each_client_gets_its_own_answers(behind, autocommit):
    assert served(5, lambda n: ask(behind, n, 50, autocommit)) == []


@pytest.mark.soak
@pytest.mark.parametrize("autocommit", [False, True])
def test_each_of_twenty_clients_gets_its_own_answers(behind, autocommit):
    assert served(20, lambda n: ask(behind, n, 500, autocommit)) == []


def test_engine_serves_through_it(behind):
    engine = sa.create_engine(behind.set(drivername="postgresql+poolproof"))
    asked = sa.select(sa.literal(1) + sa.bindparam("n", type_=sa.Integer))

    def work(number):
        for step in range(25):
            n = number * 1000 + step
            with engine.connect() as connection:
                if connection.scalar(asked, {"n": n}) != n + 1:
                    yield n

    assert served(5, work) == []
    engine.dispose()
