"""What a process says that has no threads left."""

from __future__ import annotations

import os
import resource

import pytest
from sqlalchemy import exc

from plugins.processes import run_in_fork

NOBODY = 65534


def test_checkout_without_a_thread_to_be_had_says_so(pg_url, driver, make_engine):
    engine = make_engine(pg_url(driver))
    engine.connect().close()  # with all that it imports

    def child():
        if os.geteuid() == 0:  # whom no limit stops
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        with pytest.raises(exc.OperationalError, match="ulimit -u") as caught:
            engine.connect()
        assert isinstance(caught.value.orig.__cause__, BlockingIOError)
        assert engine.pool.checkedout() == 0
        return "\n" in str(caught.value.orig)

    assert run_in_fork(child).result is False
