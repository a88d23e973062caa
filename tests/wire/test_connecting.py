"""Connecting: one deadline for all of it, every place in its turn."""

from __future__ import annotations

import time

import pytest

from plugins.wire import Stopwatch
from poolproof._native import WireError


def refused(action, *arguments, **words) -> WireError:
    with pytest.raises(WireError) as caught:
        action(*arguments, **words)
    return caught.value


def test_a_place_where_nobody_listens_is_passed_over(make_wire, pg, refusing):
    ports = f"{refusing.port},{pg.port}"
    wire = make_wire(host="127.0.0.1,127.0.0.1", port=ports)
    assert wire.port == pg.port
    error = refused(make_wire, host="127.0.0.1", port=refusing.port)
    assert error.kind == "connect"
    assert str(refusing.port) in str(error)


def test_a_silent_place_takes_its_share_of_the_time_and_no_more(make_wire, pg, deaf):
    wire = make_wire(
        host="127.0.0.1,127.0.0.1", port=f"{deaf.port},{pg.port}", timeout_s=4
    )
    assert wire.port == pg.port


@pytest.mark.alone
def test_the_whole_of_connecting_has_one_deadline(make_wire, deaf):
    hosts, ports = ",".join(["127.0.0.1"] * 5), ",".join([str(deaf.port)] * 5)
    with Stopwatch() as control:
        time.sleep(0.5)
    with Stopwatch() as took:
        error = refused(make_wire, host=hosts, port=ports, timeout_s=0.5)
    assert error.kind == "timeout"
    # What a busy machine adds it adds to both.
    assert 0.45 < took.seconds < control.seconds + 0.3
    with Stopwatch() as took:
        refused(make_wire, host=hosts, port=ports, timeout_s=None, connect_timeout=2)
    assert took.seconds < 4


def test_a_name_that_nobody_knows_is_an_error(make_wire):
    error = refused(make_wire, host="nobody.invalid")
    assert error.kind == "connect"
    assert "nobody.invalid" in str(error)


def test_what_the_server_refuses_has_its_sqlstate(make_wire):
    error = refused(make_wire, user="nobody")
    assert (error.kind, error.sqlstate) == ("server", "28000")
    assert refused(make_wire, dbname="nothing").sqlstate == "3D000"
    error = refused(make_wire, options="-c nonsense=")
    assert error.kind == "server"


def test_what_the_parameters_say_is_so(make_wire, pg):
    wire = make_wire(
        application_name="own", options="-c statement_timeout=7s -c datestyle=German"
    )
    shown = "select current_setting('application_name'), current_setting($1), $2"
    # In ISO whatever the options say: values are read so.
    assert wire.execute(
        shown, ["statement_timeout", wire.parameter("DateStyle")[:3]]
    ).rows == [("own", "7s", "ISO")]
    wire = make_wire(url=pg.url("psycopg2", unix=True))
    assert wire.execute("select inet_server_addr()").rows == [(None,)]


@pytest.mark.parametrize(
    ("wanted", "is_found"),
    [
        ("any", True),
        ("read-write", True),
        ("primary", True),
        ("prefer-standby", True),
        ("read-only", False),
        ("standby", False),
    ],
)
@pytest.mark.parametrize("options", ["", "-c default_transaction_read_only=on"])
def test_of_several_servers_one_that_will_do_is_taken(
    make_wire, wanted, is_found, options
):
    if options and wanted in {"read-write", "read-only"}:
        is_found = not is_found
    words = {"target_session_attrs": wanted, "options": options}
    if is_found:
        assert make_wire(**words).execute("select 1").rows == [(1,)]
    else:
        assert "target_session_attrs" in str(refused(make_wire, **words))


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
def test_it_speaks_tls(make_wire, debian_pg, mode):
    wire = make_wire(url=debian_pg.url("psycopg2"), sslmode=mode)
    assert (wire.tls is None) == (mode == "disable")
    seen = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    assert wire.execute(seen).rows == [(mode != "disable",)]
    text = "x" * 3_000_000
    assert wire.execute("select $1::text", [text]).rows == [(text,)]
    wire.close()


def test_no_error_shows_the_password(make_wire, debian_pg):
    secret = "hunter2 of the tests"  # noqa: S105
    for words in ({"dbname": "nothing"}, {"port": "1"}, {"user": "nobody"}):
        error = refused(
            make_wire, url=debian_pg.url("psycopg2"), password=secret, **words
        )
        assert secret not in str(error) + repr(error) + repr(error.fields)
