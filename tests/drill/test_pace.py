"""A patience that a busy machine stretches."""

from __future__ import annotations

import threading
import time

from poolproof.drill.pace import is_over, slowness


def test_a_machine_is_never_quicker_than_at_rest():
    assert 1.0 <= slowness() <= 10.0


def test_a_machine_with_something_else_to_do_is_slower():
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            pass

    # They take turns with us at the interpreter's lock, as others do at a processor.
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert slowness() > 1.5
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_patience_that_has_not_passed_is_not_over_and_one_long_past_is():
    now = time.monotonic()
    assert not is_over(now, 60)
    assert is_over(now - 60, 1)
