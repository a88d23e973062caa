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

# Says how many KiB it has at most after each of some amounts of work.
PROGRAM = """
import json, sys
import poolproof.driver

dsn, kind, *counts = sys.argv[1:]


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
if kind not in ("idle", "held_objects"):
    connection = poolproof.driver.connect(dsn)
    connection.execute("create temp table many (n int, t text)")
name = "RssAnon:" if kind in ("idle", "held_objects") else "VmHWM:"
found = []
for count in counts:
    globals()[kind](int(count))
    found.append(status(name))
print(json.dumps(found))
"""


def grown(dsn, kind, *counts):
    """Return by how many KiB a process has grown from the first count to the last."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, dsn, kind, *map(str, counts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = json.loads(done.stdout)
    return last - first


@pytest.mark.parametrize("mode", ["disable", "require"])
def test_an_idle_connection_takes_little(debian_pg, mode):
    url = debian_pg.url("psycopg2").set(drivername="postgresql")
    url = url.update_query_dict({"sslmode": mode})
    dsn = url.render_as_string(hide_password=False)
    count = 40
    # Something that takes a little more is seen to.
    control = grown(dsn, "held_objects", 10, count)
    assert control > KIB_A_CONNECTION * count
    assert grown(dsn, "idle", 10, count) <= KIB_A_CONNECTION * count


def soaked(*counts):
    few, many = counts
    return [
        few,
        pytest.param(many, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ]


@pytest.mark.parametrize("count", soaked(300_000, 10_000_000))
@pytest.mark.parametrize("kind", ["server_cursor", "stream"])
def test_rows_that_come_as_they_are_fetched_take_no_more_for_more_of_them(
    dsn, kind, count
):
    control = grown(dsn, "fetched_all", 20_000, 300_000)
    assert control > 4 * SLACK_KIB
    assert grown(dsn, kind, 20_000, count) < SLACK_KIB


@pytest.mark.parametrize("count", soaked(200_000, 1_000_000))
def test_rows_that_are_sent_as_they_travel_take_no_more_for_more_of_them(dsn, count):
    control = grown(dsn, "listed_many", 20_000, 200_000)
    assert control > 2 * SLACK_KIB
    assert grown(dsn, "execute_many", 20_000, count) < SLACK_KIB
