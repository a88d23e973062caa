"""Keeping metrics where the environment says so, without a line of code.

Apart from `publisher`, so that who keeps none need not load it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolproof.metrics.table import Samples

__all__ = ["publish"]

_PUBLISHER = "poolproof.metrics.publisher"
_VARIABLES = ("POOLPROOF_METRICS_DIR", "PROMETHEUS_MULTIPROC_DIR")


def publish() -> Samples | None:
    """Write what there is now, if this process keeps a file; nothing fails.

    Returns:
        What was written; None where it keeps none.
    """
    publisher = sys.modules.get(_PUBLISHER)
    return None if publisher is None else publisher.publish()


if any(os.environ.get(name) for name in _VARIABLES):
    importlib.import_module(_PUBLISHER)
