"""No password reaches a metric, a file or a snapshot, however a URL is spelled."""

from __future__ import annotations

import dataclasses
import json
from urllib.parse import quote

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, create_engine, exc

import poolproof
from poolproof.metrics import exposition, files
from poolproof.metrics.table import read

MARK = "S3CRET"
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)


def shown(url):
    """Return everything that is shown of an engine with this URL."""
    try:
        engine = create_engine(url, poolclass=poolproof.Pool)
    except (exc.ArgumentError, ValueError):
        return ""
    try:
        seen = poolproof.snapshot(engine)
        process = poolproof.snapshot()
        samples = read(process)
        return "".join(
            (
                repr(seen),
                json.dumps(dataclasses.asdict(process), default=str),
                exposition.text(samples).decode(),
                files.encode(samples, pid=1).decode(),
            )
        )
    finally:
        engine.dispose()


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(before=TEXT, after=TEXT)
@example(before="p@", after="")
@example(before="", after="@h/")
@example(before="a:b@", after="?x=")
def test_no_password_is_shown(before, after):
    password = f"{before}{MARK}{after}"
    driver = "postgresql+psycopg2"
    told = {"username": "app", "host": "db", "database": "app"}
    urls = (
        URL.create(driver, password=password, **told),
        f"{driver}://app:{quote(password, safe='')}@db/app",
        f"{driver}://app:{password}@db/app",
        f"{driver}://db/app?user=app&password={quote(password, safe='')}",
    )
    for url in urls:
        assert MARK not in shown(url)
