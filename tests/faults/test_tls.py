"""Bytes that are not ours inside a TLS connection."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

import poolproof
from plugins.harm import Proxy, driver_connections, first_error
from poolproof import Fault

SELECT = sa.text("select 42")
STRAY = {
    "a record with a wrong code": b"\x17\x03\x03\x00\x20" + b"x" * 32,
    "no record": b"hello, world! this is no TLS",
    "a record that is too long": b"\x17\x03\x03\xff\xff" + b"x" * 40,
}


@pytest.fixture
def tls_proxy(debian_pg):
    made = Proxy((debian_pg.host, debian_pg.port))
    yield made
    made.close()


@pytest.fixture
def engine(debian_pg, tls_proxy, driver):
    url = debian_pg.url(driver).set(port=tls_proxy.port)
    made = sa.create_engine(url, pool_size=3)
    yield made
    made.dispose()


def poison(engine, proxy, name):
    with engine.connect() as connection:
        assert connection.scalar(
            sa.text("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        )
        poisoned = connection.connection.driver_connection
        proxy.inject(STRAY[name])
        first_error(lambda: connection.execute(SELECT))
        connection.invalidate()
    return poisoned


@pytest.mark.parametrize("name", STRAY)
def test_stray_bytes_in_tls_cost_exactly_the_one_connection(
    engine, tls_proxy, events, name
):
    poolproof.guard(engine)
    before = driver_connections(engine, 3)
    poisoned = poison(engine, tls_proxy, name)
    after = driver_connections(engine, 3)
    assert poisoned not in after
    assert len({id(one) for one in before} & {id(one) for one in after}) == 2
    (event,) = events
    assert (event.fault, event.verdict.cost) == (Fault.CORRUPTION, "connection")


def test_an_end_of_tls_is_a_lost_connection(engine, tls_proxy, events):
    poolproof.guard(engine)
    with engine.connect() as connection:
        connection.execute(SELECT)
        tls_proxy.cut()
        first_error(lambda: connection.execute(SELECT))
        connection.invalidate()
    assert [event.fault for event in events] == [Fault.CONNECTION_LOST]
