"""The doctor's checks on the tests' own servers."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest
from sqlalchemy import create_engine

from poolproof.doctor.catalogue import CHECKS
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.run import examine, meet_server
from poolproof.doctor.subject import Subject
from poolproof.doctor.target import read

# Their bounds are not these tests' subject, and the machine may be busy.
PATIENCE = 20.0

_numbers = itertools.count()


@pytest.fixture(scope="session")
def own_database(observer):
    """Make a database in which no other test has left anything."""
    name = f"doctor_{os.getpid()}"
    observer.rows(f"create database {name}")
    yield name
    observer.rows(f"drop database {name} with (force)")


@pytest.fixture
def nobody_is_left(observer):
    """End what other tests have left asleep at the server: the doctor sees it."""
    observer.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where state = 'active' and backend_type = 'client backend'"
        " and pid <> pg_backend_pid()"
    )


@pytest.fixture
def pg_url(pg, own_database, nobody_is_left):
    """Return a function that makes the URL for a driver."""
    return lambda *args, **more: pg.url(*args, **more).set(database=own_database)


@pytest.fixture
def look():
    """Return a function that runs checks and returns their findings.

    It takes a URL, an engine, or a subject, and the codes of the checks; one code
    gives its only finding, several a dictionary.
    """
    engines = []

    def run(what, *codes, patience=PATIENCE, **deployment):
        if isinstance(what, Subject):
            subject = what
        elif hasattr(what, "pool"):
            subject = Subject(
                engine=what,
                shown="application",
                is_application=True,
                deployment=Deployment(**deployment),
            )
        else:
            text = what if isinstance(what, str) else what.render_as_string(False)
            subject = read(text, Deployment(**deployment))
            engines.append(subject.engine)
        subject.patience = patience
        meet_server(subject)
        chosen = [check for check in CHECKS if not codes or check.code in codes]
        report = examine(subject, chosen)
        found = {one.code: one for one in report.findings}
        return found[codes[0]] if len(codes) == 1 else found

    yield run
    for engine in engines:
        engine.dispose()


@pytest.fixture
def make_engine():
    """Return `create_engine`; what it makes is disposed of."""
    engines = []

    def make(url, **options):
        engines.append(create_engine(url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def role(observer):
    """Return a function that makes a role, given what `alter role` sets for it."""
    with contextlib.ExitStack() as stack:

        def make(*settings, options=""):
            name = f"r_{os.getpid()}_{next(_numbers)}"
            observer.rows(f"create role {name} login {options}")
            stack.callback(observer.rows, f"drop role {name}")
            for setting in settings:
                observer.rows(f"alter role {name} set {setting}")
            return name

        yield make


@pytest.fixture
def url_of(pg_url):
    """Return a function that makes the URL of a role."""

    def make(name, driver="psycopg2"):
        return pg_url(driver).set(username=name)

    return make
