"""What a thousand leases cost their process: processor and connections."""

from __future__ import annotations

import sys
import time

from _rounds import Number, Story
from _server import server
from sqlalchemy import create_engine

import poolproof
from poolproof.control.server import server_of

METHOD = """
One process holds 1,000 leases with a ttl of 60 s on a PostgreSQL of this machine, so
each is renewed every 10 s. A round is one such tick: the processor time of the process
(all its threads, in user and kernel mode) divided by the length of the round, while its
own Python sleeps. Connections are those of the control plane at the end of the round.
"""
LEASES = 1000
TTL_S = 60.0


def main() -> int:
    """Measure and report."""
    story = Story("lease", METHOD, rounds=7)
    count = story.scaled(LEASES, least=20)
    ttl = max(3.0, TTL_S * count / LEASES)
    shares: list[float] = []
    sessions: list[float] = []
    with server() as url:
        engine = create_engine(url("psycopg2"), poolclass=poolproof.Pool)
        held = [
            poolproof.Lease(engine, f"bench {n}", ttl=ttl).acquire()
            for n in range(count)
        ]
        for _ in story.rounds():
            began, used = time.perf_counter(), time.process_time()
            time.sleep(ttl / 6)
            used = time.process_time() - used
            shares.append(100 * used / (time.perf_counter() - began))
            sessions.append(float(server_of(engine).sessions))
            for lease in held:
                lease.check()
        for lease in held:
            lease.release()
    story.facts["leases"] = count
    story.add(Number("of one core for the leases of a process", "%", shares, at_most=2))
    story.add(Number("connections for them", "connections", sessions, at_most=2))
    return story.report()


if __name__ == "__main__":
    sys.exit(main())
