"""What the pages of Luigi and Celery show, run as a worker runs it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_SPEC = importlib.util.spec_from_file_location(
    "tests_docs_blocks_of_workers", Path(__file__).with_name("blocks.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
blocks = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = blocks
_SPEC.loader.exec_module(blocks)


def module(page, pg, *words):
    """Return the Python blocks of a page that have one of *words*, as one module."""
    url = pg.url("psycopg2")
    netloc = f"{url.username}@{url.host}:{url.port}/{url.database}"
    chosen = [
        block.text.replace(blocks.DOCUMENTED, netloc)
        for block in blocks.blocks(blocks.CHECKOUT / "docs" / "deploying" / page)
        if block.language == "python" and any(word in block.text for word in words)
    ]
    assert len(chosen) == len(words)
    return "\n".join(chosen)


def run(place, *command):
    return subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_luigi_s_command_runs_the_page_and_each_task_says_which_pool_it_has(
    pg, observer, tmp_path
):
    observer.rows("drop table if exists table_updates")
    shown = module("luigi.md", pg, "import install", "class Plans", "say_which_pool")
    (tmp_path / "plans.py").write_text(shown.replace("range(60)", "range(2)"))
    command = ("--module", "plans", "Plans", "--local-scheduler", "--workers", "2")
    done = run(tmp_path, "-m", "luigi", *command)
    assert ":)" in done.stderr, done
    # What wraps them says it, too. Two processes write into each other's lines.
    assert done.stdout.count("Settings(") == done.stdout.count("Pool size: 5") >= 2


def test_a_worker_of_celery_says_which_pool_it_has(pg, tmp_path):
    shown = module("celery.md", pg, "poolproof_celery.install", "def say_which_pool")
    (tmp_path / "shop.py").write_text(
        shown.replace('broker="redis://queue/0"', 'broker="memory://"')
        + "\n\n@signals.worker_ready.connect\ndef end(**_more):\n"
        "    raise SystemExit\n"
    )
    command = ("--app", "shop", "worker", "--pool", "prefork", "--concurrency", "1")
    done = run(tmp_path, "-m", "celery", *command)
    assert done.stderr.count("Settings(") == 1, done
    assert "AssertionError" not in done.stderr
