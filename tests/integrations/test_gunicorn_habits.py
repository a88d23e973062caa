"""Gunicorn that is restarted, reloaded, upgraded, and configured in odd ways."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from plugins.gunicorns import CONF
from plugins.threads import eventually

# `sleeping` is to see nobody else's.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("alone"),
]

GTHREAD = ("--worker-class", "gthread", "--threads", "4", "--workers", "2")


def orders(served, numbers):
    """Order with four clients at once; return the answers that are not right."""

    def order(number):
        try:
            # While workers are replaced nobody answers until the new ones have loaded.
            return served.get(f"/order/{number}", timeout=80)
        except OSError as error:
            return 0, repr(error)

    with ThreadPoolExecutor(4) as clients:
        told = zip(numbers, clients.map(order, numbers), strict=True)
        return [(n, answer) for n, answer in told if answer != (200, str(n))]


def rows(observer, table):
    return sorted(n for (n,) in observer.rows(f"select n from {table}"))


def nobody_is_left(observer):
    eventually(lambda: not observer.backends(), what="the end of all sessions")


def test_workers_that_are_replaced_after_some_requests(gunicorn, observer, table):
    options = ("--preload", "--max-requests", "15", "--max-requests-jitter", "10")
    with gunicorn(*GTHREAD, *options, TEST_WARM="1") as served:
        wrong = orders(served, range(150))
        workers = served.log.count("Booting worker")
    assert wrong == []
    assert rows(observer, table) == list(range(150))
    assert workers > 4
    assert "Traceback" not in served.log
    nobody_is_left(observer)


@pytest.mark.parametrize(
    "preload",
    [
        pytest.param(True, id="preload"),
        pytest.param(False, id="no preload", marks=pytest.mark.soak),
    ],
)
def test_a_reload_under_load(gunicorn, observer, table, preload):
    with gunicorn(*GTHREAD, *["--preload"] * preload, TEST_WARM="1") as served:
        before = served.get("/worker")[1]
        loading = ThreadPoolExecutor(1)
        answers = loading.submit(orders, served, range(200))
        for _ in range(2):
            booted = served.log.count("Booting worker")
            served.process.send_signal(signal.SIGHUP)
            eventually(
                lambda booted=booted: served.log.count("Booting worker") >= booted + 2,
                seconds=60,
                what="new workers",
            )
        wrong = answers.result()
        loading.shutdown()
        eventually(lambda: not alive(before), seconds=40, what="the old worker's end")
    assert wrong == []
    assert rows(observer, table) == list(range(200))
    assert "Traceback" not in served.log
    nobody_is_left(observer)


def alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_an_upgrade_by_a_new_master(gunicorn, observer, table):
    with gunicorn(*GTHREAD, "--preload", TEST_WARM="1") as served:
        before = served.get("/worker")[1]
        served.process.send_signal(signal.SIGUSR2)
        eventually(
            lambda: served.log.count("Booting worker") >= 4,
            seconds=60,
            what="the new master's workers",
        )
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        wrong = orders(served, range(100))
        stopping.join()
        assert not alive(before)
        wrong += orders(served, range(100, 150))
        assert wrong == []
        assert rows(observer, table) == list(range(150))
    assert "Traceback" not in served.log
    nobody_is_left(observer)


def test_without_a_time_out_no_request_is_cut_off(gunicorn, observer, table):
    with gunicorn("--workers", "1", "--timeout", "0") as served:
        stuck = threading.Thread(target=served.get, args=("/stuck",))
        stuck.start()
        eventually(lambda: sleeping(observer), seconds=40, what="the stuck request")
        observer.terminate(sleeping(observer)[0])
        stuck.join()
        assert served.get("/order/1") == (200, "1")
    assert "DeadlineExceeded" not in served.log
    nobody_is_left(observer)


def sleeping(observer):
    return [
        pid
        for (pid,) in observer.rows(
            "select pid from pg_stat_activity where query like 'select pg_sleep%%'"
            " and state = 'active'"
        )
    ]


def test_a_stuck_thread_does_not_keep_the_others_nor_the_stop(
    gunicorn, observer, table
):
    options = ("--worker-class", "gthread", "--threads", "3", "--workers", "1")
    with gunicorn(*options, "--graceful-timeout", "1") as served:

        def ask():
            with contextlib.suppress(OSError):
                served.get("/stuck")

        stuck = threading.Thread(target=ask)
        stuck.start()
        eventually(lambda: sleeping(observer), seconds=40, what="the stuck request")
        assert orders(served, range(30)) == []
        served.stop()
        stuck.join()
    assert [n for n in rows(observer, table) if n >= 0] == list(range(30))
    for pid in sleeping(observer):  # the server does not see that its client has gone
        observer.terminate(pid)
    nobody_is_left(observer)


def test_the_hooks_can_be_the_whole_configuration(gunicorn):
    hooks = ("--config", "python:poolproof.integrations.gunicorn")
    options = ("--no-control-socket", "--log-level", "debug")
    with gunicorn(*hooks, *options) as served:
        assert served.get("/order/1") == (200, "1")
    assert "starts with empty pools" in served.log


@pytest.mark.quick("late")
@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_a_session_of_all_requests_is_warned_of(gunicorn, early):
    patch = "from gevent import monkey; monkey.patch_all()\n" if early else ""
    options = ("--worker-class", "gevent", "--preload")
    with gunicorn(*options, conf=patch + CONF) as served:
        assert served.get("/order/1") == (200, "1")
    assert ("one session for all requests" in served.log) is not early


def test_a_wrong_setting_ends_the_start_with_its_name(gunicorn):
    served = gunicorn("--workers", "1", POOLPROOF_POOL_SIZE="many")
    try:
        served.process.wait(60)
    finally:
        served._end()
    assert "POOLPROOF_POOL_SIZE (environment) is refused" in served.log
