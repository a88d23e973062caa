"""`poolproof watch`: real processes and a real server, on a page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from plugins.threads import eventually
from poolproof.cli.main import main
from poolproof.watch import sources
from poolproof.watch.facts import HeldConnection, PoolLine, View
from poolproof.watch.screen import screen
from poolproof.watch.sources import ORDERS, look

COMMAND = (sys.executable, "-m", "poolproof", "watch")


def run(*args, **environment):
    done = subprocess.run(
        [*COMMAND, *args],
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert "Traceback" not in done.stderr
    return done


# --- what is seen ---------------------------------------------------------------------


def test_it_says_who_holds_what_and_what_the_server_sees(application, directory, url):
    done = run("--json", url, f"--directory={directory}")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    (pool,) = view["pools"]
    assert (pool["process_id"], pool["used"], pool["idle"]) == (application.pid, 2, 0)
    assert (pool["most"], pool["checkouts"], pool["faults"]) == (13, 2, 0)
    holders = {holder["scope"]: holder for holder in view["holders"]}
    assert set(holders) == {"checkout", "report"}
    for scope, busy, state in (
        ("checkout", False, "idle in transaction"),
        ("report", True, "active"),
    ):
        holder = holders[scope]
        assert holder["thread"] == scope
        assert holder["is_busy"] is busy
        assert holder["session"]["backend_pid"] == holder["backend_pid"]
        assert holder["session"]["state"] == state
    assert holders["report"]["session"]["waits_for"] == "Timeout: PgSleep"
    assert view["server"]["most"] > 0


def test_it_fits_into_80_columns_and_needs_no_colour(application, directory, url):
    done = run(url, f"--directory={directory}", POOLPROOF_METRICS_DIR="")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    (busy,) = [line for line in lines if " busy " in line]
    assert re.search(rf"{application.pid} +report +report +\d+ +busy +active", busy)
    assert re.search(r"checkout +checkout +\d+ +idle +idle in tx", done.stdout)
    assert "2 held, sorted by held" in done.stdout


def test_a_directory_is_enough(application, directory):
    done = run("--once", POOLPROOF_METRICS_DIR=str(directory))
    assert "  1 process in /" in done.stdout
    assert "report" in done.stdout


def test_a_process_that_was_killed_is_gone(start_one):
    with start_one() as (process, directory):
        process.kill()
        process.wait()
        view = look(directory, None)
        assert (view.pools, view.holders) == ((), ())
        told = run("--once", f"--directory={directory}").stdout
        assert "set POOLPROOF_METRICS_DIR" in told


def test_what_a_stopped_process_holds_is_held_for_longer_by_now(start_one):
    """It writes nothing meanwhile, as one in a call that keeps the interpreter does."""
    with start_one() as (process, directory):
        process.send_signal(signal.SIGSTOP)
        process.send_signal(0)
        before = look(directory, None)
        time.sleep(1.2)
        after = look(directory, None)
        for one, other in zip(before.holders, after.holders, strict=True):
            assert one.backend_pid == other.backend_pid
            assert other.held_s >= one.held_s + 1.2
        assert after.pools[0].behind_s >= 1.2
        process.send_signal(signal.SIGCONT)
        eventually(lambda: look(directory, None).pools[0].behind_s < 1.2)


def test_a_process_that_says_nothing_and_one_that_only_forks_are_named():
    from io import StringIO

    from rich.console import Console

    lines = (
        PoolLine(process_id=1, pool="app", behind_s=72.0),
        PoolLine(process_id=2, pool="app", is_main=True),
        PoolLine(process_id=3, pool="app", behind_s=0.9),
    )
    text = StringIO()
    Console(file=text, width=100).print(
        screen(View(directory="/d", pools=lines), order="h", height=None, keys=False)
    )
    silent, main, working = [
        line for line in text.getvalue().splitlines() if re.match(r" +[123] ", line)
    ]
    assert "silent 1:12 min! app" in silent
    assert "(main) app" in main
    assert "silent" not in working


def test_a_url_is_enough_and_strangers_in_a_transaction_are_named(url):
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.NullPool,
        connect_args={"application_name": "forgotten"},
    )
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
        pid = connection.connection.dbapi_connection.info.backend_pid
        activity = sources.WatchedServer(url)
        eventually(
            lambda: pid in [one.backend_pid for one in look(None, activity).strangers]
        )
        activity.close()
        done = run("--once", url, POOLPROOF_METRICS_DIR="")
    assert "idle in a transaction, and of no pool here" in done.stdout
    assert re.search(rf"{pid} +forgotten", done.stdout)


def test_a_server_that_goes_away_is_told_and_one_that_is_back_asked(fault_proxy, url):
    proxy = fault_proxy(url)
    activity = sources.WatchedServer(proxy.url.render_as_string(hide_password=False))
    assert activity.server().most
    proxy.drop()
    assert activity.server().most  # over a new connection
    proxy.stop()
    assert activity.server().trouble
    assert "check host and port" in activity.server().trouble
    activity.close()


def test_what_a_role_may_not_see_is_hidden(application, directory, url):
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("create role blind login"))
    try:
        blind = sa.make_url(url).set(username="blind")
        done = run(
            "--json",
            blind.render_as_string(hide_password=False),
            f"--directory={directory}",
        )
        states = {one["session"]["state"] for one in json.loads(done.stdout)["holders"]}
        assert states == {None}
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text("drop role blind"))
        engine.dispose()


@pytest.mark.parametrize("order", ORDERS)
def test_holders_are_sorted(order):
    def holder(number, **facts):
        return HeldConnection(
            **{
                "process_id": number,
                "pool": "p",
                "thread": f"t{number}",
                "scope": f"s{number}",
                "backend_pid": None,
                "held_s": 1.0,
                "is_busy": True,
                **facts,
            }
        )

    first = {
        "h": holder(2, held_s=9.0),
        "p": holder(0),
        "s": holder(2, scope=None),
        "t": holder(2, thread="a"),
        "i": holder(2, is_busy=False),
    }[order]
    others = [holder(1), holder(3)]
    assert min([*others, first], key=ORDERS[order][1]) is first


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "set POOLPROOF_METRICS_DIR"),
        (("--directory=/no/such/place",), "/no/such/place is no directory"),
        (("sqlite://",), "a database of sqlite"),
        (("postgresql://app:geheim@127.0.0.1:1/app",), "check host and port"),
        (("postgresql://app:geheim@word@db/app",), "a second @"),
        (("--every=0", "postgresql://h/d"), "0.1"),
    ],
)
def test_what_cannot_be_watched_is_one_sentence(args, words, monkeypatch, capsys):
    monkeypatch.setenv("POOLPROOF_METRICS_DIR", "")
    assert main(["watch", *args]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert "geheim" not in out + err
    assert "Traceback" not in err
