"""Try an installed poolproof: what a user's first minutes need, on SQLite alone.

    python -I smoke.py VERSION

Runs in an environment that holds the wheel and what it requires, nothing else, and
may write a file into the current directory.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import sqlalchemy
from sqlalchemy import text

import poolproof


def same_version(expected: str) -> None:
    """The package, its metadata and Cargo.toml say the same version."""
    versions = {poolproof.__version__, importlib.metadata.version("poolproof")}
    assert versions == {expected}, versions


def installed_not_the_checkout() -> None:
    """What is tried is the installed wheel."""
    file = Path(str(poolproof.__file__))
    assert file.is_relative_to(sys.prefix), file


def needs_sqlalchemy_alone() -> None:
    """No other package is required without an extra."""
    required = importlib.metadata.requires("poolproof") or []
    plain = [name for name in required if "extra ==" not in name]
    assert [name.lower()[:10] for name in plain] == ["sqlalchemy"], plain


def engine_works(pool_class: type[sqlalchemy.Pool] | None, url: str) -> None:
    """An engine queries through our pool, in this process and in a forked child."""
    options = {} if pool_class is None else {"poolclass": pool_class}
    engine = sqlalchemy.create_engine(url, **options)
    assert type(engine.pool) is poolproof.Pool, type(engine.pool)

    def query() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(text("select 41 + 1")))

    assert query() == 42
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if query() == 42 else 1
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, "the child's query failed"
    assert query() == 42
    engine.dispose()


def main(expected: str) -> None:
    """Run every try; an assertion that fails ends it."""
    same_version(expected)
    installed_not_the_checkout()
    needs_sqlalchemy_alone()
    engine_works(poolproof.Pool, "sqlite://")
    engine_works(None, "sqlite:///smoke.db?plugin=poolproof")
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"poolproof {expected} works on Python {python}, {sqlalchemy.__version__=}")


if __name__ == "__main__":
    main(sys.argv[1])
