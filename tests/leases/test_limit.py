"""A limit of descriptors that is lowered beneath what is open."""

from __future__ import annotations

LOWERED = """
    import resource, sys, time
    from sqlalchemy import create_engine
    import poolproof

    engine = create_engine(sys.argv[1])
    with poolproof.Lease(engine, sys.argv[2], ttl=3) as lease:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]),) * 2)
        before = lease.stats().renewals
        until = time.monotonic() + 60
        while lease.stats().renewals < before + 8 and time.monotonic() < until:
            time.sleep(0.01)
        used = time.process_time()
        time.sleep(1)
        used = time.process_time() - used
        lease.check()
        print(lease.stats().renewals - before, lease.stats().blips, used < 0.5)
"""


def test_a_lease_is_kept_under_a_limit_of_descriptors_that_is_lowered(
    pg_url, program, name
):
    """poll(2) refuses more descriptors than a process may open: 1, and 0 at last."""
    url = pg_url("psycopg2").render_as_string(hide_password=False)
    limits = ("1", "0")
    for started in [program(LOWERED, url, f"{name} {one}", one) for one in limits]:
        renewals, blips, is_quiet = started.line().split()
        assert int(renewals) >= 8
        assert (blips, is_quiet) == ("0", "True")
        assert started.wait() == 0
