"""A FastAPI shop under Gunicorn, forked when it was loaded, and its customers.

    python examples/fastapi_app
    python examples/fastapi_app --pool queue

It starts a PostgreSQL of its own and Gunicorn (`pip install
".[drill,starlette,asyncpg,gunicorn]" fastapi`), orders with eight customers at once, of
whom every tenth hangs up in the middle, and compares what they were told with what is
in the table.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import http
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from poolproof.drill.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
CUSTOMERS = 8
PATIENCE_S = 5.0
START_S = 30.0
# So many orders may hang before the customers go home.
HUNG = 8


@contextlib.contextmanager
def gunicorn(url: str, pool: str, log: Path) -> Iterator[str]:
    """Serve the shop; yield its address, and stop it with all its workers."""
    with socket.create_server(("127.0.0.1", 0)) as place, log.open("w") as output:
        address = f"127.0.0.1:{place.getsockname()[1]}"
        bind = f"--bind=fd://{place.fileno()}"
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "gunicorn", "shop:app", bind],
            cwd=HERE,
            env={**os.environ, "SHOP_DATABASE": url, "SHOP_POOL": pool},
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[place.fileno()],
        )
    try:
        wait_until_open(process, address, log)
        yield f"http://{address}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        # Workers that hang outlive their master.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_open(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until the shop answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{address}/", timeout=PATIENCE_S).close()
            return
        time.sleep(0.05)
    sys.exit(f"Gunicorn did not start:\n{log.read_text()}")


def order(shop: str, number: int, hung: list[int], patience_s: float) -> str:
    """Order once, or begin to; say how it went."""
    if len(hung) >= HUNG:
        return "not tried"
    address = shop.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=patience_s)
    try:
        connection.request("POST", f"/order/{number}")
        if hangs_up(number):
            time.sleep(number % 7 * 0.005)
            return "hung up"
        answer = connection.getresponse()
        told = answer.read().decode()
    except TimeoutError:
        hung.append(number)
        return "hung"
    except (OSError, http.client.HTTPException):
        return "failed"
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        return "failed"
    return "right" if told == f'"{number}"' else "wrong"


def hangs_up(number: int) -> bool:
    """Say whether the customer of this order does not wait for the answer."""
    return number % 10 == 3  # noqa: PLR2004


def run(url: str, pool: str, log: Path, orders: int, patience_s: float) -> bool:
    """Serve, order, compare; say whether all went right."""
    of_asyncio = sa.make_url(url).set(drivername="postgresql+asyncpg")
    rendered = of_asyncio.render_as_string(hide_password=False)
    with gunicorn(rendered, pool, log) as shop:
        with concurrent.futures.ThreadPoolExecutor(CUSTOMERS) as customers:
            hung: list[int] = []
            ask = functools.partial(order, shop, hung=hung, patience_s=patience_s)
            told = list(customers.map(ask, range(orders)))
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            rows = set(connection.scalars(sa.text('select number from "order"')))
            workers = connection.scalar(
                sa.text('select count(distinct worker) from "order"')
            )
        engine.dispose()
    counts = Counter(told)
    for word in ("right", "wrong", "failed", "hung", "not tried", "hung up"):
        print(f"{counts[word]:4} {word}")
    answered = {n for n, how in enumerate(told) if how in {"right", "wrong"}}
    print(f"{len(answered - rows):4} confirmed, but not in the table")
    print(f"{len(rows):4} orders in the table, by {workers} workers")
    waited = {number for number in range(orders) if not hangs_up(number)}
    return counts["right"] == len(waited) and waited <= rows


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pool", choices=["poolproof", "queue"], default="poolproof")
    parser.add_argument("--url", help="a PostgreSQL to use; default: one of its own")
    parser.add_argument("--orders", type=int, default=400, help="default: 400")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_S,
        metavar="SECONDS",
        help="after which an order hangs (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = arguments.url
        if url is None:
            server = stack.enter_context(EmbeddedServer())
            url = server.url.render_as_string(hide_password=False)
        log = folder / "gunicorn.log"
        fine = run(url, arguments.pool, log, arguments.orders, arguments.patience)
        if not fine and arguments.pool == "poolproof":
            print(log.read_text(), file=sys.stderr)
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
