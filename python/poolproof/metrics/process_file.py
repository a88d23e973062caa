"""The file in which one process keeps its metrics, for others to read.

It is mapped into memory, so that what was written is there when the process is killed.
Two places take turns: the new text is written beside the old one, and then a number
says which is the newer. Whoever is killed in the middle leaves the old one.

The process holds a lock on its file (POSIX `lockf`: a fork does not share it, and the
system gives it back however the process ends), so whoever reads can tell whether it
lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import stat
import struct
import zlib
from typing import TYPE_CHECKING

from poolproof.metrics.errors import MetricsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SUFFIX", "ProcessFile", "is_alive", "read_file"]

SUFFIX = ".metrics"
_MAGIC = b"poolproof metrics 1\n"
# Where the number stands that says which place is the newer.
_NUMBER = struct.Struct("=Q")
_NUMBER_AT = 64
# Length and checksum of a place.
_PLACE = struct.Struct("=QI")
_PLACES_AT = (128, 192)
_TEXTS_AT = 4096
# Only what is written takes room: the rest of the file is a hole.
_MOST = 4 << 20
_READS_MOST = 8


class ProcessFile:
    """The file of this process, open and locked.

    Attributes:
        path: Where it is.
    """

    def __init__(self, directory: Path) -> None:
        """Make the file: readable and writable by this user alone.

        Args:
            directory: Where; it exists.

        Raises:
            MetricsError: It cannot be made, or cannot be locked.
        """
        # The number of a process is used again, and another container has the same.
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise MetricsError(
                f"metrics cannot be kept in {directory}: {error.strerror}; name a "
                "directory that this user may write to"
            ) from None
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, _TEXTS_AT + 2 * _MOST)
            self._map = mmap.mmap(self._descriptor, _TEXTS_AT + 2 * _MOST)
        except OSError as error:
            self.forget()
            raise MetricsError(
                f"{self.path} cannot be kept: {error.strerror}; another process may "
                "have it, or its file system knows no locks: name another directory"
            ) from None
        self._map[: len(_MAGIC)] = _MAGIC
        self._number = 0

    def write(self, text: bytes) -> bool:
        """Put a text in place of the one before.

        Args:
            text: The whole text.

        Returns:
            False when it is too long, and the one before stays.
        """
        if len(text) > _MOST:
            return False
        number = self._number + 1
        place = number & 1
        begins = _TEXTS_AT + place * _MOST
        self._map[begins : begins + len(text)] = text
        head = (len(text), zlib.crc32(text))
        _PLACE.pack_into(self._map, _PLACES_AT[place], *head)
        _NUMBER.pack_into(self._map, _NUMBER_AT, number)
        self._number = number
        return True

    def forget(self) -> None:
        """Close a parent's file in a child, which the parent keeps; nothing fails."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def read_file(path: Path) -> tuple[bytes, bool] | None:
    """Read what a process has written last.

    Args:
        path: The file of another process; to open one's own would end its lock.

    Returns:
        The text, and whether the process lives; None where there is none (yet), or it
        is no such file, or not this user's.
    """
    try:
        # Without O_NONBLOCK a pipe of this name would keep whoever reads for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags)
    except OSError:  # gone, or somebody else's
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or os.geteuid() not in (0, found.st_uid):
            return None
        text = _read(descriptor)
        return None if text is None else (text, is_alive(descriptor))
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> bytes | None:
    for _ in range(_READS_MOST):
        head = os.pread(descriptor, _TEXTS_AT, 0)
        if len(head) < _TEXTS_AT or not head.startswith(_MAGIC):
            return None
        (number,) = _NUMBER.unpack_from(head, _NUMBER_AT)
        if not number:
            return None  # it has just been made
        place = number & 1
        length, checksum = _PLACE.unpack_from(head, _PLACES_AT[place])
        if length > _MOST:
            return None
        text = os.pread(descriptor, length, _TEXTS_AT + place * _MOST)
        if zlib.crc32(text) == checksum:
            return text
        # Its process has written twice meanwhile: once more.
    return None


def is_alive(descriptor: int) -> bool:
    """Tell whether the process that made a file lives.

    Args:
        descriptor: The file, open for reading.
    """
    try:
        # Those who read do not keep each other out.
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.lockf(descriptor, fcntl.LOCK_UN)
    return False
