"""What log records carry beside their sentence, as the formatters of others show it."""

from __future__ import annotations

import io
import json
import logging
import os

import pytest
import structlog
from pythonjsonlogger.json import JsonFormatter
from sqlalchemy import exc, text

import poolproof
from plugins.threads import eventually
from poolproof.leases.log import LeaseLog

POOL = "db.client.connection.pool.name"


@pytest.fixture
def records():
    """Return the records of poolproof's own loggers."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            found.append(record)

    handler = Handler()
    ours = [logging.getLogger(name) for name in ("poolproof", "sqlalchemy.pool")]
    levels = [logger.level for logger in ours]
    for logger in ours:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield found
    for logger, level in zip(ours, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def terminate(engine):
    """Lose a connection in the middle of a statement; return its backend's number."""
    statement = text("select pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")
    with engine.connect() as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
        with pytest.raises(exc.DBAPIError):
            connection.execute(statement)
    return pid


def test_a_fault_has_its_pool_cost_and_process_ids(records, make_engine, pg_url):
    engine = make_engine(pg_url("psycopg"))
    with poolproof.scope("page"):
        pid = terminate(engine)
    (record,) = [one for one in records if one.name == "poolproof.guard"]
    fields = vars(record)
    assert fields[POOL] == engine.pool.name()
    assert fields["poolproof.fault"] in ("terminated", "connection_lost")
    assert fields["poolproof.cost"] == "connection"
    assert fields["poolproof.backend_pid"] == pid
    assert fields["process.pid"] == os.getpid()
    assert fields["poolproof.scope"] == "page"
    assert fields["error.type"]
    assert "poolproof.step" not in fields


def test_a_deadline_has_its_step(records, make_engine, pg_url):
    engine = make_engine(pg_url("psycopg2"))
    with (
        pytest.raises(exc.DBAPIError),
        engine.connect() as connection,
        poolproof.deadline(0.1),
    ):
        connection.execute(text("select pg_sleep(20)"))
    (record,) = [one for one in records if one.name == "poolproof.guard"]
    assert vars(record)["poolproof.step"] == "deadline"


def test_a_pools_own_records_have_its_name(records, make_pool):
    pool = make_pool(logging_name="named", hold_warning=0.02)
    with poolproof.scope("slow-page"):
        held = pool.connect()
    eventually(lambda: [one for one in records if " is held by " in one.getMessage()])
    held.close()
    (record,) = [one for one in records if " is held by " in one.getMessage()]
    assert vars(record)[POOL] == "named"
    assert vars(record)["poolproof.scope"] == "slow-page"


def test_a_lease_has_its_name(records):
    LeaseLog("nightly").lost("its server is away", is_ending=False)
    (record,) = records
    assert vars(record)["poolproof.lease"] == "nightly"


def shown(formatter, record):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.handle(record)
    return json.loads(stream.getvalue())


@pytest.mark.parametrize(
    "formatter",
    [
        JsonFormatter("%(levelname)s %(name)s %(message)s"),
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processor=structlog.processors.JSONRenderer(),
        ),
    ],
    ids=["json", "structlog"],
)
def test_formatters_of_others_show_the_fields(records, formatter):
    LeaseLog("nightly").lost("its server is away", is_ending=False)
    found = shown(formatter, records[0])
    assert found["poolproof.lease"] == "nightly"
    assert found["process.pid"] == os.getpid()


def test_no_field_has_a_secret(records, make_engine, pg_url):
    url = pg_url("psycopg2").set(password="s3cret-of-ours")  # noqa: S106 - that is what it is for
    terminate(make_engine(url))
    for record in records:
        assert "s3cret" not in str(vars(record))
