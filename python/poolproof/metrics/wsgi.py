"""`/metrics` in front of any WSGI application, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof.metrics.prometheus import wsgi_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["with_metrics"]


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
        ImportError: `prometheus_client` is missing.
    """
    if not path.startswith("/"):
        msg = f"path begins with /, which {path!r} does not"
        raise ValueError(msg)

    def application(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != path:
            return app(environ, start_response)
        # Made anew: the directory is made with the first connection.
        return wsgi_app()(environ, start_response)  # type: ignore[no-any-return]  # of prometheus_client

    return application
