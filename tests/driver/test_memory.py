"""What the driver keeps in memory: little for each connection, no more for more rows.

Of a process that does nothing else, as the system counts it: what the core has is in no
count of Python's.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

KIB_A_CONNECTION = 64
# What an allocator may keep by chance.
SLACK_KIB = 6 << 10
# Rows: few, and so many that to keep them takes several times as much.
FEW, MANY = 20_000, 150_000

# Says of each kind of work how many KiB more it has after much of it than after little
PROGRAM = """
import json, sys
import poolproof.driver

dsn, asked = sys.argv[1], json.loads(sys.argv[2])


def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def selected(count):
    query = f"select n, 'row ' || n, n * 0.5 from generate_series(1, {count}) n"
    return query, count * (count + 1) // 2


def fetched_all(count):
    query, total = selected(count)
    assert sum(row[0] for row in connection.execute(query).fetchall()) == total


def server_cursor(count):
    query, total = selected(count)
    with connection.cursor("kept") as cursor:
        cursor.itersize = 2000
        cursor.execute(query)
        assert sum(row[0] for row in cursor) == total


def stream(count):
    query, total = selected(count)
    assert sum(row[0] for row in connection.cursor().stream(query)) == total


def execute_many(count):
    cursor = connection.cursor()
    rows = ((n, f"row {n}") for n in range(count))
    cursor.executemany("insert into many values (%s, %s)", rows)
    assert cursor.rowcount == count
    cursor.execute("truncate many")


def listed_many(count):
    rows = [(n, f"row {n}") for n in range(count)]
    connection.cursor().executemany("insert into many values (%s, %s)", rows)


def idle(count):
    for _ in range(count):
        one = poolproof.driver.connect(dsn)
        held.append(one)
        for _ in range(7):  # prepared as well
            one.execute("select %s::int, now()", [1]).fetchall()
        one.execute("select repeat('x', 100000) from generate_series(1, 10)").fetchall()
        one.rollback()


def held_objects(count):
    held.extend(bytearray(100 * 1024) for _ in range(count))


held = []
connection = poolproof.driver.connect(dsn)
connection.execute("create temp table many (n int, t text)")
grown = []
for kind, few, many in asked:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the most that it had is what it has now
    name = "RssAnon:" if kind in ("idle", "held_objects") else "VmHWM:"
    globals()[kind](few)
    before = status(name)
    globals()[kind](many)
    grown.append(status(name) - before)
print(json.dumps(grown))
"""


def grown(dsn, *asked):
    """Do some kinds of work, little and much; return by how many KiB each has grown."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, dsn, json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["disable", "require"])
def test_an_idle_connection_takes_little(debian_pg, mode):
    url = debian_pg.url("psycopg2").set(drivername="postgresql")
    url = url.update_query_dict({"sslmode": mode})
    dsn = url.render_as_string(hide_password=False)
    count = 40
    control, idle = grown(dsn, ("held_objects", 10, count), ("idle", 10, count))
    # Something that takes a little more is seen to.
    assert control > KIB_A_CONNECTION * count
    assert idle <= KIB_A_CONNECTION * count


def soaked(*counts):
    few, many = counts
    return [
        few,
        pytest.param(many, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ]


@pytest.mark.parametrize("count", soaked(MANY, 10_000_000))
def test_rows_that_come_as_they_are_fetched_take_no_more_for_more_of_them(dsn, count):
    cursor, stream, control = grown(
        dsn,
        ("server_cursor", FEW, count),
        ("stream", FEW, count),
        ("fetched_all", FEW, MANY),
    )
    assert control > 4 * SLACK_KIB
    assert cursor < SLACK_KIB
    assert stream < SLACK_KIB


@pytest.mark.parametrize("count", soaked(MANY, 1_000_000))
def test_rows_that_are_sent_as_they_travel_take_no_more_for_more_of_them(dsn, count):
    sent, control = grown(dsn, ("execute_many", FEW, count), ("listed_many", FEW, MANY))
    assert control > 2 * SLACK_KIB
    assert sent < SLACK_KIB
