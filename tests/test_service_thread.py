"""The thread that works for the package while there is something to do."""

from __future__ import annotations

import threading

import pytest

from plugins.threads import eventually
from poolproof._service_thread import ServiceThread


class Stage:
    """A service thread that works until it is let go."""

    def __init__(self):
        self.began = []
        self.ended = 0
        self.goes_on = threading.Event()
        self.thread = ServiceThread("service", self._work, self._end)

    def _work(self):
        self.began.append(threading.current_thread())
        self.goes_on.wait(20)

    def _end(self):
        assert not self.thread.runs
        self.ended += 1

    def finish(self):
        self.goes_on.set()
        eventually(lambda: not self.thread.runs)


@pytest.fixture
def stage():
    made = Stage()
    yield made
    made.finish()


def test_there_is_one_however_many_need_it(stage):
    prepared = []
    for _ in range(3):
        stage.thread.start(lambda: prepared.append(True))
    eventually(lambda: stage.began)
    assert (len(stage.began), len(prepared)) == (1, 1)
    assert stage.began[0].daemon
    stage.finish()
    eventually(lambda: stage.ended == 1)


def test_the_next_need_starts_another(stage):
    stage.thread.start()
    eventually(lambda: stage.began)
    stage.finish()
    stage.thread.start()
    eventually(lambda: len(stage.began) == 2)
    assert stage.began[0] is not stage.began[1]


def test_one_that_was_cut_off_from_its_starter_and_replaced_does_nothing(
    stage, monkeypatch
):
    late = []

    def interrupted(thread):
        late.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage.thread.start()
    assert not stage.thread.runs
    stage.thread.start()
    eventually(lambda: stage.began)
    (thread,) = late
    thread.run()  # in this thread: it comes back at once
    assert len(stage.began) == 1
    assert stage.thread.runs


def test_one_that_was_cut_off_and_has_begun_is_the_one(stage, monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        eventually(lambda: stage.began)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.thread.start()
    assert stage.thread.runs
    stage.thread.start()
    assert len(stage.began) == 1


def test_without_a_thread_the_next_need_tries_again(stage, monkeypatch):
    def refused(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError):
            stage.thread.start()
    stage.thread.start()
    eventually(lambda: stage.began)


def test_the_thread_does_not_wait_for_itself(stage):
    seen = []
    own = ServiceThread("service", lambda: seen.append(own.join(20)), lambda: None)
    own.start()
    eventually(lambda: seen == [None])
