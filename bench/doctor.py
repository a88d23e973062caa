"""How long `poolproof doctor` takes: a server answers, falls silent, or is mute."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from _rounds import Number, Story, clock
from _server import server

from poolproof.doctor.catalogue import CHECKS
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.errors import NoConnectionError
from poolproof.doctor.run import TOTAL_S, examine, meet_server
from poolproof.doctor.target import read
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL

METHOD = """
psycopg2 over TCP on the loopback address, an embedded PostgreSQL. Every check of the
catalogue on one URL, from the connecting to the last finding, in one process that has
imported everything. "falls silent": a proxy lets the connecting and the first facts
pass, and nothing after them. "mute": a socket that takes connections and never answers.
"""


def main() -> int:
    """Measure and report."""
    story = Story("doctor", METHOD, rounds=7)
    taken: dict[str, list[float]] = {}
    with server() as url_of, socket.create_server(("127.0.0.1", 0)) as mute:
        url = url_of("psycopg2")
        ways: dict[str, Callable[[], None]] = {
            "a server that answers": lambda: look(url),
            "a server that falls silent": lambda: look_and_wait(url),
            "a server that is mute": lambda: knock(url.set(port=mute.getsockname()[1])),
        }
        for _ in story.rounds():
            for name, way in ways.items():
                began = clock()
                way()
                taken.setdefault(name, []).append(clock() - began)
    for name, lengths in taken.items():
        story.add(Number(name, "s", lengths, at_most=TOTAL_S))
    return story.report()


def look(url: URL) -> None:
    """Examine a server."""
    subject = read(url.render_as_string(hide_password=False), Deployment())
    meet_server(subject)
    examine(subject, CHECKS)


def look_and_wait(url: URL) -> None:
    """Examine a server that says no more once it is met."""
    with Proxy(
        Target.parse(url.render_as_string(hide_password=False)).address()
    ) as way:
        near = url.set(host="127.0.0.1", port=way.port)
        subject = read(near.render_as_string(hide_password=False), Deployment())
        meet_server(subject)
        way.stall()
        examine(subject, CHECKS)
        way.resume()


def knock(url: URL) -> None:
    """Try to examine who never answers."""
    subject = read(url.render_as_string(hide_password=False), Deployment())
    try:
        meet_server(subject)
    except NoConnectionError:
        return
    raise AssertionError("a mute server has let the doctor in")


if __name__ == "__main__":
    sys.exit(main())
