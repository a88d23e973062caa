"""Loads the suite's plugins and marks each test by what it needs."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parent))

from plugins.representatives import mark_represented

# pg8000 makes a TLS context for each connection, and each reads all the authorities
# that the machine names here: 30 ms. Our servers' certificates come from none of them.
os.environ["SSL_CERT_FILE"] = os.devnull

# What a shell starts in the background ignores Ctrl-C, and so would every program that
# the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the caller has set for applications of his own is not meant for these.
for name in [name for name in os.environ if name.startswith("POOLPROOF_")]:
    if not name.startswith("POOLPROOF_TEST_"):
        del os.environ[name]

ROOM = 2_000_000_000  # bytes; a server's files are 40 to 100 million


def has_room(place: str) -> bool:
    """Tell whether a dozen servers may have their files and programs in a place."""
    with contextlib.suppress(OSError):
        found = os.statvfs(place)
        is_open = not found.f_flag & (os.ST_RDONLY | os.ST_NOEXEC)
        return is_open and found.f_bavail * found.f_frsize > ROOM
    return False


# Servers are made by the dozen, and to write one's files to a disk costs more than all
# else of it. Who has named a place for temporary files keeps it.
in_memory: Path | None = None
if "TMPDIR" not in os.environ and has_room("/dev/shm"):
    in_memory = Path(tempfile.mkdtemp(prefix="pp-tests-", dir="/dev/shm"))
    in_memory.chmod(0o1777)  # PostgreSQL has another user
    os.environ["TMPDIR"] = str(in_memory)  # for the workers, too
    tempfile.tempdir = None  # forget what was asked for before


def pytest_unconfigure() -> None:
    """Give the memory back, in the process that took it."""
    if in_memory is not None:
        shutil.rmtree(in_memory, ignore_errors=True)


pytest_plugins = (
    "plugins.server",
    "plugins.debian_server",
    "plugins.leaks",
    "plugins.dbapi",
    "plugins.gunicorns",
    "plugins.peers",
    "plugins.pools",
    "plugins.fetched_pooler",
    "plugins.pooler",
    "plugins.pipelines",
)

MARKERS = {
    "pg": "needs PostgreSQL",
    "fork": "forks",
    "slow": "takes longer than a second",
    "alone": "measures time, or takes what all processes share: none runs beside it",
    "soak": "takes too long for every change: `make soak` runs it",
    "difference": "an intended difference from QueuePool",
    "quick(*words)": "soak, but for those whose parameters have these names",
    "represented": "soak, for `make test` runs it with another of its parameters",
    "each": "is represented by no other: what differs between them is the subject",
}


def pytest_configure(config: pytest.Config) -> None:
    """Make the suite's markers known."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


@pytest.hookimpl(tryfirst=True)  # before any is left out by its marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark who needs a server, and who soaks; let pg8000 leave its sockets behind."""
    for item in items:
        if _soaks(item):
            item.add_marker(pytest.mark.soak)
        names = set(getattr(item, "fixturenames", ()))
        if names & {"pg", "debian_pg"}:
            item.add_marker(pytest.mark.pg)
        if _breaks_pg8000(item):
            item.add_marker(
                pytest.mark.filterwarnings(
                    "ignore::pytest.PytestUnraisableExceptionWarning"
                )
            )
    mark_represented(items)


def pytest_collection_finish() -> None:
    """Leave what stands until the end, all tests among it, out of each collection.

    Each takes 0.2 s otherwise, and in a forked child copies that memory first.
    """
    gc.freeze()


def _soaks(item: pytest.Item) -> bool:
    """Tell whether a test is one of the others beside the `quick` one."""
    words = {word for mark in item.iter_markers("quick") for word in mark.args}
    return not words <= {*item.name.rpartition("[")[2].rstrip("]").split("-")}


def _breaks_pg8000(item: pytest.Item) -> bool:
    """Tell whether a test breaks connections of pg8000, by name or among others.

    Where connecting fails, or the connection broke, pg8000 closes neither the socket
    nor the buffered file that it made of it, and the collector warns.
    """
    directory = item.path.parent.name
    return directory == "faults" or (
        directory in {"pool", "connector", "doctor", "retry", "integrations"}
        and "pg8000" in item.name
    )


@pytest.fixture(autouse=True)
def _collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what pg8000 leaves within the test, not in whichever comes next."""
    yield
    if _breaks_pg8000(request.node):
        gc.collect()
        gc.freeze()  # so that the next collection is a short one
