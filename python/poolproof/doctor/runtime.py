"""3xx: what else of a process is set up before a fork, and on which versions."""

from __future__ import annotations

import datetime as dt
import os
import sys
import sysconfig
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy

from poolproof.doctor.finding import fine, found
from poolproof.metrics.automatic import is_wanted
from poolproof.metrics.files import VARIABLE, known_directory

if TYPE_CHECKING:
    from poolproof.doctor.finding import Finding
    from poolproof.doctor.subject import Subject

# The last month of each; of the language's own page of versions.
_LAST_DAYS: Final = {
    (3, 10): dt.date(2026, 10, 31),
    (3, 11): dt.date(2027, 10, 31),
    (3, 12): dt.date(2028, 10, 31),
    (3, 13): dt.date(2029, 10, 31),
    (3, 14): dt.date(2030, 10, 31),
    (3, 15): dt.date(2031, 10, 31),
}
_WEAKREFS: Final = (3, 15)
_BROKEN: Final = (2, 1)
_MENDED: Final = (2, 1, 7)
_OTEL: Final = (
    ("opentelemetry.trace", "get_tracer_provider", "spans"),
    ("opentelemetry.metrics", "get_meter_provider", "metrics"),
)


def telemetry(subject: Subject) -> Finding:
    """PP310: was OpenTelemetry set up before the fork."""
    there = list(_providers())
    if not there:
        return fine("no provider of OpenTelemetry is set up at import")
    names = " and ".join(what for _, what in there)
    evidence = [f"{kind} for {what}" for kind, what in there]
    deployment = subject.deployment
    if not (deployment.preload or deployment.worker_class == "prefork"):
        return fine(f"OpenTelemetry is set up for {names}, and nothing forks after it")
    return found(
        "warning",
        f"OpenTelemetry is set up for {names} before the fork: its threads are not in "
        "the children, or all workers report as one service.instance.id",
        "set providers up in post_fork, or in worker_process_init",
        evidence=evidence,
        confidence="likely",
    )


def _providers() -> Any:
    """Yield the providers of the SDK, and what they are for; nothing is imported."""
    for module, ask, what in _OTEL:
        get = getattr(sys.modules.get(module), ask, None)
        if get is None:
            continue
        kind = type(get())
        if kind.__module__.startswith("opentelemetry.sdk."):
            yield f"{kind.__module__}.{kind.__qualname__}", what


def prometheus(subject: Subject) -> Finding:
    """PP311: does each worker answer for itself alone."""
    theirs = "prometheus_client" in sys.modules
    ours = is_wanted()  # by a page of the package's own
    if not (theirs or ours):
        return fine("no metrics are served")
    if subject.deployment.workers in (None, 1):
        return fine("metrics are served, and one process answers")
    names = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
    place = next((name for name in names if os.environ.get(name)), None)
    if place is not None:
        return fine(f"{place} is set")
    alone = (
        f"a scrape is answered by one of {subject.deployment.workers} workers, with "
        "its own numbers alone: rates are nonsense"
    )
    directory = known_directory()
    if directory is None:
        advice = (
            f"set {VARIABLE} to a directory for all workers, or, under Gunicorn, use "
            "the hooks of poolproof.integrations.gunicorn, which make one"
            if ours
            else "set PROMETHEUS_MULTIPROC_DIR before prometheus_client is imported"
        )
        return found("warning", alone, advice)
    if theirs:
        return found(
            "note",
            "the pools' metrics are of all workers; what else prometheus_client's "
            "registry has is of the one that answers",
            "set PROMETHEUS_MULTIPROC_DIR too, where there is anything else in it",
        )
    return fine(f"the workers keep their metrics in {directory}")


def versions(subject: Subject) -> Finding:
    """PP313: versions that do not go together, or are not mended any more."""
    running = sys.version_info[:2]
    names = [f"Python {sys.version.split()[0]}", f"SQLAlchemy {sqlalchemy.__version__}"]
    library = tuple(
        int(part) for part in sqlalchemy.__version__.split(".")[:3] if part.isdigit()
    )
    wrong = list(_wrong(running, library, subject.today))
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        wrong.append("this Python has no interpreter lock, which the pool rests on")
    if not wrong:
        return fine(", ".join(names))
    return found(
        "warning",
        "; ".join(wrong),
        "move to a Python that is mended, and the newest SQLAlchemy of its line",
        evidence=names,
    )


def _wrong(running: tuple[int, ...], library: tuple[int, ...], today: dt.date) -> Any:
    last = _LAST_DAYS.get((running[0], running[1]))
    if last is not None and last < today:
        name = ".".join(map(str, running))
        yield f"Python {name} is not mended any more, since {last:%B %Y}"
    if running >= _WEAKREFS and _BROKEN <= library < _MENDED:
        yield (
            "on Python 3.15 SQLAlchemy 2.1 before 2.1.7 does not give back a "
            "connection that was collected in a circle"
        )
