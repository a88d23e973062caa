"""A folder for the temporary files of everything that the drill starts.

A process that is killed leaves its temporary files behind: Python's `multiprocessing`
its ``pymp-`` folders, a service its log. They all lie in one folder, which is removed
in the end; by a process of its own when the drill is killed outright.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from poolproof.drill.errors import SetupError
from poolproof.drill.started import Started

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX: Final = "poolproof-drill-"
_EMPTY_S: Final = 10.0
_LOOK_S: Final = 0.02

# Nobody tells it that all went well when the drill is killed.
_GUARDIAN: Final = """\
import os, shutil, sys, time
if not sys.stdin.read():
    end = time.monotonic() + 60
    while os.path.exists(sys.argv[1]) and time.monotonic() < end:
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        time.sleep(0.1)
"""


class Workplace(Started):
    """A folder that lasts as long as the ``with`` block; its path is `folder`."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where temporary files belong.

        Raises:
            SetupError: It was not started.
        """
        if self._folder is None:
            raise SetupError("the drill has no folder for temporary files")
        return self._folder

    def start(self) -> Self:
        """Make the folder.

        Raises:
            SetupError: It cannot be made: the disk is full, say.
        """
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        except OSError as error:
            raise SetupError(
                f"no folder for temporary files: {error.strerror}:"
                f" {tempfile.gettempdir()} (TMPDIR names another place)"
            ) from None
        if os.geteuid() == 0:
            # What runs as nobody has its own folder in it, and must get there.
            self._folder.chmod(0o711)
        self._guardian = subprocess.Popen(  # noqa: S603 (our own words)
            [sys.executable, "-ISc", _GUARDIAN, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,
        )
        return self

    def stop(self) -> None:
        """Remove the folder, when those who clean up in it have had their time."""
        folder, self._folder = self._folder, None
        guardian, self._guardian = self._guardian, None
        if folder is not None:
            end = time.monotonic() + _EMPTY_S
            while any(folder.glob(f"{PREFIX}*")) and time.monotonic() < end:
                time.sleep(_LOOK_S)
            while folder.exists() and time.monotonic() < end:
                shutil.rmtree(folder, ignore_errors=True)
        if guardian is not None:
            with contextlib.suppress(BrokenPipeError):
                guardian.communicate(b"done")
