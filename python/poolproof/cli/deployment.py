"""The options that say how an application is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["deployment_options"]

_OPTIONS = (
    click.option("--workers", type=click.IntRange(1), help="Processes on one machine."),
    click.option("--threads", type=click.IntRange(1), help="Threads of a process."),
    click.option(
        "--fleet",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Machines, or containers.",
    ),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        help="When a request or a task is ended: Gunicorn's timeout, Celery's time"
        " limit.",
    ),
    click.option(
        "--worker-class",
        default="",
        metavar="NAME",
        help="sync, gthread, gevent, ... of Gunicorn; prefork, threads, ... of Celery.",
    ),
    click.option(
        "--held",
        "held_s",
        type=click.FloatRange(0, min_open=True),
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="How long a connection may be held idle before it is a finding.",
    ),
    click.option(
        "--preload",
        is_flag=True,
        help="The application is loaded before its processes are forked.",
    ),
)


def deployment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how an application is run.

    Args:
        command: It is given one argument for each attribute of `Deployment` that is no
            pool's.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
