"""``poolproof metrics``: the metrics of all processes of an application."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from poolproof.cli.signals import stoppable
from poolproof.metrics import files
from poolproof.metrics.errors import MetricsError
from poolproof.metrics.exposition import CONTENT_TYPE, text

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
    "--directory",
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
        if listen is not None and directory:
            # Who serves may be there before the first process that has some.
            _made(directory)
        place = files.directory_of(directory)
    except MetricsError as error:
        raise MetricsFailed(str(error)) from None
    if listen is None:
        sys.stdout.write(text(files.read_all(place)).decode())
    else:
        _serve(place, *listen)
    return 0


def _made(directory: str) -> None:
    try:
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        return  # it is none, which is said
    except OSError as error:
        raise MetricsError(
            f"{directory} is not there, and cannot be made: {error.strerror}; name "
            "one that this user may write to"
        ) from None


class _Handler(WSGIRequestHandler):
    """Answers without a line for each request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """Who waits for one does not keep another waiting."""

    daemon_threads = True


def _serve(place: Path, host: str, port: int) -> None:
    def answer(_environ: Any, start_response: Any) -> list[bytes]:
        body = text(files.read_all(place))
        start_response("200 OK", [("Content-Type", CONTENT_TYPE)])
        return [body]

    kind = type("_V6", (_Server,), {"address_family": socket.AF_INET6})
    with stoppable() as stop:
        try:
            server: WSGIServer = make_server(
                host,
                port,
                answer,
                server_class=kind if ":" in host else _Server,
                handler_class=_Handler,
            )
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            message = f"cannot listen on {host}:{port}: {why}; choose another --listen"
            raise MetricsFailed(message) from None
        with server:
            click.echo(f"http://{_shown(host)}:{server.server_port}/metrics", err=True)
            with stop.may_end():
                server.serve_forever()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
