"""Luigi as it is, in processes of its own, on a real PostgreSQL."""

from __future__ import annotations

import pytest

from plugins.processes import run_script

pytestmark = pytest.mark.slow
IN_ONE_PROCESS, FORKED = 1, 4
both = pytest.mark.parametrize(
    "workers", [IN_ONE_PROCESS, FORKED], ids=["in one process", "forked"]
)


@both
def test_a_task_does_not_inherit_the_session_of_another_or_of_the_parent(
    pipeline, workers
):
    ran = pipeline(
        """
        class Task(Step):
            def run(self):
                say("fresh", not session.registry.has())
                session.execute(text("select 1"))
                session.info["of"] = self.n
                with contextlib.suppress(sa.exc.DBAPIError):
                    session.execute(BAD)  # and nobody rolls back
                if self.n == 1:
                    raise RuntimeError("on purpose")
        integration.install(session)
        session.execute(text("select 1"))  # the parent's, held at the fork
        build(*(Task(n=n) for n in range(4)))
        """,
        workers,
    )
    assert ran["fresh"] == [True] * 4
    assert ran["status"] == ["FAILED"]
    assert ran.log.count("Traceback") == ran.log.count("on purpose") == 1


@pytest.mark.parametrize(
    ("workers", "driver"),
    [
        (FORKED, "psycopg2"),
        *((IN_ONE_PROCESS, driver) for driver in ("psycopg2", "psycopg", "pg8000")),
    ],
)
def test_a_connection_that_is_left_out_is_reported_and_taken_back(
    pipeline, workers, driver
):
    ran = pipeline(
        """
        class Task(Step):
            def run(self):
                connection = engine.connect()
                pid = connection.scalar(text("select pg_backend_pid()"))
                say("had", self.task_id, pid)
                kept.append(connection)
                if self.n == 1:
                    raise RuntimeError("on purpose")
        integration.install(engine)
        build(*(Task(n=n) for n in range(3)))
        """,
        workers,
        driver,
    )
    assert len(ran["had"]) == 3  # from a pool of one connection
    for task, pid in ran["had"]:
        line = f"task {task} left a connection of pool "
        (said,) = (line_ for line_ in ran.log.splitlines() if line in line_)
        assert f"(backend pid {pid}, for " in said


def test_what_was_taken_back_refuses_to_go_on(pipeline):
    ran = pipeline(
        """
        class Task(Step):
            def run(self):
                if kept:
                    try:
                        kept[0].execute(text("select 1"))
                    except sa.exc.ResourceClosedError as error:
                        say("refused", str(error))
                kept.append(engine.connect())
        integration.install(engine)
        build(Task(n=0), Task(n=1))
        """,
        IN_ONE_PROCESS,
    )
    assert "was left checked out by task Task_" in ran["refused"][0]


def test_a_session_of_a_sessionmaker_that_is_left_open_is_closed(pipeline):
    ran = pipeline(
        """
        class Task(Step):
            def run(self):
                kept.append(factory())
                say("ran", kept[-1].scalar(text("select 1")))
        integration.install(factory)
        build(Task(n=0), Task(n=1))
        """,
        IN_ONE_PROCESS,
    )
    assert ran["ran"] == [1, 1]
    assert ran.log.count("left a session open") == 2


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
@both
def test_the_server_sees_each_task_by_its_name_and_its_threads_too(
    pipeline, workers, driver
):
    ran = pipeline(
        """
        class Task(Step):
            def run(self):
                def look(word):
                    with engine.connect() as connection:
                        say(word, self.task_id, connection.scalar(NAME))
                look("task")
                thread = threading.Thread(target=look, args=("thread",))
                thread.start()
                thread.join()
        integration.install(engine)
        build(*(Task(n=n) for n in range(3)))
        with engine.connect() as connection:
            say("parent", connection.scalar(NAME))
        """,
        workers,
        driver,
    )
    assert len(ran["task"]) == len(ran["thread"]) == 3
    for task, name in ran["task"]:
        assert name == f"pipe {task}"[:63]
    if workers == FORKED:
        assert sorted(ran["thread"]) == sorted(ran["task"])
    assert ran["parent"] == ["pipe"]


def test_a_task_that_asks_for_others_first_ends_there(pipeline):
    """There is no event for it: neither SUCCESS nor FAILURE."""
    ran = pipeline(
        """
        done = []
        class Other(Step):
            def complete(self):
                return done == [True]
            def run(self):
                with engine.connect() as connection:  # the pool has one
                    say("other", connection.scalar(text("select 1")))
                done.append(True)
        class Task(Step):
            def run(self):
                kept.append(None if done else engine.connect())
                yield Other()
        integration.install(engine)
        build(Task())
        """,
        IN_ONE_PROCESS,
    )
    assert ran["other"] == [1]
    assert ran["status"] == ["SUCCESS"]
    assert ran.log.count("left a connection") == 1


def test_a_run_inside_a_task_leaves_that_tasks_session_alone(pipeline):
    ran = pipeline(
        """
        class Inner(Step):
            def run(self):
                with engine.connect() as connection:
                    say("inner", connection.scalar(NAME) == f"pipe {self.task_id}")
        class Task(Step):
            def run(self):
                session.info["mine"] = True
                build(Inner())
                say("kept", session.info.get("mine"))
        integration.install(session)
        build(Task())
        """,
        IN_ONE_PROCESS,
    )
    assert ran["inner"] == ran["kept"] == [True]
    assert ran["status"] == ["SUCCESS", "SUCCESS"]


def test_a_forked_run_inside_a_task_begins_afresh(pipeline):
    ran = pipeline(
        """
        class Inner(Step):
            def run(self):
                say("fresh", not session.registry.has())
                kept.append(engine.connect())
        class Task(Step):
            def run(self):
                session.execute(text("select 1"))
                luigi.build([Inner(n=1), Inner(n=2)], workers=2, local_scheduler=True,
                            log_level="ERROR")
                say("goes on", session.scalar(text("select 1")))
        integration.install(session)
        build(Task())
        """,
        IN_ONE_PROCESS,
    )
    assert ran["fresh"] == [True, True]
    assert ran["goes on"] == [1]
    assert ran.log.count("task Inner_1_") == ran.log.count("task Inner_2_") == 1


@pytest.mark.parametrize("broken", ["complete", "requires"])
def test_a_task_that_cannot_be_scheduled_does_not_break_the_others(pipeline, broken):
    ran = pipeline(
        f"""
        class Broken(Step):
            def {broken}(self):
                session.execute(BAD)
        class Task(Step):
            def complete(self):
                return session.scalar(text("select false"))
            def run(self):
                say("ran", self.n)
        integration.install(session)
        class All(Step):
            def requires(self):
                return [Broken(), Task(n=1), Task(n=2)]
        build(All())
        build(Broken(), Task(n=3), Task(n=4))
        """,
    )
    assert sorted(ran["ran"]) == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["killed", "timed out"])
def test_a_task_whose_process_is_ended_costs_nobody_else_anything(pipeline, how):
    ran = pipeline(
        """
        import time
        class Task(Step):
            def complete(self):
                return session.scalar(text("select false"))
            def run(self):
                session.execute(text("select 1"))
                if self.n == 1 and HOW == "killed":
                    os.kill(os.getpid(), 9)
                elif self.n == 1:
                    time.sleep(60)
                say("ran", self.n)
        integration.install(session)
        Task.worker_timeout = None if HOW == "killed" else 1
        build(*(Task(n=n) for n in range(4)))
        say("tidy", not session.registry.has())
        say("parent", session.scalar(text("select 1")))
        """.replace("HOW", repr(how)),
    )
    assert sorted(ran["ran"]) == [0, 2, 3]
    assert ran["status"] == ["FAILED"]
    assert ran["tidy"] == [True]
    assert ran["parent"] == [1]


def test_what_is_complete_leaves_no_session_to_the_scheduler(pipeline):
    ran = pipeline(
        """
        class Task(Step):
            def complete(self):
                return session.scalar(text("select true"))
        integration.install(session)
        build(Task())
        say("tidy", not session.registry.has())
        """,
    )
    assert ran["tidy"] == [True]


def test_a_task_has_ended_before_its_on_failure_and_before_luigi_returns(pipeline):
    ran = pipeline(
        """
        class Task(Step):
            def run(self):
                kept.append(session())
                session.execute(BAD if self.n else text("select 1"))
            def on_failure(self, error):
                say("clean", session.scalar(text("select 1")))
                session.remove()
        integration.install(session)
        for n in (0, 1):
            build(Task(n=n))
            say("out", engine.pool.checkedout())
        """,
        IN_ONE_PROCESS,
    )
    assert ran["clean"] == [1]
    assert ran["out"] == [0, 0]


def test_it_may_be_installed_twice_and_with_everything(pipeline):
    ran = pipeline(
        """
        import flask, poolproof
        from flask_sqlalchemy import SQLAlchemy
        from sqlalchemy.pool import QueuePool
        app = flask.Flask("app")
        app.config["SQLALCHEMY_DATABASE_URI"] = str(engine.url)
        db = SQLAlchemy(app)
        other = sa.create_engine(engine.url)
        class Task(Step):
            def run(self):
                with app.app_context():
                    db.session.execute(text("select 1"))
                    kept.append(other.connect())
        for _ in range(2):
            integration.install(other, session, factory, db)
        say("pools", type(engine.pool).__name__, type(other.pool) is poolproof.Pool)
        build(Task())
        try:
            integration.install("engine")
        except TypeError as error:
            say("refused", str(error))
        try:
            integration.install()
        except TypeError as error:
            say("nothing", str(error))
        """,
        IN_ONE_PROCESS,
    )
    assert ran["pools"] == [("Pool", True)]
    assert ran["status"] == ["SUCCESS"]
    assert ran.log.count("left a connection") == 1
    assert "not str" in ran["refused"][0]
    assert "what the tasks use" in ran["nothing"][0]


def test_the_process_of_a_task_says_goodbye_to_the_server(pipeline, observer):
    observer.rows("select pg_stat_reset()")
    ran = pipeline(
        """
        class Task(Step):
            def run(self):
                with engine.connect() as connection:
                    connection.execute(text("select 1"))
        integration.install(engine)
        build(*(Task(n=n) for n in range(3)))
        """,
    )
    assert ran["status"] == ["SUCCESS"]
    assert observer.wait_for_backends(0) == []


def test_without_the_framework_the_error_names_the_extra():
    done = run_script(
        """
        import sys
        sys.modules["luigi"] = None
        import poolproof.integrations.luigi
        """
    )
    assert 'pip install "luigi>=3.5"' in done.stderr
