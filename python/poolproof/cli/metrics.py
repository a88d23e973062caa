"""``poolproof metrics``: the metrics of all processes of an application."""

from __future__ import annotations

import sys
import threading
from typing import Any

import click

from poolproof.cli.signals import stoppable
from poolproof.metrics.errors import MetricsError

__all__ = ["metrics"]

_PORT_MOST = 65535


class MetricsFailed(click.ClickException):
    """What went wrong, in one sentence."""

    def show(self, file: Any = None) -> None:
        """Say it as the other commands do."""
        click.echo(f"poolproof: {self.message}", file=file, err=file is None)


class _Address(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # of newer ones
    """``HOST:PORT``, or a port alone."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        """Read one."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isdecimal() or int(port) > _PORT_MOST:
            self.fail(f"{value!r} is no HOST:PORT, such as 127.0.0.1:9898", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


@click.command(short_help="Serve the metrics of an application's processes.")
@click.option(
    "--listen",
    type=_Address(),
    help="Serve them to Prometheus there until Ctrl-C; a host other than 127.0.0.1 lets"
    " others read them. [default: print them once]",
)
@click.option(
    "--dir",
    "directory",
    envvar="POOLPROOF_METRICS_DIR",
    metavar="DIRECTORY",
    help="Where the processes keep them. [default: POOLPROOF_METRICS_DIR]",
)
def metrics(*, listen: tuple[str, int] | None, directory: str | None) -> int:
    """Print or serve the metrics of all processes with one POOLPROOF_METRICS_DIR.

    Exit status: 0 when it was done, 2 when it could not be.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - an extra

        from poolproof.metrics.prometheus import MultiProcess  # noqa: PLC0415 - the same
    except ImportError:
        message = "metrics need prometheus_client: pip install prometheus-client"
        raise MetricsFailed(message) from None
    registry = CollectorRegistry()
    try:
        registry.register(MultiProcess(directory))
    except MetricsError as error:
        raise MetricsFailed(str(error)) from None
    if listen is None:
        sys.stdout.write(generate_latest(registry).decode())
        return 0
    _serve(registry, *listen)
    return 0


def _serve(registry: Any, host: str, port: int) -> None:
    from prometheus_client import start_http_server  # noqa: PLC0415 - an extra

    with stoppable() as stop:
        try:
            server, thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            message = f"cannot listen on {host}:{port}: {why}; choose another --listen"
            raise MetricsFailed(message) from None
        try:
            bound = server.socket.getsockname()[1]
            click.echo(f"http://{_shown(host)}:{bound}/metrics", err=True)
            with stop.may_end():
                threading.Event().wait()
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
