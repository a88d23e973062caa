"""A marker table on a real PostgreSQL: there, together with the rows, made once."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

TARGETS = """
    from poolproof.integrations.luigi import PoolproofTarget
    name = "m_" + str(os.getpid())
    def target(n, **more):
        return PoolproofTarget(engine, f"id-{n}", "orders", marker_table=name, **more)
"""


def test_a_target_is_there_when_it_was_touched(pipeline):
    ran = pipeline(
        TARGETS
        + """
    say("before", target(1).exists())
    target(1).touch()
    target(1).touch()
    say("after", target(1).exists(), target(2).exists())
    with engine.connect() as connection:
        target(2).touch(connection)
        connection.rollback()
        target(3).touch(connection)
        connection.commit()
    session.execute(text("select 1"))
    target(4).touch(session)
    session.commit()
    session.remove()
    say("together", target(2).exists(), target(3).exists(), target(4).exists())
    try:
        PoolproofTarget(engine, "id-1", "customers", marker_table=name).touch()
    except ValueError as error:
        say("refused", str(error))
    say("shown", str(target(1)))
    with engine.begin() as connection:
        connection.execute(text(f"drop table {name}"))
        """,
    )
    assert ran["before"] == [False]
    assert ran["after"] == [(True, False)]
    assert ran["together"] == [(False, True, True)]
    assert "update_id 'id-1' marks another table than 'customers'" in ran["refused"][0]
    assert ran["shown"] == ["orders id-1"]


def test_tasks_are_done_when_their_target_is(pipeline):
    ran = pipeline(
        TARGETS
        + """
    class Task(luigi.Task):
        n = luigi.IntParameter()
        def output(self):
            return target(self.n)
        def run(self):
            with engine.begin() as connection:
                self.output().touch(connection)
            say("ran", self.n)
    integration.install(engine)
    for _ in range(2):
        build(*(Task(n=n) for n in range(8)))
    with engine.begin() as connection:
        connection.execute(text(f"drop table {name}"))
        """,
    )
    assert sorted(ran["ran"]) == list(range(8))
    assert ran["status"] == ["SUCCESS", "SUCCESS"]


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_the_marker_table_is_made_once_when_all_make_it_at_once(pipeline, level):
    ran = pipeline(
        """
    import multiprocessing
    from poolproof.integrations.luigi import PoolproofTarget
    engine = sa.create_engine(engine.url, isolation_level="LEVEL")
    integration.install(engine)
    ready = multiprocessing.Barrier(6)
    def act():
        for n in range(12):
            ready.wait(20)
            target = PoolproofTarget(engine, "one", marker_table=f"pg_temp_x{n}")
            try:
                target.exists()
            except Exception as error:
                say("failed", repr(error))
    processes = [multiprocessing.Process(target=act) for _ in range(6)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    with engine.begin() as connection:
        for n in range(12):
            connection.execute(text(f"drop table pg_temp_x{n}"))
    """.replace("LEVEL", level)
    )
    assert ran["failed"] == []


def test_an_existing_marker_table_of_luigi_is_used_on(pipeline):
    ran = pipeline(
        """
        import datetime
        from poolproof.integrations.luigi import PoolproofTarget
        from luigi.contrib.sqla import SQLAlchemyTarget
        theirs = SQLAlchemyTarget(str(engine.url), "orders", "id-1")
        theirs.marker_table = "m_theirs"
        theirs.create_marker_table()
        with theirs.engine.begin() as connection:
            connection.execute(theirs.marker_table_bound.insert().values(
                update_id="id-1", target_table="orders",
                inserted=datetime.datetime.now()))
        theirs.engine.dispose()
        def ours(n):
            return PoolproofTarget(engine, n, "orders", marker_table="public.m_theirs")
        ours("id-2").touch()
        say("there", ours("id-1").exists(), ours("id-2").exists(), ours("3").exists())
        with engine.begin() as connection:
            connection.execute(text("drop table m_theirs"))
        """,
    )
    assert ran["there"] == [(True, True, False)]
