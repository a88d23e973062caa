"""Connecting takes what is left of the checkout, and no more than the user allows.

What a driver was told is read from its connection to a real server; what comes of it is
measured on a peer that never answers.
"""

from __future__ import annotations

import socket
import time
from unittest import mock

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

import poolproof
from poolproof.drivers import connect_plan

LIBPQ = ("psycopg2", "psycopg")
AFTERWARDS_S = 8.0  # what a busy machine may add


@pytest.fixture(params=LIBPQ)
def libpq(request):
    """Name a driver that connects through libpq."""
    return request.param


@pytest.fixture
def told(engine_of):
    """Connect, and return the options that libpq was told."""

    def connect(url, **parameters):
        with engine_of(url, **parameters).connect() as connection:
            return options_of(connection.connection.dbapi_connection)

    return connect


def options_of(connection):
    info = connection.info
    if hasattr(info, "get_parameters"):
        return info.get_parameters()
    # What libpq has by default counts as not told.
    return {key: value for key, value in info.dsn_parameters.items() if value}


def timed_failure(call):
    began = time.monotonic()
    with pytest.raises((exc.DBAPIError, poolproof.PoolTimeout)) as caught:
        call()
    return time.monotonic() - began, caught.value


@pytest.mark.slow
def test_silent_peer_costs_no_more_than_the_checkout_may(deaf, driver, engine_of):
    engine = engine_of(deaf.url(driver), checkout_timeout=2.2, ping_timeout=1)
    seconds, error = timed_failure(engine.connect)
    assert seconds < 2.2 + AFTERWARDS_S
    assert isinstance(error, (exc.OperationalError, exc.InterfaceError))
    reason = error.orig.__cause__
    assert isinstance(reason, poolproof.DeadlineExceeded)
    assert reason.step == "connect"
    assert 2 <= reason.limit <= 2.2
    assert engine.pool.checkedout() == 0


@pytest.mark.slow
def test_deadline_of_a_block_counts_as_far_as_the_driver_can(deaf, driver, engine_of):
    """The floor of libpq is 2 s."""
    engine = engine_of(deaf.url(driver))
    with poolproof.deadline(0.3):
        seconds, error = timed_failure(engine.connect)
    assert seconds < (0.3 if driver == "pg8000" else 2) + AFTERWARDS_S
    assert isinstance(error.orig.__cause__, poolproof.DeadlineExceeded)


@pytest.mark.slow
@pytest.mark.quick("psycopg2")
def test_what_is_left_is_divided_among_the_addresses(deaf, libpq, engine_of):
    url = deaf.url(libpq, host="127.0.0.1,127.0.0.2")
    engine = engine_of(url, checkout_timeout=4.9)
    seconds, error = timed_failure(engine.connect)
    assert seconds < 4.9 + AFTERWARDS_S
    assert error.orig.__cause__.limit == 4


@pytest.mark.slow
def test_bound_of_the_user_that_runs_out_is_not_called_ours(deaf, driver, engine_of):
    option = "timeout" if driver == "pg8000" else "connect_timeout"
    engine = engine_of(deaf.url(driver), connect_args={option: 2})
    with pytest.raises((exc.DBAPIError, TimeoutError)) as caught:
        engine.connect()
    error = getattr(caught.value, "orig", caught.value)
    assert not isinstance(error.__cause__, poolproof.DeadlineExceeded)


def test_refusal_is_not_called_a_deadline(refusing, driver, engine_of):
    with pytest.raises(exc.DBAPIError) as caught:
        engine_of(refusing.url(driver)).connect()
    assert not isinstance(caught.value.orig.__cause__, poolproof.DeadlineExceeded)


def test_libpq_is_told_whole_seconds_of_what_is_left(pg_url, libpq, told):
    assert told(pg_url(libpq), checkout_timeout=9.9)["connect_timeout"] == "9"


def test_what_has_passed_since_the_checkout_began_costs_no_second(pg_url, libpq, told):
    assert told(pg_url(libpq), checkout_timeout=10)["connect_timeout"] == "10"


@pytest.mark.parametrize(("pool_timeout", "seconds"), [(0, 30), (5, 30), (60, 65)])
def test_default_gives_connecting_half_a_minute_or_more(
    pg_url, libpq, told, pool_timeout, seconds
):
    options = told(pg_url(libpq), pool_timeout=pool_timeout)
    assert options["connect_timeout"] == str(seconds)
    assert options["tcp_user_timeout"] == str(seconds * 1000)


def test_default_gives_each_address_all_of_it(pg_url, libpq, told):
    hosts = {"host": "127.0.0.1,127.0.0.1"}
    options = told(pg_url(libpq)._replace(host=None), connect_args=hosts)
    assert options["connect_timeout"] == "35"


def test_deadline_of_a_block_shortens_the_default(pg_url, libpq, told):
    with poolproof.deadline(9.5):
        assert told(pg_url(libpq))["connect_timeout"] == "9"


def test_libpq_is_told_two_seconds_at_least(pg_url, libpq, told):
    hosts = {"host": "127.0.0.1,127.0.0.1,127.0.0.1"}
    options = told(pg_url(libpq), connect_args=hosts, checkout_timeout=3)
    assert options["connect_timeout"] == "2"


def test_driver_whose_version_is_no_number_is_taken_as_unknown():
    """A mock of a driver answers everything with a mock."""
    driver = mock.Mock(paramstyle="pyformat", __version__="99.9.9", Error=Exception)
    engine = sa.create_engine(
        "postgresql+psycopg2://db/app",
        module=driver,
        poolclass=poolproof.Pool,
        _initialize=False,
    )
    engine.raw_connection().detach()
    (told,) = driver.connect.call_args_list
    assert "connect_timeout" in told.kwargs
    assert "tcp_user_timeout" not in told.kwargs


def test_without_a_bound_nothing_is_told(pg_url, libpq, told):
    options = told(pg_url(libpq), checkout_timeout=None)
    assert {"connect_timeout", "tcp_user_timeout"}.isdisjoint(options)


def test_bound_without_end_is_told_as_a_number_that_libpq_takes(pg_url, libpq, told):
    assert told(pg_url(libpq), checkout_timeout=1e300)["connect_timeout"] == "1000000"


def by_keyword(url, seconds):
    return url, {"connect_args": {"connect_timeout": seconds}}


def by_url(url, seconds):
    return url.update_query_dict({"connect_timeout": str(seconds)}), {}


def by_string(url, seconds):
    option = "dsn" if "psycopg2" in url.drivername else "conninfo"
    return url, {"connect_args": {option: f"connect_timeout={seconds}"}}


def by_uri(url, seconds):
    option = "dsn" if "psycopg2" in url.drivername else "conninfo"
    text = f"postgresql://?connect_timeout={seconds}"
    return url, {"connect_args": {option: text}}


@pytest.mark.parametrize("chosen", [1, 3])
@pytest.mark.parametrize("how", [by_keyword, by_url, by_string, by_uri])
def test_shorter_bound_of_the_user_stays(pg_url, libpq, told, how, chosen):
    url, parameters = how(pg_url(libpq), chosen)
    assert told(url, **parameters)["connect_timeout"] == str(chosen)


@pytest.mark.parametrize("chosen", [0, 60])
@pytest.mark.parametrize("how", [by_keyword, by_url, by_string, by_uri])
def test_default_leaves_the_bound_of_the_user_alone(pg_url, libpq, told, how, chosen):
    url, parameters = how(pg_url(libpq), chosen)
    options = told(url, pool_timeout=1, **parameters)
    assert options["connect_timeout"] == str(chosen)
    assert ("tcp_user_timeout" in options) is bool(chosen)


@pytest.mark.parametrize("chosen", [0, 60])
@pytest.mark.parametrize("how", [by_keyword, by_url, by_string, by_uri])
def test_longer_bound_of_the_user_is_shortened(pg_url, libpq, told, how, chosen):
    url, parameters = how(pg_url(libpq), chosen)
    options = told(url, checkout_timeout=5.5, **parameters)
    assert options["connect_timeout"] == "5"


@pytest.mark.parametrize(("chosen", "expected"), [("3", None), ("60", "5")])
def test_bound_of_the_environment_is_shortened_only(
    pg_url, libpq, told, monkeypatch, chosen, expected
):
    monkeypatch.setenv("PGCONNECT_TIMEOUT", chosen)
    options = told(pg_url(libpq), checkout_timeout=5.5)
    assert options.get("connect_timeout") in {expected, chosen if not expected else 0}


def test_value_that_the_driver_refuses_is_still_refused(pg_url, libpq, engine_of):
    engine = engine_of(pg_url(libpq), connect_args={"connect_timeout": "soon"})
    with pytest.raises(exc.DBAPIError, match=r"soon"):
        engine.connect()


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        ({"host": "127.0.0.1"}, 1),
        ({"host": "127.0.0.1,127.0.0.1"}, 2),
        ({"hostaddr": "127.0.0.1,127.0.0.1,127.0.0.1"}, 3),
        ({"host": "a,b", "hostaddr": "127.0.0.1,127.0.0.1"}, 2),
        ({"host": "no.such.host.invalid,127.0.0.1"}, 2),
        ({"host": "/nowhere,127.0.0.1"}, 2),
        ({"host": "127.0.0.1", "target_session_attrs": "prefer-standby"}, 2),
    ],
)
def test_every_address_has_its_share(pg_url, libpq, told, options, addresses):
    url = pg_url(libpq)
    found = told(
        url._replace(host=None),
        connect_args=options,
        checkout_timeout=24.5,
        pool_timeout=20,
    )
    assert found["connect_timeout"] == str(int(24.5 / addresses - 0.1))


def test_hosts_of_the_environment_have_their_shares(pg_url, libpq, told, monkeypatch):
    monkeypatch.setenv("PGHOST", "127.0.0.1,127.0.0.1")
    options = told(pg_url(libpq)._replace(host=None), checkout_timeout=24.5)
    assert options["connect_timeout"] == "12"


def test_unix_socket_has_all_of_it(pg_url, libpq, told):
    options = told(pg_url(libpq, unix=True), checkout_timeout=24.5)
    assert options["connect_timeout"] == "24"


def test_name_has_a_share_for_each_of_its_addresses(pg_url, libpq, told, monkeypatch):
    """A name server's answer is what cannot be had here; the rest is real."""
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))] * 4
    monkeypatch.setattr(connect_plan, "_known", {})
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    options = told(pg_url(libpq).set(host="localhost"), checkout_timeout=24.5)
    assert options["connect_timeout"] == "6"


@pytest.mark.parametrize(
    ("options", "lookups"), [({}, 0), ({"checkout_timeout": 9}, 1)]
)
def test_name_is_looked_up_once_more_only_to_divide(
    pg_url, driver, engine_of, monkeypatch, options, lookups
):
    """The driver looks it up itself, and a name server may be slow."""
    found = []
    monkeypatch.setattr(connect_plan, "_known", {})
    monkeypatch.setattr(connect_plan, "_look_up", lambda host: found.append(host) or 1)
    engine_of(pg_url(driver).set(host="localhost"), **options).connect().close()
    assert found == ["localhost"] * lookups


def test_service_is_left_alone(pg, pg_url, libpq, told, monkeypatch, tmp_path):
    services = tmp_path / "services"
    services.write_text(f"[here]\nhost=127.0.0.1\nport={pg.port}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    url = pg_url(libpq)._replace(host=None, port=None)
    options = told(url, connect_args={"service": "here"})
    assert {"connect_timeout", "tcp_user_timeout"}.isdisjoint(options)
    monkeypatch.setenv("PGSERVICE", "here")
    assert {"connect_timeout", "tcp_user_timeout"}.isdisjoint(told(url))


def test_creator_of_the_users_own_is_not_bounded(pg_url, libpq, told):
    url = pg_url(libpq)
    driver = pytest.importorskip(libpq)
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    assert "connect_timeout" not in told(url, creator=lambda: driver.connect(text))


def test_listener_that_changes_the_arguments_is_bounded(pg_url, libpq, engine_of):
    engine = engine_of(pg_url(libpq), checkout_timeout=9.9)

    @event.listens_for(engine, "do_connect")
    def rename(_dialect, _entry, _args, keywords):
        keywords["application_name"] = "renamed"

    with engine.connect() as connection:
        options = options_of(connection.connection.dbapi_connection)
        name = connection.scalar(sa.text("show application_name"))
    assert (options["connect_timeout"], name) == ("9", "renamed")


# --- TCP_USER_TIMEOUT ---------------------------------------------------------------


def user_timeout(connection):
    """Return ``TCP_USER_TIMEOUT`` of a connection's socket, in milliseconds."""
    with socket.socket(fileno=connection.fileno()) as view:
        try:
            return view.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        finally:
            view.detach()


@pytest.mark.parametrize(("of_the_pool", "after"), [(None, 0), (4, 4000)])
def test_user_timeout_is_lent_for_connecting_alone(
    pg_url, libpq, engine_of, of_the_pool, after
):
    engine = engine_of(
        pg_url(libpq), checkout_timeout=9.9, tcp_user_timeout=of_the_pool
    )
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert options_of(raw)["tcp_user_timeout"] == "9000"
        assert user_timeout(raw) == after


def test_user_timeout_of_the_user_stays(pg_url, libpq, engine_of):
    engine = engine_of(
        pg_url(libpq), connect_args={"tcp_user_timeout": 7000}, tcp_user_timeout=4
    )
    with engine.connect() as connection:
        assert user_timeout(connection.connection.dbapi_connection) == 7000


# --- pg8000 -------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [None, 3, 60])
def test_pg8000_goes_on_with_the_timeout_that_the_user_gave(pg_url, engine_of, chosen):
    given = {} if chosen is None else {"timeout": chosen}
    engine = engine_of(pg_url("pg8000"), connect_args=given, checkout_timeout=5)
    with engine.connect() as connection:
        socket_ = connection.connection.dbapi_connection._usock
        assert socket_.gettimeout() == chosen


@pytest.mark.slow
def test_pg8000_is_not_bound_by_its_connecting_later(pg_url, engine_of):
    engine = engine_of(pg_url("pg8000"), checkout_timeout=2, ping_timeout=1)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select 1 from pg_sleep(2.5)")) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_value_that_pg8000_refuses_is_still_refused(pg_url, engine_of):
    """Its socket is left to the collector, which warns."""
    engine = engine_of(pg_url("pg8000"), connect_args={"timeout": "soon"})
    with pytest.raises(TypeError):
        engine.connect()


# --- nothing left -------------------------------------------------------------------


def test_no_attempt_begins_after_the_end(pg_url, driver, engine_of, observer):
    """The checkout looks at an idle connection, replaces it, and a listener is slow."""
    engine = engine_of(pg_url(driver))
    attempts = []
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("select pg_backend_pid()"))
        connection.rollback()
    event.listen(engine, "do_connect", lambda *_: attempts.append(1) and None)
    event.listen(engine.pool, "invalidate", lambda *_: time.sleep(0.6))
    observer.terminate(pid)
    engine.pool._checkout_timeout = 0.5  # connecting the first time took what it took
    with pytest.raises(poolproof.PoolTimeout) as caught:
        engine.connect()
    assert not attempts
    assert caught.value.waited >= 0.6
    reason = caught.value.__cause__
    assert isinstance(reason, poolproof.DeadlineExceeded)
    assert (reason.step, round(reason.limit, 3)) == ("checkout", 0.5)
    assert engine.pool.checkedout() == 0
