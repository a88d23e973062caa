"""Under gevent a socket is of the thread that has opened it: another is given one."""

from __future__ import annotations

import importlib.util

import pytest

from plugins.processes import run_script

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

SCRIPT = """
from gevent import monkey
monkey.patch_all()
import sys
from gevent.threadpool import ThreadPool
from sqlalchemy import create_engine
import poolproof

engine = create_engine(sys.argv[1], poolclass=poolproof.Pool, pool_size=1)
other = ThreadPool(1)

def check_out():
    engine.raw_connection().close()

for _ in range(10):
    check_out()
    other.apply(check_out)
print(sorted(engine.pool.stats().discarded))
"""


def test_connection_that_another_thread_has_opened_is_replaced(pg_url):
    done = run_script(
        SCRIPT,
        pg_url("pg8000").render_as_string(hide_password=False),
        warnings="ignore",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['no_answer']\n"


UNASKED = """
from gevent import monkey
monkey.patch_all()
import sys
from gevent.threadpool import ThreadPool
from sqlalchemy import create_engine, text
import poolproof
from poolproof.drivers.base import Driver

Driver.ask = lambda *_: True  # it has answered before there was a wait
engine = create_engine(sys.argv[1], poolclass=poolproof.Pool, pool_size=1)
other = ThreadPool(1)

def wait():
    with engine.connect() as connection:
        return connection.scalar(text("select 42 from pg_sleep(0.05)"))

print({wait() for _ in range(3)} | {other.apply(wait) for _ in range(3)} | {wait()})
print(engine.pool.stats().discarded)
"""


def test_connection_of_another_thread_is_replaced_though_it_answers_now(pg_url):
    """A question may be answered without a wait, and the statement after it not."""
    done = run_script(
        UNASKED,
        pg_url("pg8000").render_as_string(hide_password=False),
        warnings="ignore",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "{42}\n{'no_answer': 2}\n"
