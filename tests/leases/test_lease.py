"""A lease is acquired, renewed, guarded, released, and lost only when it is lost."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from poolproof import Heartbeat, Lease, LeaseError, LeaseLost, LeaseTimeout


def test_a_block_holds_it_and_gives_it_back(engine, name, row):
    with Lease(engine, name, ttl=5) as lease:
        held = row(name)
        assert held["live"]
        assert held["fence"] == lease.fence
        lease.check()
    assert row(name)["token"] is None
    with pytest.raises(LeaseError, match="given back"):
        lease.check()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_every_driver_s_engine_will_do(driver, unix, pg_url, make_engine, name):
    engine = make_engine(pg_url(driver, unix=unix))
    with Lease(engine, name) as lease, engine.begin() as connection:
        lease.guard(connection)


def test_fences_grow_with_every_acquisition_and_survive_a_deleted_row(
    engine, name, observer
):
    fences = []
    for _ in range(3):
        with Lease(engine, name) as lease:
            fences.append(lease.fence)
        observer.rows("delete from poolproof_lease where name = %s", name)
    assert fences == sorted(set(fences))


def test_another_waits_until_its_timeout_and_is_told_who_has_it(engine, name):
    with Lease(engine, name) as lease:
        began = time.monotonic()
        with pytest.raises(LeaseTimeout, match=f"fence {lease.fence}") as caught:
            Lease(engine, name, timeout=0.3).acquire()
        assert time.monotonic() - began >= 0.3
        assert isinstance(caught.value, TimeoutError)


def test_a_timeout_of_0_is_one_look(engine, name):
    with Lease(engine, name, timeout=0), pytest.raises(LeaseTimeout):
        Lease(engine, name, timeout=0).acquire()


def test_who_waits_gets_it_when_it_is_given_back(engine, name):
    first = Lease(engine, name).acquire()
    second = Lease(engine, name)
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    first.release()
    waiting.join(20)
    assert second.fence > first.fence
    second.release()


def test_it_is_renewed_for_longer_than_it_lasts(engine, name, row):
    with Lease(engine, name, ttl=2) as lease:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert row(name)["live"]
            lease.check()
            time.sleep(0.05)
        renewals, blips, _ = lease.stats()
    assert renewals >= 3
    assert blips == 0


def test_it_is_lost_when_somebody_else_takes_it(engine, name, observer, eventually):
    told = []
    lease = Lease(engine, name, ttl=1, on_lost=told.append).acquire()
    observer.rows("update poolproof_lease set token = 'x' where name = %s", name)
    eventually(lease.lost.is_set)
    eventually(lambda: told == [lease])
    with pytest.raises(LeaseLost, match="has it"):
        lease.check()
    lease.release()


def test_leaving_the_block_says_that_it_was_lost(engine, name, observer):
    def work():
        with Lease(engine, name, ttl=1) as lease:
            observer.rows("delete from poolproof_lease where name = %s", name)
            assert lease.lost.wait(20)

    with pytest.raises(LeaseLost, match="deleted"):
        work()


def test_an_error_of_the_block_is_not_hidden_by_the_loss(engine, name, observer):
    def work():
        with Lease(engine, name, ttl=1) as lease:
            observer.rows("delete from poolproof_lease where name = %s", name)
            assert lease.lost.wait(20)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_on_lost_that_fails_is_logged_and_the_next_is_called(
    engine, name, observer, eventually, caplog
):
    def fail(_lease):
        raise ZeroDivisionError

    told = []
    first = Lease(engine, name, ttl=1, on_lost=fail).acquire()
    second = Lease(engine, name + "2", ttl=1, on_lost=told.append).acquire()
    observer.rows("delete from poolproof_lease where name like %s", name + "%")
    eventually(lambda: told and first.lost.is_set())
    eventually(lambda: "on_lost of a lease failed" in caplog.text)
    for lease in (first, second):
        lease.release()


def test_a_guarded_transaction_keeps_others_out_and_the_holder_renewing(
    engine, name, observer
):
    """An expired lease is not taken over before the transaction has ended."""
    lease = Lease(engine, name, ttl=2).acquire()
    with engine.begin() as connection:
        lease.guard(connection)
        time.sleep(2.5)  # longer than the ttl: renewals must pass the lock
        lease.check()
        renewals, blips, _ = lease.stats()
        assert renewals >= 3
        assert blips == 0
        observer.rows(
            "update poolproof_lease set expires_at = '-infinity' where name = %s", name
        )
        with pytest.raises(LeaseTimeout):
            Lease(engine, name, timeout=0).acquire()
    lease.release()
    with Lease(engine, name, timeout=0) as after:
        assert after.fence > lease.fence


def test_a_guard_refuses_a_holder_whose_fence_is_over(engine, name, observer):
    lease = Lease(engine, name, ttl=600).acquire()
    observer.rows(
        "update poolproof_lease set fence = default, token = 'x' where name = %s", name
    )
    with pytest.raises(LeaseLost, match="another holder"), engine.begin() as connection:
        lease.guard(connection)
    with pytest.raises(LeaseLost), Session(engine) as session:
        lease.guard(session)
    lease.release()


def test_a_guard_refuses_a_connection_whose_lock_would_not_last(
    driver, pg_url, make_engine, name
):
    engine = make_engine(pg_url(driver), isolation_level="AUTOCOMMIT")
    with (
        Lease(engine, name) as lease,
        engine.connect() as connection,
        pytest.raises(LeaseError, match="autocommit"),
    ):
        lease.guard(connection)


def test_a_timeout_says_of_an_expired_lease_when_it_expired(engine, name):
    """A transaction that has passed the guard keeps it, also when it was given back."""
    lease = Lease(engine, name).acquire()
    with engine.begin() as connection:
        lease.guard(connection)
        lease.release()
        with pytest.raises(LeaseTimeout, match=r"; it expired \d+\.\d s ago$"):
            Lease(engine, name, timeout=0).acquire()


def test_the_steal_grace_is_waited_for(engine, name, observer):
    Lease(engine, name, ttl=600).acquire()._native.leave()
    lease = Lease(engine, name).acquire()
    observer.rows(
        "update poolproof_lease set expires_at = clock_timestamp() where name = %s",
        name,
    )
    with pytest.raises(LeaseTimeout):
        Lease(engine, name, timeout=0, steal_grace=60).acquire()
    with Lease(engine, name, timeout=5) as other:
        assert other.fence > lease.fence
    with pytest.raises(LeaseLost), Session(engine) as session:
        lease.guard(session)
    lease.release()


def test_a_silent_holder_is_not_renewed_and_one_that_speaks_is(engine, name):
    speaking = Lease(engine, name + "2", ttl=3, max_silence=1).acquire()
    silent = Lease(engine, name, ttl=3, max_silence=1).acquire()
    while not silent.lost.wait(0.1):
        speaking.touch()
    with pytest.raises(LeaseLost, match="no sign of life"):
        silent.check()
    silent.release()
    speaking.check()
    speaking.release()


def test_a_lease_that_is_forgotten_is_given_back(engine, name, row, eventually):
    Lease(engine, name, ttl=600).acquire()
    eventually(lambda: row(name)["token"] is None)


def test_one_object_is_held_once_and_can_be_held_again(engine, name):
    lease = Lease(engine, name)
    with lease:
        with pytest.raises(LeaseError, match="already") as refused:
            lease.acquire()
        assert str(refused.value) == f"lease {name!r}: {refused.value.reason}"
        first = lease.fence
    with lease:
        assert lease.fence > first


def test_the_pool_may_be_exhausted_and_wedged(pg_url, make_engine, name):
    engine = make_engine(pg_url("psycopg2"), pool_size=1, max_overflow=0)
    with engine.connect() as held, Lease(engine, name, ttl=2) as lease:
        began = time.monotonic()
        held.execute(text("select pg_sleep(3)"))
        assert time.monotonic() - began > lease.ttl
        lease.check()


def test_the_connections_go_when_no_lease_is_left(
    pg_url, make_engine, name, observer, eventually
):
    engine = make_engine(pg_url("psycopg2", application_name="mine"))
    with Lease(engine, name):
        assert observer.backends("mine poolproof-control")
    eventually(lambda: not observer.backends("mine poolproof-control"))


def test_what_was_given_back_keeps_no_connection(
    make_engine, pg_url, name, observer, eventually
):
    """Also where somebody keeps the object, for the next time."""
    engine = make_engine(pg_url("psycopg2", application_name="kept"))
    lease = Lease(engine, name)
    beat = Heartbeat(engine, "select 1", every=0.1)
    with lease, beat:
        assert observer.backends("kept poolproof-control")
    eventually(lambda: not observer.backends("kept poolproof-control"))
    assert lease.stats().renewals >= 0
    with lease:
        lease.check()


def test_many_leases_need_two_connections_and_no_threads(
    pg_url, make_engine, name, observer
):
    engine = make_engine(pg_url("psycopg2", application_name="many"))
    with Lease(engine, f"{name} first", ttl=15):
        before = set(threading.enumerate())  # one of another test's may yet end
        leases = [Lease(engine, f"{name} {n}", ttl=15).acquire() for n in range(200)]
        assert not set(threading.enumerate()) - before
        while min(lease.stats().renewals for lease in leases) < 2:
            for lease in leases:
                lease.check()
            time.sleep(0.05)
        assert len(observer.backends("many poolproof-control")) <= 2
        for lease in leases:
            lease._native.leave()
        for lease in leases:
            lease.release()


def test_leases_that_follow_each_other_share_a_session(
    pg_url, make_engine, observer, name
):
    """Also when nothing is asked on it: the table was looked at before."""
    engine = make_engine(pg_url("psycopg2", application_name="followed"))
    seen = set()
    for n in range(8):
        with Lease(engine, f"{name} {n}"):
            seen.update(observer.backends("followed poolproof-control"))
    assert len(seen) <= 2
