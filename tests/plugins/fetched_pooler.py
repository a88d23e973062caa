"""PgBouncer of Debian's testing, where `tools/testing_root.py` has fetched it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.pooler import StartPooler

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="session")
def fetched_pgbouncer() -> Iterator[Path]:
    """Copy it, with its libraries, to where root's servant may run it."""
    sys.path.insert(0, str(TOOLS))
    try:
        import testing_root
    finally:
        sys.path.remove(str(TOOLS))
    program = testing_root.program("pgbouncer")
    if program is None:
        # Also with CI=1: a machine need not have it.
        pytest.skip("no PgBouncer 1.26: python tools/testing_root.py fetches it")
    loader = next(testing_root.directory().glob("usr/lib64/ld-linux-*"))
    listed = subprocess.check_output([loader, "--list", program], text=True)
    place = Path(tempfile.mkdtemp(prefix="pp-"))
    try:
        place.chmod(0o755)
        for word in {word for word in listed.split() if word.startswith("/")}:
            shutil.copy(word, place)
        shutil.copy(loader, place / "ld.so")
        shutil.copy(program, place / "program")
        script = place / "pgbouncer"
        script.write_text(
            "#!/bin/sh\n"
            f'exec {place}/ld.so --library-path {place} {place}/program "$@"\n'
        )
        script.chmod(0o755)
        yield script
    finally:
        shutil.rmtree(place)


@pytest.fixture
def telling_pooler(
    fetched_pgbouncer: Path, pooler: StartPooler, monkeypatch: pytest.MonkeyPatch
) -> StartPooler:
    """Start PgBouncers that say at connecting what they are, as `pooler` does."""
    path = [str(fetched_pgbouncer.parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
    return pooler
