"""A shop's tasks in a Celery worker, forked from a loaded application.

    python examples/celery_app
    python examples/celery_app --pool queue

It starts a PostgreSQL of its own, a broker (Redis where redis-server and its client are
installed, files elsewhere) and a worker (`pip install ".[drill,celery]"`),
orders, and compares what it was told with what is in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from celery import Celery
from celery.states import READY_STATES, SUCCESS

from poolproof.drill.server import EmbeddedServer
from poolproof.drill.services.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
PROCESSES = 4
# When nothing has come back for so long, nothing will.
PATIENCE_S = 8.0
START_S = 60.0


@contextlib.contextmanager
def worker(url: str, pool: str, broker: dict[str, Any], log: Path) -> Iterator[None]:
    """Run a worker, and stop it with all its processes."""
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "celery", "--app", "tasks", "worker"),
                *("--pool", "prefork", "--concurrency", str(PROCESSES)),
                *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
            ],
            cwd=HERE,
            env={
                **os.environ,
                "SHOP_DATABASE": url,
                "SHOP_POOL": pool,
                "SHOP_CELERY": json.dumps(broker),
                "C_FORCE_ROOT": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_S
        while " ready." not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"the worker did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        # Processes that hang outlive a warm shutdown.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def order(broker: dict[str, Any], orders: int) -> list[str]:
    """Send every order; say how each went."""
    told = ["hung"] * orders
    with (
        Celery("orders", broker=broker["broker_url"]) as customers,
        Celery("answers", set_as_current=False) as client,
    ):
        transport = broker.get("broker_transport_options", {})
        customers.conf.broker_transport_options = transport
        client.conf.update(broker)
        waiting = {n: customers.send_task("shop.order", (n,)).id for n in range(orders)}
        heard = time.monotonic()
        while waiting and time.monotonic() - heard < PATIENCE_S:
            for number, task_id in list(waiting.items()):
                meta = client.backend.get_task_meta(task_id)
                if meta["status"] not in READY_STATES:
                    continue
                del waiting[number]
                heard = time.monotonic()
                if meta["status"] != SUCCESS:
                    told[number] = "failed"
                else:
                    is_right = meta["result"] == str(number)
                    told[number] = "right" if is_right else "wrong"
            time.sleep(0.02)
    return told


def run(url: str, pool: str, log: Path, orders: int) -> bool:
    """Work, order, compare; say whether all went right."""
    with Broker() as broker, worker(url, pool, broker.settings, log):
        told = order(broker.settings, orders)
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            rows = set(connection.scalars(sa.text('select number from "order"')))
            processes = connection.scalar(
                sa.text('select count(distinct process) from "order"')
            )
        engine.dispose()
    counts = Counter(told)
    for word in ("right", "wrong", "failed", "hung"):
        print(f"{counts[word]:4} {word}")
    answered = {n for n, how in enumerate(told) if how in {"right", "wrong"}}
    print(f"{len(answered - rows):4} confirmed, but not in the table")
    print(f"{len(rows):4} orders in the table, by {processes} processes")
    return counts["right"] == orders and rows == set(range(orders))


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pool", choices=["poolproof", "queue"], default="poolproof")
    parser.add_argument("--url", help="a PostgreSQL to use; default: one of its own")
    parser.add_argument("--orders", type=int, default=200, help="default: 200")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = arguments.url
        if url is None:
            server = stack.enter_context(EmbeddedServer())
            psycopg2 = server.url.set(drivername="postgresql+psycopg2")
            url = psycopg2.render_as_string(hide_password=False)
        fine = run(url, arguments.pool, folder / "worker.log", arguments.orders)
        if not fine and arguments.pool == "poolproof":
            print((folder / "worker.log").read_text(), file=sys.stderr)
    print(f"{arguments.pool}: {'every order right' if fine else 'THE FAULT SHOWED'}")
    return 0 if fine else 1


if __name__ == "__main__":
    # However it is told to end, what it has started ends first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        status = main()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(status)
