"""ASGI servers as they are, with the application and the settings of the document."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugins.threads import eventually

PAGE = Path(__file__).parents[2] / "docs" / "deploying" / "asgi.md"
START_S = 200.0
NAME = "poolproof-asgi-{}"
# What the document leaves out: how to know the worker, and the database's sessions.
MORE = """

import os


@app.get("/worker")
async def worker() -> int:
    return os.getpid()
"""


def blocks():
    """Return the document's blocks of Python, by a word of each."""
    found = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    (shop,) = (block for block in found if "init_app" in block)
    (conf,) = (block for block in found if "worker_class" in block)
    return shop, conf


@contextlib.contextmanager
def serving(folder, url, name, kind):
    """Let a server of some kind serve the document's application; yield its address."""
    shop, conf = blocks()
    before = '"postgresql+asyncpg://app@db/app", pool_size=5'
    assert before in shop
    named = f'connect_args={{"server_settings": {{"application_name": "{name}"}}}}'
    (folder / "shop.py").write_text(
        shop.replace(before, f'"{url}", pool_size=5, {named}') + MORE
    )
    if kind == "uvicorn_worker":
        conf = conf.replace('"asgi"', '"uvicorn_worker.UvicornWorker"')
    (folder / "gunicorn.conf.py").write_text(conf + "control_socket_disable = True\n")
    place = socket.create_server(("127.0.0.1", 0), backlog=128)
    if kind == "uvicorn":
        command = ["uvicorn", "shop:app", f"--fd={place.fileno()}", "--workers=2"]
    else:
        command = ["gunicorn", "shop:app", f"--bind=fd://{place.fileno()}"]
    with place, (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "POOLPROOF_METRICS_DIR": str(folder / "metrics")},
            pass_fds=[place.fileno()],
            start_new_session=True,
        )
        address = f"127.0.0.1:{place.getsockname()[1]}"
    try:
        end = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                get(address, "/worker")
                break
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"it did not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield address
        process.terminate()
        process.wait(100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def get(address, path):
    connection = http.client.HTTPConnection(address, timeout=100)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, body
    return body


@pytest.mark.slow
@pytest.mark.quick("asgi")
@pytest.mark.parametrize("kind", ["asgi", "uvicorn_worker", "uvicorn"])
def test_every_worker_opens_serves_is_counted_and_ends(
    kind, pg_url, tmp_path, observer
):
    if kind != "asgi" and importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    url = pg_url("asyncpg").difference_update_query(["application_name"])
    name = NAME.format(os.getpid())
    found = "select 1 from pg_stat_activity where application_name = %s"
    workers = set()
    rendered = url.render_as_string(hide_password=False)
    with serving(tmp_path, rendered, name, kind) as address:

        def both_have_answered():
            workers.add(get(address, "/worker"))
            return len(workers) == 2

        eventually(both_have_answered)
        # Each has opened one at its start.
        eventually(lambda: len(observer.rows(found, name)) == 2)
        for _ in range(10):
            assert get(address, "/now").startswith('"20')
        page = get(address, "/metrics")
        (opened,) = re.findall(
            r'^poolproof_connects_total\{.*outcome="ok"\} (\d+)', page, re.MULTILINE
        )
        assert int(opened) == 2
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log, log
    eventually(lambda: not observer.rows(found, name))
