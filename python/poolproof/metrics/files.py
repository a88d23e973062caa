"""The directory in which the processes of an application keep their metrics.

Each has a file of its own (`process_file`). The counts of processes that have ended are
kept; when there are many such files, whoever comes next adds them up in one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof._log import Log
from poolproof.metrics import table
from poolproof.metrics.automatic import agreed, publish
from poolproof.metrics.errors import MetricsError
from poolproof.metrics.process_file import SUFFIX, read_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from poolproof.metrics.table import Samples

__all__ = [
    "VARIABLE",
    "decode",
    "directory_of",
    "encode",
    "fold",
    "known_directory",
    "live",
    "own_files",
    "read_all",
]

_log = Log("poolproof.metrics")

VARIABLE = "POOLPROOF_METRICS_DIR"
_BESIDE = "PROMETHEUS_MULTIPROC_DIR"
_ENDED = "ended.json"
_LOCK = "lock"
# So many files of ended processes are no burden for whoever reads them.
_ENDED_MOST = 32
# How long somebody who reads waits for another who adds up.
_PATIENCE_S = 1.0
_POLL_S = 0.005

# The files that this process has made, with the generation that made each: to open its
# own would end its lock. A child reads its parent's as anybody's.
own_files: dict[str, int] = {}


def _is_own(name: str) -> bool:
    return own_files.get(name) == _native.generation()


def known_directory() -> Path | None:
    """Return the directory that the environment names, or an integration has chosen."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    if beside := os.environ.get(_BESIDE):
        return Path(beside) / table.PREFIX
    return agreed()


def directory_of(given: str | Path | None) -> Path:
    """Find the directory, which must be there.

    Args:
        given: What was asked for; None asks the environment.

    Raises:
        MetricsError: There is none.
    """
    found = known_directory() if given is None else Path(given)
    if found is None:
        raise MetricsError(
            f"no directory for metrics is known: set {VARIABLE} to one that all "
            "processes of the application may write to"
        )
    if not found.is_dir():
        raise MetricsError(
            f"{found} is no directory: it is made by the first process that keeps "
            f"metrics there (set {VARIABLE} for the application, too)"
        )
    return found


def encode(samples: Samples, **more: Any) -> bytes:
    """Write samples as a text.

    Args:
        samples: What `table.read` has returned.
        **more: What else is to be known of the process.
    """
    body = {
        name: [
            [labels, [value.up_to, value.sum_s]]
            if isinstance(value, table.Histogram)
            else [labels, value]
            for labels, value in values.items()
        ]
        for name, values in samples.items()
    }
    return json.dumps({**more, "samples": body}, separators=(",", ":")).encode()


def decode(text: bytes, names: Collection[str] | None = None) -> dict[str, Any] | None:
    """Read a text of `encode`; None where it is no such text.

    Args:
        text: It.
        names: Which metrics are wanted; None for all.
    """
    wanted = _METRICS if names is None else names
    try:
        body = json.loads(text)
        body["samples"] = {
            name: {
                tuple(labels): _value(value, is_histogram=name in _HISTOGRAMS)
                for labels, value in values
            }
            for name, values in body["samples"].items()
            if name in wanted and name in _METRICS
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return body  # type: ignore[no-any-return]  # of json


_METRICS = {metric.name: metric for metric in table.TABLE}
_HISTOGRAMS = {metric.name for metric in table.TABLE if metric.kind == "histogram"}


def _value(found: Any, *, is_histogram: bool) -> Any:
    if not is_histogram:
        return found
    up_to, sum_s = found
    return table.Histogram(tuple(up_to), sum_s)


def read_all(directory: Path) -> Samples:
    """Read the metrics of all processes, this one's as they are now.

    Args:
        directory: Where they keep them.

    Returns:
        Gauges of those that live; counters and histograms of those that have ended,
        too. Counters that may come are there, with 0.
    """
    total: Samples = {metric.name: {} for metric in table.TABLE}
    # Written first: what was shown once must be there when this process is killed.
    own = publish()
    if own is not None:
        _add(total, own, lives=True)
    with _locked(directory, fcntl.LOCK_SH):
        folded, ended = _read_ended(directory)
        _add(total, ended, lives=False)
        for _path, body, lives in _others(directory, folded):
            _add(total, body["samples"], lives=lives)
    return table.complete(total)


def live(directory: Path, names: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Return what is known of each other process that lives.

    Args:
        directory: Where they keep it.
        names: Which metrics are wanted; None for all.

    Returns:
        With ``behind_s`` in each: how old it is, in seconds. A process that is stopped,
        or in a call that keeps the interpreter's lock, writes nothing meanwhile.
    """
    found = []
    now = time.monotonic()
    for _path, body, lives in _others(directory, set(), names):
        if lives:
            written = body.get("written")
            if not isinstance(written, (int, float)):
                written = now  # by another version
            body["behind_s"] = max(0.0, now - written)
            found.append(body)
    return found


def fold(directory: Path) -> None:
    """Add up what processes have left that have ended, where they are many.

    Who finds somebody else at it leaves it to them.

    Args:
        directory: Where they kept it.
    """
    if sum(1 for _ in directory.glob(f"*{SUFFIX}")) <= _ENDED_MOST:
        return
    with _locked(directory, fcntl.LOCK_EX, patience_s=0) as is_locked:
        if not is_locked:
            return
        folded, total = _read_ended(directory)
        for name in folded:  # by one who was killed in the middle of the next lines
            (directory / name).unlink(missing_ok=True)
        gone = [
            (path, body) for path, body, lives in _others(directory, set()) if not lives
        ]
        for _path, body in gone:
            _add(total, body["samples"], lives=False)
        names = [path.name for path, _body in gone]
        place = directory / f"{_ENDED}.{os.getpid()}"
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(total, folded=names))
        # From here on whoever reads passes over these names.
        place.replace(directory / _ENDED)
        for path, _body in gone:
            path.unlink(missing_ok=True)


def _others(
    directory: Path, folded: set[str], names: Collection[str] | None = None
) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    """Yield the file, text and life of each other process."""
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        if path.name in folded or _is_own(path.name):
            continue
        found = read_file(path)
        if found is None:
            continue
        text, lives = found
        body = decode(text, names)
        if body is None:
            _log.warning("%s is not a file of metrics; it is passed over", path)
            continue
        yield path, body, lives


def _read_ended(directory: Path) -> tuple[set[str], Samples]:
    try:
        body = decode((directory / _ENDED).read_bytes())
    except OSError:
        body = None
    if body is None:
        return set(), {}
    return set(body.get("folded", ())), body["samples"]


def _add(total: Samples, samples: Samples, *, lives: bool) -> None:
    for name, values in samples.items():
        metric = _METRICS[name]
        if not lives and metric.kind not in table.COUNTED:
            continue
        known = total.setdefault(name, {})
        for labels, value in values.items():
            before = known.get(labels)
            known[labels] = value if before is None else metric.together(before, value)


@contextlib.contextmanager
def _locked(
    directory: Path, kind: int, patience_s: float = _PATIENCE_S
) -> Iterator[bool]:
    """Keep those who read and those who add up apart.

    Who cannot have the lock in time reads all the same: it may count a process twice,
    or not at all, once.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(directory / _LOCK, flags, 0o600)
    except OSError:  # another user's, or a directory that may only be read
        yield False
        return
    until = time.monotonic() + patience_s
    is_locked = False
    try:
        while not is_locked:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                is_locked = True
            except OSError:
                if time.monotonic() >= until:
                    break
                time.sleep(_POLL_S)
        yield is_locked
    finally:
        if is_locked:  # in so many words: a child may have a copy of the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
