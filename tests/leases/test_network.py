"""Poolers that close what rests, and networks that fall silent."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from sqlalchemy import text

from poolproof import AsyncLease, ControlError, Lease, LeaseError, LeaseLost
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address, Target

OUTAGE_S = 20  # longer than a few attempts to give a lease back take


def test_a_pooler_that_reaps_costs_no_lease(pooler, make_engine, name):
    """Idle clients and idle sessions are closed sooner than the next tick comes."""
    pooler = pooler(client_idle_timeout=1, server_idle_timeout=1)
    url = pooler.url.set(drivername="postgresql+psycopg2")
    with Lease(make_engine(url), name, ttl=9) as lease:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            lease.check()
            time.sleep(0.05)
        assert lease.stats().renewals >= 2


@pytest.mark.soak
def test_a_pooler_that_reaps_costs_no_lease_in_60_ticks(pooler, make_engine, name):
    pooler = pooler(client_idle_timeout=1, server_idle_timeout=1)
    url = pooler.url.set(drivername="postgresql+psycopg2")
    with Lease(make_engine(url), name, ttl=9) as lease:
        while lease.stats().renewals < 60:
            lease.check()
            time.sleep(0.05)


def test_many_use_one_pooled_session_without_prepared_statements(
    pooler, make_engine, name
):
    pooler = pooler(default_pool_size=1)
    engine = make_engine(pooler.url.set(drivername="postgresql+psycopg2"))
    leases = [Lease(engine, f"{name} {n}", ttl=6).acquire() for n in range(10)]
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for lease in leases:
            lease.check()
        time.sleep(0.02)
    for lease in leases:
        lease.release()


@pytest.fixture
def proxy(pg):
    """Put a proxy in front of the server."""
    target = Target.parse(pg.url("psycopg2").render_as_string(hide_password=False))
    with Proxy(target.address()) as proxy:
        yield proxy


@pytest.fixture
def behind(pg_url, proxy, make_engine):
    """Make an engine that goes through the proxy."""
    return make_engine(pg_url("psycopg2").set(port=proxy.port))


def test_a_blip_is_no_loss(behind, proxy, name):
    """The network is away for half the ttl; connections are cut, and replaced."""
    with Lease(behind, name, ttl=3) as lease:
        for harm in ("cut", "stall"):
            before = lease.stats().renewals
            if harm == "cut":
                for link in proxy.links:
                    link.cut()
            else:
                proxy.stall()
                time.sleep(1.5)
                proxy.resume(old=False)
            while lease.stats().renewals < before + 2:
                lease.check()
                time.sleep(0.01)
        assert lease.stats().blips > 0


def test_a_partition_loses_it_before_another_can_write(
    behind, engine, proxy, name, observer, table
):
    """The old holder is told while the server still keeps everybody else out."""
    lost_at = []
    old = Lease(
        behind, name, ttl=1, on_lost=lambda _: lost_at.append(time.monotonic())
    ).acquire()
    with behind.begin() as connection:
        old.guard(connection)
        connection.execute(text(f"insert into {table} values ({old.fence})"))
    proxy.stall()
    with Lease(engine, name, timeout=30) as new:
        acquired_at = time.monotonic()
        with pytest.raises(LeaseLost, match="not renewed"):
            old.check()
        assert old.lost.wait(10)
        assert lost_at[0] < acquired_at
        with engine.begin() as connection:
            new.guard(connection)
            connection.execute(text(f"insert into {table} values ({new.fence})"))
        proxy.resume()
        # Not even a writer who does not look gets through: the fence is over.
        old.check = lambda: None
        with pytest.raises(LeaseLost), engine.begin() as connection:
            old.guard(connection)
        fences = [n for (n,) in observer.rows(f"select n from {table} order by ctid")]
        assert fences == [old.fence, new.fence]
    old.release()


@pytest.mark.soak
@pytest.mark.parametrize("how", ["stalled", "refused"])
def test_it_is_given_back_in_the_end_however_long_the_network_was_away(
    pg, pg_url, make_engine, engine, name, how
):
    """Else it would keep everybody out for the whole of its ttl."""
    address = Address(host=pg.host, port=pg.port)
    with Proxy(address) as proxy:
        port = proxy.port
        lease = Lease(make_engine(pg_url("psycopg2").set(port=port)), name, ttl=600)
        lease.acquire()
        if how == "stalled":
            proxy.stall()
            lease.release()
            time.sleep(OUTAGE_S)
    if how == "refused":
        lease.release()
        time.sleep(OUTAGE_S)
    with Proxy(address, socket.create_server(("127.0.0.1", port))):
        Lease(engine, name, timeout=30).acquire().release()


def test_who_gives_up_waiting_is_told_in_time_and_holds_nothing(
    behind, engine, proxy, name
):
    """The server works on what it gets when the network is back."""
    Lease(behind, name).acquire().release()
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(ControlError, match="no answer"):
        Lease(behind, name, ttl=600, timeout=1).acquire()
    assert time.monotonic() - began < 5
    proxy.resume()
    Lease(engine, name, timeout=30).acquire().release()


def test_what_is_given_back_is_not_held_though_the_server_has_not_heard(
    behind, engine, proxy, name
):
    """It may have heard, and have granted it to somebody else: its answer is late."""

    async def give_back():
        lease = await AsyncLease(behind, name).acquire()
        proxy.stall()
        giving = asyncio.create_task(lease.release())
        await asyncio.sleep(0)  # it has begun
        with pytest.raises(LeaseError, match="given back"):
            lease.check()
        proxy.resume()
        # The object may ask again while the server is still told.
        again = asyncio.create_task(lease.acquire())
        await giving
        await again
        lease.check()
        await lease.release()

    asyncio.run(give_back())
    Lease(engine, name, timeout=5).acquire().release()
