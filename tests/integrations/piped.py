"""A host that forks a process for each script that the tests let Luigi run.

An order is a line of JSON; the answers are the process id, and its exit status. Each
script sees the names below, and has Luigi and the integration for itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import sys
import threading
import traceback

import flask  # noqa: F401 - imported once, for all scripts
import flask_sqlalchemy  # noqa: F401
import luigi
import luigi.contrib.sqla
import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.orm import scoped_session, sessionmaker

from poolproof.integrations import luigi as integration

BAD = text("select 1 / 0")
NAME = text("select current_setting('application_name')")


def say(*words):
    """Tell the test something, whole among what other processes tell."""
    os.write(1, (json.dumps(words, default=str) + "\n").encode())


class Step(luigi.Task):
    """A task that is never complete, so that each run runs it."""

    n = luigi.IntParameter(default=0)

    def complete(self):
        return False


def names(url, workers):
    """Return what a script sees."""
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=5)
    factory = sessionmaker(engine)
    kept = []

    def build(*tasks):
        result = luigi.build(
            list(tasks),
            workers=workers,
            local_scheduler=True,
            detailed_summary=True,
            log_level="ERROR",
        )
        say("status", result.status.name)

    session = scoped_session(factory)
    modules = {
        "contextlib": contextlib,
        "integration": integration,
        "luigi": luigi,
        "os": os,
        "sa": sa,
        "text": text,
        "threading": threading,
    }
    ours = {"BAD": BAD, "NAME": NAME, "Step": Step, "say": say}
    return (
        modules
        | ours
        | {
            "build": build,
            "engine": engine,
            "factory": factory,
            "kept": kept,
            "session": session,
        }
    )


def run(order):
    """Be the process of a script."""
    os.setsid()
    for number, place in ((1, "out"), (2, "err")):
        fd = os.open(order[place], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(fd, number)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    seen = {"__name__": "__main__"} | names(order["url"], order["workers"])
    exec(compile(order["script"], "<script>", "exec"), seen)  # noqa: S102 - a test's


def main():
    """Fork for each order."""
    # From Python 3.14 on it is another by default, which cannot hand on what a script
    # has made; test_luigi_command.py has that one.
    multiprocessing.set_start_method("fork")
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                run(json.loads(line))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(pid, flush=True)  # noqa: T201
        print(os.waitpid(pid, 0)[1], flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
