"""The embedded PostgreSQL that the benchmarks ask."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from poolproof.drill.server import PACKAGE, installation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

__all__ = ["server"]


@contextlib.contextmanager
def server() -> Iterator[Callable[[str], URL]]:
    """Run a PostgreSQL on the loopback address, without TLS, trusting its users.

    Yields:
        A function that returns the URL for a driver.

    Raises:
        RuntimeError: The package is missing, or the server did not start.
    """
    home = installation()
    if home is None:
        raise RuntimeError(f"install {PACKAGE.replace('_', '-')}: it has the server")
    package = home.parent if home.parent.name == PACKAGE else None
    # The drill's server asks for passwords, which hides what a pool adds to connecting.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from plugins.cluster import Cluster  # noqa: PLC0415 - found by the line above

    cluster = Cluster(home / "bin", package=package)
    try:
        cluster.start()
        yield cluster.url
    finally:
        cluster.stop()
