"""A part of SQLAlchemy's compliance suite for dialects, set up as README.dialects says.

It comes with SQLAlchemy's wheel. `make soak` runs the whole of it, and SQLAlchemy's own
tests of PostgreSQL (tests/upstream).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import sqlalchemy as sa

SETTINGS = """\
[sqla_testing]
requirement_cls = requirements:Requirements
profile_file = profiles.txt
"""
CONFTEST = """\
import pytest
from sqlalchemy.dialects import registry

registry.register("postgresql.poolproof", "poolproof.dialect.sync", "PoolproofDialect")
registry.register(
    "postgresql.poolproof_async", "poolproof.dialect.aio", "PoolproofDialectAsync"
)
pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *
"""
# What the dialect can do beyond what each one must.
REQUIREMENTS = """\
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements


class Requirements(SuiteRequirements):
    pass


for name in '''
    array_type autocommit ctes ctes_on_dml cursor_works_post_rollback
    date_historic datetime_historic datetime_literals datetime_microseconds
    datetime_timezone delete_returning delete_using duplicate_key_raises_integrity_error
    empty_inserts empty_inserts_executemany fetch_first fetch_ties
    infinity_floats insert_executemany_returning insert_from_select
    insert_returning insertmanyvalues intersect isolation_level json_array_indexes
    json_type multivalues_inserts nullable_booleans on_update_cascade
    order_by_col_from_union precision_generic_float_type precision_numerics_general
    precision_numerics_enotation_large precision_numerics_many_significant_digits
    returning savepoints sequences
    sql_expressions_inserted_as_primary_key standalone_binds
    supports_distinct_on temp_table_names temporary_tables time_microseconds
    time_timezone timestamp_microseconds tuple_in unicode_data update_returning
    uuid_data_type window_functions
'''.split():
    setattr(Requirements, name, property(lambda self: exclusions.open()))
"""
# What a driver has most part in; the rest is SQL, and reflection.
PARTS = (
    *("ArrayTest", "BinaryTest", "BooleanTest", "DateTimeMicrosecondsTest"),
    *("DateTimeTZTest", "DateTest", "TimeTZTest", "IntervalTest", "IntegerTest"),
    *("JSONTest", "NumericTest", "UuidTest", "UnicodeVarcharTest", "EnumTest"),
    *("InsertBehaviorTest", "ReturningTest", "RowFetchTest", "EscapingTest"),
    *("ExceptionTest", "IsolationLevelTest", "RowCountTest", "SimpleUpdateDelete"),
)
LEAST = 200
# Who collects the others as well, only to leave them out, takes a second longer.
SUITE = f"""\
from sqlalchemy.testing import suite

for name, value in vars(suite).items():
    if any(part in name for part in {PARTS!r}):
        globals()[name] = value
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def database(debian_pg, debian_observer):
    """Make an empty database; the embedded server lacks what the suite installs."""
    debian_observer.rows("drop database if exists compliance (force)")
    debian_observer.rows("create database compliance")
    url = debian_pg.url("poolproof").set(database="compliance", query={})
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("test_schema"))
    engine.dispose()
    yield url.render_as_string(hide_password=False)
    debian_observer.rows("drop database compliance (force)")


@pytest.mark.parametrize(
    "name", ["poolproof", pytest.param("poolproof_async", marks=pytest.mark.soak)]
)
def test_dialect_does_what_sqlalchemy_asks_of_each(database, tmp_path, name):
    database = database.replace("+poolproof:", f"+{name}:")
    for file, text in {
        "setup.cfg": SETTINGS,
        "conftest.py": CONFTEST,
        "requirements.py": REQUIREMENTS,
        "test_suite.py": SUITE,
    }.items():
        (tmp_path / file).write_text(text)
    without = (f"-pno:{plugin}" for plugin in ("randomly", "xdist", "cacheprovider"))
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--tb=short", "--disable-warnings"),
            *(*without, "--rootdir", str(tmp_path), "-c", "setup.cfg"),
            *("--dburi", database, "test_suite.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None
    assert int(found.group(1)) >= LEAST, done.stdout[-500:]
