"""Sessions that a deadline has left at work are ended once, by whoever proves best."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, event, exc, text

import poolproof
from plugins.threads import eventually
from poolproof.integrations.leftovers import Leftovers


@pytest.mark.parametrize("proves", [False, True], ids=["leftovers", "control plane"])
def test_a_session_is_ended_by_the_control_plane_where_that_is_chosen(
    pg_url, observer, proves
):
    engine = create_engine(
        pg_url("psycopg2"), poolclass=poolproof.Pool, end_stranded_backends=proves
    )
    leftovers = Leftovers()
    leftovers.watch()
    try:
        connection = engine.connect()
        pid = connection.scalar(text("select pg_backend_pid()"))
        entry = connection.connection._connection_record
        if proves:
            eventually(lambda: entry.backend.is_recognised is not None)
        with pytest.raises(exc.OperationalError), poolproof.deadline(0.3):
            connection.execute(text("select pg_sleep(60)"))
        connection.close()
        asked = []
        event.listen(engine, "checkout", lambda *_: asked.append(1))
        leftovers.end(20)
        assert len(asked) == (not proves)
        eventually(lambda: pid not in observer.backends())
        if proves:
            eventually(lambda: engine.pool.stats().stranded == {"cancelled": 1})
    finally:
        leftovers.stop()
        engine.dispose()
