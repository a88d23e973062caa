"""3xx: gevent and eventlet, which replace locks and thread-locals, in time or late."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from poolproof._cooperative import locks_are_replaced
from poolproof.doctor.finding import fine, found

if TYPE_CHECKING:
    from poolproof.doctor.finding import Finding
    from poolproof.doctor.subject import Subject

__all__ = ["greenlets", "is_patched_late", "late_patch"]

_GREEN: Final = ("gevent", "eventlet")


def greenlets(subject: Subject) -> Finding:
    """PP305: were locks and thread-locals replaced in time, and where it is meant."""
    kind = subject.deployment.worker_class
    replaced = locks_are_replaced()
    green = kind.startswith(_GREEN)
    if is_patched_late(kind, preload=subject.deployment.preload):
        what, _, advice = late_patch(kind).partition("; ")
        return found("warning", what, advice)
    if replaced and kind and not green:
        return found(
            "warning",
            f"locks and sockets are replaced by greenlets' own, under {kind} workers, "
            "which are threads or processes",
            "take monkey.patch_all() out, or run gevent workers",
        )
    if replaced:
        late = [
            one
            for one in subject.taken().thread_locals
            if type(one).__module__ == "_thread"
        ]
        if late:
            return found(
                "error",
                f"{len(late)} scoped_session is older than monkey.patch_all(): all "
                "greenlets share one session, and read each other's answers",
                "patch before SQLAlchemy's sessions are made: in the first lines",
            )
        if subject.engine.dialect.driver == "psycopg2" and not _waits_greenly():
            return found(
                "warning",
                "psycopg2 stops every greenlet while it waits: it has no wait callback",
                "psycogreen.gevent.patch_psycopg(), or psycopg 3, which waits by "
                "itself",
            )
        return fine("locks were replaced in time")
    return fine("neither gevent nor eventlet has replaced the locks")


def is_patched_late(worker_class: str, *, preload: bool) -> bool:
    """Tell whether workers replace locks after the application was loaded.

    Args:
        worker_class: Gunicorn's.
        preload: Whether the application is loaded before the fork.
    """
    return preload and worker_class.startswith(_GREEN) and not locks_are_replaced()


def late_patch(worker_class: str) -> str:
    """Say what comes of that, and what to do.

    Args:
        worker_class: Gunicorn's.
    """
    return (
        f"preload_app has loaded the application before {worker_class} workers patch "
        "themselves, so its scoped_session is one session for all requests of a "
        "worker; patch where gunicorn.conf.py begins (`from gevent import monkey; "
        "monkey.patch_all()`, or `import eventlet; eventlet.monkey_patch()`)"
    )


def _waits_greenly() -> bool:
    extensions = sys.modules.get("psycopg2.extensions")
    ask = getattr(extensions, "get_wait_callback", None)
    return ask is None or ask() is not None
