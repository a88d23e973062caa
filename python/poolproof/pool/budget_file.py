"""The file of a host's budget: where it stands, and how a process opens it.

It is opened once in a process and never closed: with any of its descriptors all locks
of the process on it would go. A child of a fork goes on with the descriptor that it has
inherited, and has none of its parent's locks.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from sqlalchemy import exc

from poolproof import _native

__all__ = ["VARIABLE", "checked", "opened", "place_of"]

VARIABLE = "POOLPROOF_BUDGET_DIR"
_RUNTIME = "XDG_RUNTIME_DIR"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_MEANING = (
    "a name, a number of connections from 1 to 1048576 and, where it is to stand "
    'elsewhere, a directory: ("app", 40) or "app:40" or "app:40:/run/app"; or None'
)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Locks there are another machine's, or nobody's.
_OF_NETWORKS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "afs", "lustre"),
        *("glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "beegfs"),
    }
)
_MOUNTS = Path("/proc/self/mountinfo")

Budget = tuple[str, int, str | None]


def checked(value: Any) -> Budget | None:
    """Check a `host_budget`.

    Args:
        value: A name, a number and perhaps a directory, in a tuple, a list or a text.

    Returns:
        All three, None for a directory that was not said; None for no budget.

    Raises:
        ArgumentError: It is none of these.
    """
    if value is None:
        return None
    parts: Any = value.split(":", 2) if isinstance(value, str) else value
    if not isinstance(parts, (tuple, list)) or len(parts) not in {2, 3}:
        raise _wrong(value)
    name, most, *rest = parts
    if isinstance(value, str) and most.isdecimal():
        most = int(most)
    directory = rest[0] if rest else None
    if isinstance(directory, os.PathLike):
        directory = os.fspath(directory)
    if (
        not isinstance(name, str)
        or not _NAME.fullmatch(name)
        or isinstance(most, bool)
        or not isinstance(most, int)
        or not 0 < most <= _native.Shares.MOST
        or not (directory is None or (isinstance(directory, str) and directory))
        or "\0" in (directory or "")
    ):
        raise _wrong(value)
    return name, most, directory


def _wrong(value: object) -> exc.ArgumentError:
    return exc.ArgumentError(f"host_budget is {value!r}, but must be {_MEANING}")


def place_of(budget: Budget) -> str:
    """Say where a budget's file stands.

    Args:
        budget: Its name, number and directory.

    Returns:
        An absolute path.

    Raises:
        ArgumentError: No directory was said, and the environment says none.
    """
    name, _most, said = budget
    directory = said or os.environ.get(VARIABLE) or os.environ.get(_RUNTIME)
    if not directory:
        msg = (
            f"host_budget {name!r} needs a directory that all its processes see: "
            f"neither {VARIABLE} nor {_RUNTIME} is set. Say one, as in "
            f'host_budget=("{name}", {budget[1]}, "/run/{name}")'
        )
        raise exc.ArgumentError(msg)
    return str(Path(directory).absolute() / f"poolproof-budget-{name}")


def opened(path: str) -> _native.Shares:
    """Return the shares of the budget whose file stands there, in this process.

    Args:
        path: Where; the file is made if there is none.

    Returns:
        The same object for everybody in this process, while the file is the same.

    Raises:
        ArgumentError: It cannot be used; the message says why.
    """
    identity = _identity(path)
    file = None if identity is None else _files.get((_native.generation(), *identity))
    if file is not None and file.usable:
        return file
    return _open(path)


def _open(path: str) -> _native.Shares:
    descriptor = _descriptor(path)
    found = os.fstat(descriptor)
    key = (_native.generation(), found.st_dev, found.st_ino)
    shares = _files.setdefault(key, _native.Shares(descriptor))
    if not shares.usable:  # its descriptor was closed beside us, and its locks are gone
        shares = _files[key] = _native.Shares(descriptor)
    _descriptors[found.st_dev, found.st_ino] = descriptor
    return shares


def _descriptor(path: str) -> int:
    """Return a descriptor of the file, one that this process has if there is one."""
    identity = _identity(path)
    known = None if identity is None else _descriptors.get(identity)
    if known is not None:
        try:
            found = os.fstat(known)
        except OSError:
            pass
        else:
            if (found.st_dev, found.st_ino) == identity:
                return known
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise exc.ArgumentError(_refusal(path, error)) from error
    found = os.fstat(descriptor)
    what = _unfit(found)
    if what:
        if (found.st_dev, found.st_ino) not in _descriptors:  # else its locks would go
            os.close(descriptor)
        msg = f"the file of the host budget, {path}, {what}"
        raise exc.ArgumentError(msg)
    return descriptor


def _unfit(found: os.stat_result) -> str:
    """Say why a file is of no use, or nothing."""
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file: take it away, or choose another name or directory"
    if found.st_nlink != 1:
        return (
            f"has {found.st_nlink} names (hard links), so it may be another file as "
            "well: take it away, or choose a directory that only its users can write"
        )
    kind = _file_system(found.st_dev)
    if kind in _OF_NETWORKS:
        return (
            f"stands on {kind}, a file system of a network: a budget is one host's, "
            "and its locks must end with their process. Choose a directory of this "
            "host, as /run or /dev/shm have some"
        )
    return ""


def _file_system(device: int) -> str:
    """Say what kind of file system a device is; nothing where that is not known."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, behind = line.partition(" - ")
        if before.split()[2:3] == [wanted]:
            return behind.partition(" ")[0]
    return ""


def _refusal(path: str, error: OSError) -> str:
    """Say why the file cannot be opened."""
    directory = Path(path).parent
    if isinstance(error, FileNotFoundError):
        why = f"the directory {directory} does not exist"
    elif Path(path).is_symlink():
        why = "it is a symbolic link, which is not followed"
    elif isinstance(error, PermissionError):
        why = (
            f"user {os.geteuid()} may not write there ({error.strerror}); users share "
            "a budget in a directory and a file that all of them may write"
        )
    else:
        why = error.strerror or str(error)
    return (
        f"the file of the host budget, {path}, cannot be opened: {why}. Say another "
        f"directory in host_budget, or in {VARIABLE}"
    )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


# By generation, device and inode; and what was opened, for good, by device and inode.
_files: dict[tuple[int, int, int], _native.Shares] = {}
_descriptors: dict[tuple[int, int], int] = {}
