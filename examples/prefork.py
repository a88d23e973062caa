"""A preloading server: the parent warms its pool, then forks workers that serve.

This is what Gunicorn with `preload_app`, Celery's prefork workers and
`luigi.build(workers=N)` do. Each request asks the database for a token and looks
whether the answer is its own. Run it with each pool and compare:

    python examples/prefork.py
    python examples/prefork.py --pool queue

It starts a PostgreSQL of its own (`pip install ".[drill]"`), or takes `--url`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
import warnings

from sqlalchemy import Engine, create_engine, exc, text
from sqlalchemy.pool import QueuePool

import poolproof
from poolproof.drill.server import EmbeddedServer

WORKERS = 4
REQUESTS = 50
PATIENCE_S = 10.0
POOLS = {"poolproof": poolproof.Pool, "queue": QueuePool}


def serve(engine: Engine, name: str) -> tuple[int, int, int]:
    """Serve requests; count those that were right, wrong, and failed."""
    right = wrong = failed = 0
    for number in range(REQUESTS):
        token = f"{name}-{number}"
        try:
            with engine.connect() as connection:
                answer = connection.scalar(text("select :token"), {"token": token})
        except exc.SQLAlchemyError:
            failed += 1
        else:
            right += answer == token
            wrong += answer != token
    return right, wrong, failed


def fork_worker(engine: Engine, number: int, begin: float) -> tuple[int, int]:
    """Fork one worker; return its process id and where its report can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    # The worker. It uses the engine that it inherited, and calls no hook.
    with contextlib.suppress(BaseException):
        time.sleep(max(0.0, begin - time.monotonic()))  # all at once: the worst case
        counts = serve(engine, f"worker-{number}")
        os.write(writing, " ".join(map(str, counts)).encode())
    os._exit(0)


def report(pid: int, reading: int, deadline: float) -> str:
    """Wait for a worker's report; end the worker when it hangs."""
    os.set_blocking(reading, False)
    words = b""
    while time.monotonic() < deadline and not words:
        time.sleep(0.01)
        with contextlib.suppress(BlockingIOError):
            words = os.read(reading, 100)
            if not words:
                break
    os.close(reading)
    if not words:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if not words:
        return "hung, and was ended"
    right, wrong, failed = words.decode().split()
    return f"{right} right, {wrong} wrong, {failed} failed"


def run(url: str, pool: str, patience_s: float) -> bool:
    """Warm a pool, fork, serve in all processes; say whether all went right."""
    # Python 3.12 and newer warn of a fork beside any thread. The pool's watchdog and
    # keeper are threads that hold nothing a child could wait for.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    engine = create_engine(url, poolclass=POOLS[pool], pool_size=WORKERS)
    warm = [engine.connect() for _ in range(WORKERS)]
    for connection in warm:
        connection.close()
    begin = time.monotonic() + 0.2
    workers = [fork_worker(engine, number, begin) for number in range(WORKERS)]
    lines = [report(*worker, begin + patience_s) for worker in workers]
    for number, line in enumerate(lines):
        print(f"worker {number}: {line}")
    engine.dispose(close=pool == "poolproof")
    return all(line.startswith(f"{REQUESTS} right") for line in lines)


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pool", choices=POOLS, default="poolproof")
    parser.add_argument("--url", help="a PostgreSQL; default: one of its own")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_S,
        metavar="SECONDS",
        help="after which a worker that has not reported hangs (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = arguments.url or stack.enter_context(EmbeddedServer()).url
        fine = run(url, arguments.pool, arguments.patience)
    print(f"{arguments.pool}: {'every answer right' if fine else 'THE FAULT SHOWED'}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
