"""`/metrics` for Prometheus, of one process or of all, in front of any application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof.metrics import files
from poolproof.metrics.automatic import want
from poolproof.metrics.exposition import CONTENT_TYPE, text
from poolproof.metrics.snapshot import snapshot
from poolproof.metrics.table import complete, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["metrics_app", "metrics_text", "with_metrics"]

_ALONE = (
    b"# poolproof: of the process that answers, alone. Where several do, set "
    b"POOLPROOF_METRICS_DIR for all of them.\n"
)


def metrics_text() -> bytes:
    """Return the metrics as Prometheus reads them.

    Of all processes where `POOLPROOF_METRICS_DIR` names their directory, or Gunicorn's
    hooks have made one; else of this one, and a comment says so.
    """
    want()
    directory = files.known_directory()
    # It is made with the first connection, which may come later.
    if directory is not None and directory.is_dir():
        return text(files.read_all(directory))
    found = text(complete(read(snapshot())))
    return found if directory is not None else _ALONE + found


def metrics_app(
    _environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer with the metrics: a WSGI application."""
    body = metrics_text()
    head = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
    start_response("200 OK", head)
    return [body]


def with_metrics(
    app: Callable[..., Iterable[bytes]], path: str = "/metrics"
) -> Callable[..., Iterable[bytes]]:
    """Answer one path with the metrics, and leave all others to an application.

        app = with_metrics(app)

    Of all processes where `POOLPROOF_METRICS_DIR` names their directory, or under
    Gunicorn with its hooks (`poolproof.integrations.gunicorn`), else of the one that
    answers.

    Args:
        app: The WSGI application.
        path: The path, with ``/`` at its beginning.

    Returns:
        A WSGI application.

    Raises:
        ValueError: The path does not begin with ``/``.
    """
    if not path.startswith("/"):
        msg = f"path begins with /, which {path!r} does not"
        raise ValueError(msg)
    want()

    def application(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        chosen = metrics_app if environ.get("PATH_INFO") == path else app
        return chosen(environ, start_response)

    return application
