"""The journal gives way to the histograms: both together keep to one bound."""

from __future__ import annotations

import pytest

import poolproof
from plugins.processes import run_script
from poolproof import _native
from poolproof.faults import journal as rings

pytestmark = pytest.mark.usefixtures("own_journal")


def fill():
    """Note the largest events that there are, more than are kept."""
    for number in range(2 * rings.MOST):
        statements = tuple(f"select {number}, {n}, {'x' * 480}" for n in range(16))
        rings.note("discard", f"one of many: {number}", statements=statements)
    return sum(size for size, _ in rings._ring.events)


def used():
    """Make the histograms of a pool in which everything has happened."""
    timings = _native.Timings()
    for number in range(400):
        timings.record_connect(1e-5 * 1.05**number)
        timings.record_ping(1e-5 * 1.05**number)
    return timings


def test_it_takes_what_the_histograms_leave():
    """In a process of its own: here others' pools have histograms, too."""
    done = run_script("""
        import poolproof
        from faults.test_journal_memory import fill, used
        from poolproof import _native
        from poolproof.faults import journal as rings

        rings._log.logger.disabled = True
        alone = fill()
        assert alone <= rings.MOST_BYTES
        kept = []
        while _native.histogram_bytes() < (100 << 10):
            kept.append(used())
        beside = fill()
        assert beside < alone
        assert beside + _native.histogram_bytes() <= rings.TOGETHER
        assert len(poolproof.journal()) >= 10
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_always_keeps_some():
    kept = []
    while _native.histogram_bytes() < 2 * rings.TOGETHER:
        kept.append(used())
    left = fill()
    assert rings.LEAST_BYTES // 2 < left <= rings.LEAST_BYTES
    assert len(poolproof.journal()) >= 4


def test_histograms_grow_with_what_is_counted_and_go_with_their_pool():
    before = _native.histogram_bytes()
    fresh = [_native.Timings() for _ in range(200)]
    empty = (_native.histogram_bytes() - before) / 200
    assert empty <= 1536
    full = [used() for _ in range(200)]
    most = (_native.histogram_bytes() - before) / 200 - empty
    assert empty < most <= 10 << 10
    del fresh, full
    assert _native.histogram_bytes() < before + 200 * empty
