"""Luigi inside a worker that names its jobs as well, as in a task of Celery."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow
IN_ONE_PROCESS, FORKED = 1, 4


@pytest.mark.parametrize("workers", [IN_ONE_PROCESS, FORKED])
def test_inside_another_worker_both_names_stand_and_nothing_is_sent_for_them(
    pipeline, workers
):
    ran = pipeline(
        """
        from poolproof.integrations import naming
        from poolproof.integrations.jobs import Jobs

        renamed = []
        setting = naming._set
        def counting(connection, name):
            renamed.append(name)
            setting(connection, name)
        naming._set = counting

        def look(word, *more):
            with engine.connect() as connection:
                say(word, connection.scalar(NAME), *more)
        class Task(Step):
            def run(self):
                thread = threading.Thread(target=look, args=("thread", self.task_id))
                thread.start()
                thread.join()
                look("task", self.task_id)
                del renamed[:]
                look("task", self.task_id)
                say("renamed", renamed)

        integration.install(engine)
        outer = Jobs("task")
        outer.add(engine=engine)
        outer.start("w@1")
        with outer.job("shop.pay"):
            look("job")
            engine.dispose()
            look("job")
            say("renamed", renamed)
            build(Task(n=1), Task(n=2))
            look("job")
        """,
        workers,
    )
    assert ran["job"] == ["pipe w@1 shop.pay"] * 3
    assert len(ran["task"]) == 4
    for name, task in ran["task"]:
        assert name == f"pipe w@1 {task}"
    for name, task in ran["thread"]:
        assert name == ("pipe w@1" if workers == IN_ONE_PROCESS else f"pipe w@1 {task}")
    assert ran["renamed"] == [[], [], []]
