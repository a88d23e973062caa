"""`/metrics` for Prometheus, of one process or of all, in front of any application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof.metrics import files
from poolproof.metrics.exposition import CONTENT_TYPE, text
from poolproof.metrics.snapshot import snapshot
from poolproof.metrics.table import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["metrics_app", "metrics_text", "with_metrics"]


def metrics_text() -> bytes:
    """Return the metrics as Prometheus reads them.

    Of all processes where `POOLPROOF_METRICS_DIR` names their directory, else of this
    one.
    """
    directory = files.directory_from_environment()
    # It is made with the first connection, which may come later.
    if directory is not None and directory.is_dir():
        return text(files.read_all(directory))
    return text(read(snapshot()))


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

    Of all processes where `POOLPROOF_METRICS_DIR` names their directory, else of the
    one that answers.

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

    def application(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        chosen = metrics_app if environ.get("PATH_INFO") == path else app
        return chosen(environ, start_response)

    return application
