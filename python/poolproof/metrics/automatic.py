"""Keeping metrics where the environment, or an integration, has a directory for them.

Apart from `publisher`, so that who keeps none need not load it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

from poolproof import _native

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from poolproof.metrics.table import Samples

__all__ = [
    "agreed",
    "is_bystander",
    "is_main",
    "is_wanted",
    "mark_main",
    "offer",
    "publish",
    "stand_by",
    "want",
]

_PUBLISHER = "poolproof.metrics.publisher"
_VARIABLES = ("POOLPROOF_METRICS_DIR", "PROMETHEUS_MULTIPROC_DIR")


class _Agreement:
    """What is known of this process, and inherited by those that it forks.

    Attributes:
        offered: A directory for all processes that are forked from here.
        is_wanted: Whether the application serves its metrics.
        main: The generation of the process that only forks others.
        is_bystander: Whether it only looks at an application.
    """

    offered: Path | None = None
    is_wanted: bool = False
    main: int | None = None
    is_bystander: bool = False


_agreement = _Agreement()


def offer(directory: Path) -> None:
    """Name a directory for the processes that are forked from here.

    It is used, and made, where the application serves its metrics (`want`) and the
    environment names none.

    Args:
        directory: Where; it need not be there.
    """
    _agreement.offered = directory
    _begin()


def want() -> None:
    """Say that this application serves its metrics: those of all its processes."""
    if not _agreement.is_wanted:
        _agreement.is_wanted = True
        _begin()


def is_wanted() -> bool:
    """Tell whether this application has said that it serves its metrics."""
    return _agreement.is_wanted


def agreed() -> Path | None:
    """Return the directory that was offered, where the application wants one."""
    return _agreement.offered if _agreement.is_wanted else None


def mark_main() -> None:
    """Say that this process forks those that work, and does no work of its own.

    What it might open counts no more among what there may be; what it has open does. A
    child is no such process.
    """
    _agreement.main = _native.generation()
    publish()  # children are forked at once


def is_main() -> bool:
    """Tell whether this process only forks others."""
    return _agreement.main == _native.generation()


@contextlib.contextmanager
def stand_by() -> Iterator[None]:
    """Keep no metrics of this process, which only looks at an application.

    What it does would stand among what the application does. What it has written
    already, because the application connects where it is imported, is taken back.
    """
    before, _agreement.is_bystander = _agreement.is_bystander, True
    publisher = sys.modules.get(_PUBLISHER)
    if publisher is not None:
        publisher.withdraw()
    try:
        yield
    finally:
        _agreement.is_bystander = before


def is_bystander() -> bool:
    """Tell whether this process only looks at an application."""
    return _agreement.is_bystander


def publish() -> Samples | None:
    """Write what there is now, if this process keeps a file; nothing fails.

    Returns:
        What was written; None where it keeps none.
    """
    publisher = sys.modules.get(_PUBLISHER)
    return None if publisher is None else publisher.publish()


def _begin() -> None:
    if agreed() is not None:
        importlib.import_module(_PUBLISHER).start_by_environment()


if any(os.environ.get(name) for name in _VARIABLES):
    importlib.import_module(_PUBLISHER)
