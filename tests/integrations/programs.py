"""Programs without a framework and without a hook: ``python programs.py NAME``.

Each warms its pool, makes processes in one of the ways that libraries have, and works
in all of them at once. What a process did it tells in a line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool

import poolproof

# Python 3.12 warns of a fork beside threads: that is what is tried.
warnings.filterwarnings("ignore", "This process .* is multi-threaded")

TABLE = os.environ["TEST_TABLE"]
POOLS = {"queue": QueuePool, "poolproof": poolproof.Pool}
PATIENCE_S = 30

engine = create_engine(
    os.environ["TEST_URL"],
    poolclass=POOLS[os.environ["TEST_POOL"]],
    pool_size=2,
    max_overflow=1,
)
insert = text(f"insert into {TABLE} values (:n)")


def tell(**facts):
    """Write one line at once, which no other process's line can tear."""
    os.write(1, (json.dumps(facts) + "\n").encode())


def work(job, count=8):
    """Write, commit and ask, several times; tell what was committed and what failed."""
    committed, wrong = [], []
    for number in range(job * 100, job * 100 + count):
        try:
            with engine.connect() as connection:
                connection.execute(insert, {"n": number})
                connection.commit()
                committed.append(number)
                told = connection.scalar(text("select :t"), {"t": str(number)})
                if told != str(number):
                    wrong.append(f"asked for {number}, got {told!r}")
        except Exception as error:
            wrong.append(f"{number}: {str(error)[:200]!r}")
    tell(committed=committed, wrong=wrong[:5])


def warm():
    """Leave two connections at rest in the pool."""
    with engine.connect() as one, engine.connect() as other:
        one.execute(text("select 1"))
        other.execute(text("select 1"))


def in_threads(*jobs):
    """Do several jobs at once."""
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fork(function, *arguments, by=os.fork):
    """Do something in a child that ends by `os._exit`; return its process id."""
    pid = by()
    if pid == 0:
        try:
            function(*arguments)
        finally:
            os._exit(0)
    return pid


def end(pid):
    """Wait for a child."""
    if status := os.waitpid(pid, 0)[1]:
        tell(wrong=[f"a child ended with {status}"])


def c_code():
    """uWSGI: workers with threads, forked by C code that runs no hook of Python's."""
    by = ctypes.PyDLL(None).fork
    pids = [fork(in_threads, n, n + 1, by=by) for n in (10, 20, 30)]
    in_threads(1, 2)
    for pid in pids:
        end(pid)


def workers_of(method, count, tasks, most=None):
    """`multiprocessing.Pool`: so many workers, which do so many tasks at most each."""
    context = multiprocessing.get_context(method)
    with context.Pool(count, maxtasksperchild=most) as workers:
        results = workers.map_async(work, range(10, 10 + tasks), chunksize=1)
        work(1, 40)
        results.get(PATIENCE_S)
        workers.close()
        workers.join()


def executor():
    """`ProcessPoolExecutor`: one that works, one whose worker is killed, one more."""
    context = multiprocessing.get_context("fork")
    for first in (10, 20):
        with ProcessPoolExecutor(3, mp_context=context) as workers:
            results = [workers.submit(work, first + n) for n in range(6)]
            work(first // 10, 30)
            for result in results:
                result.result(PATIENCE_S)
        if first == 10:
            break_one(context)


def break_one(context):
    """Kill a worker in the middle of its transaction."""
    held = engine.connect()
    held.execute(insert, {"n": 5000})
    with ProcessPoolExecutor(2, mp_context=context) as workers:
        try:
            workers.submit(die, 5001).result(PATIENCE_S)
        except BrokenProcessPool:
            tell(broken=[5001])
    held.commit()
    held.close()
    tell(committed=[5000])


def die(number):
    """Write a row, and be killed."""
    connection = engine.connect()
    connection.execute(insert, {"n": number})
    tell(never=[number])
    os.kill(os.getpid(), signal.SIGKILL)


def threads_that_fork():
    """Several threads fork at once, and go on working."""

    def both(first):
        for job in range(first, first + 3):
            pid = fork(work, job)
            work(job + 5)
            end(pid)

    threads = [threading.Thread(target=both, args=(n,)) for n in (10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def jobs():
    """RQ: a child for each job, while the parent goes on with its own connections."""
    held = engine.connect()
    held.execute(insert, {"n": 5000})
    beats = 0
    for job in range(10, 18):
        pid = fork(work, job)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            beats += 1
            work(100 + beats, 1)
    held.commit()
    held.close()
    tell(committed=[5000])


PROGRAMS = {
    "c code": c_code,
    "multiprocessing fork": lambda: workers_of("fork", 3, 12, 3),
    "multiprocessing spawn": lambda: workers_of("spawn", 2, 5),
    "multiprocessing forkserver": lambda: workers_of("forkserver", 2, 5),
    "executor": executor,
    "threads that fork": threads_that_fork,
    "jobs": jobs,
}

if __name__ == "__main__":
    warm()
    PROGRAMS[sys.argv[1]]()
    engine.dispose()
