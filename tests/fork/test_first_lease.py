"""Workers that are forked while the program's first lease is being set up."""

from __future__ import annotations

import pytest

from plugins.processes import run_script

# Each program is a fork of one that has imported all and used nothing. A worker
# registers a socket, as each connection does, and needs no server for it.
PROGRAMS = """
    import os, signal, socket, sys, threading, warnings
    from sqlalchemy import create_engine
    import poolproof
    from poolproof import _native

    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
    nowhere = "postgresql+psycopg2://nobody@127.0.0.1:1/none"

    def first_lease(engine):
        try:
            poolproof.Lease(engine, "first", timeout=0).acquire()
        except poolproof.ControlError:
            pass

    def program():
        engine = create_engine(nowhere, poolclass=poolproof.Pool)
        here, there = socket.socketpair()
        thread = threading.Thread(target=first_lease, args=(engine,))
        thread.start()
        workers = []
        while thread.is_alive() and len(workers) < 30:
            pid = os.fork()
            if not pid:
                signal.alarm(15)
                _native.Socket(here.fileno())
                os._exit(0)
            workers.append(pid)
        hung = [os.WIFSIGNALED(os.waitpid(pid, 0)[1]) for pid in workers]
        os._exit(1 if any(hung) else 0)

    for number in range(int(sys.argv[1])):
        pid = os.fork()
        if not pid:
            program()
        if os.waitpid(pid, 0)[1]:
            sys.exit(f"a worker of program {number} hung")
"""


@pytest.mark.fork
def test_a_worker_that_is_forked_during_the_first_lease_does_not_hang():
    """With a lazily made registry one of the first 20 programs had such a worker."""
    done = run_script(PROGRAMS, "20")
    assert (done.returncode, done.stderr) == (0, "")
