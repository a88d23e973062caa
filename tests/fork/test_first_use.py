"""A fork beside a thread that does something for the first time in its process."""

from __future__ import annotations

from plugins.processes import run_script

# A child has nothing of what its parent has used: there each thing is a first one.
SCRIPT = """
    import os, sys, threading, time
    import poolproof
    from plugins.dbapi import SocketDBAPI

    sys.setswitchinterval(0.05)

    def use(pool):
        for _ in range(2):
            pool.connect().close()

    def ends(pid):
        until = time.monotonic() + float(sys.argv[1])
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                return False
            time.sleep(0.01)
        return True

    def fork_beside():
        pool = poolproof.Pool(SocketDBAPI().connect)
        pool.connect().close()
        begun = threading.Event()

        def first():
            begun.set()
            use(pool)

        thread = threading.Thread(target=first)
        thread.start()
        begun.wait()
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                use(pool)
                os._exit(0)
            children.append(pid)
        hung = [pid for pid in children if not ends(pid)]
        thread.join()
        pool.dispose()
        return not hung

    for _ in range(40):
        pid = os.fork()
        if not pid:
            os._exit(0 if fork_beside() else 7)
        if os.waitpid(pid, 0)[1]:
            print("hung")
"""


def test_a_first_checkout_beside_a_fork_is_not_left_undone_in_the_child():
    """PyO3's cells let go of the interpreter's lock in the middle of being filled."""
    done = run_script(SCRIPT, "20")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
