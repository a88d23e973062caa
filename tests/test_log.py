"""What a warning looks like where an application has set up no logging."""

from __future__ import annotations

import re
from pathlib import Path

import poolproof
from plugins.processes import run_script

PACKAGE = Path(poolproof.__file__).parent
# Python writes them bare to standard error: no logger, no level.
BARE = """
    import sys
    import poolproof
    from poolproof.faults import events
    from poolproof.faults.table import Fault, Verdict

    verdict = Verdict(
        fault=Fault.CORRUPTION,
        cost="connection",
        retry="whole_unit",
        outcome="not_done",
        cause="the answer is another statement's",
    )
    for state, pid in (("08P01", 42), (None, None)):
        events.report(verdict, driver="psycopg2", sqlstate=state, backend_pid=pid)
"""


def test_a_fault_says_whose_line_it_is_and_what_has_happened_first():
    done = run_script(BARE)
    full, sparse = done.stderr.splitlines()
    sentence = "poolproof: the answer is another statement's (fault corruption, cost "
    assert full.startswith(sentence)
    assert "sqlstate 08P01, backend pid 42, process id " in full
    assert sparse.startswith(sentence)
    assert "sqlstate" not in sparse
    assert "backend" not in sparse
    assert "None" not in done.stderr


def test_a_fault_names_its_pool():
    """Of two pools of one database nothing else tells whose it is."""
    done = run_script(
        """
        import logging, sys
        from sqlalchemy.pool import QueuePool
        import poolproof
        from poolproof.faults import events
        from poolproof.faults.table import Fault, Verdict

        verdict = Verdict(
            fault=Fault.TERMINATED,
            cost="connection",
            retry="whole_unit",
            outcome="not_done",
            cause="the server ended this session",
        )
        for kind, name in ((poolproof.Pool, "app 1"), (QueuePool, "report\\n2")):
            pool = kind(lambda: None, logging_name=name)
            events.report(verdict, driver="psycopg2", pool=pool)
        print([event.pool for event in poolproof.journal()])
        """
    )
    first, second = done.stderr.splitlines()
    assert ", pool app 1, driver psycopg2)" in first
    assert ", pool report\\n2, driver psycopg2)" in second  # in one line
    assert done.stdout == "['app 1', 'report\\n2']\n"


def test_every_logger_of_the_package_marks_its_lines():
    """The drill's are for its own report; SQLAlchemy's and psycopg's are their own."""
    loggers = re.compile(r"logging\.getLogger\(")
    words = re.compile(
        r"\blogger\.(?:warning|error|exception|critical)\(\s*f?\"(?!poolproof: )"
    )
    for path in PACKAGE.rglob("*.py"):
        if "drill" in path.parts or path.name == "_log.py":
            continue
        code = path.read_text().replace('``logging.getLogger("sqlalchemy.pool")``', "")
        code = code.replace('logging.getLogger("sqlalchemy.pool").', "")
        for theirs in ("psycopg", "sqlalchemy.dialects.postgresql"):
            code = code.replace(f'logging.getLogger("{theirs}")', "")
        assert not words.search(code), path
        assert not loggers.search(code), path


def test_a_pools_warnings_say_whose_they_are_and_which_pool():
    done = run_script(
        """
        import time
        from sqlalchemy import create_engine
        import poolproof
        engine = create_engine(
            "sqlite:///:memory:", poolclass=poolproof.Pool, hold_warning=0.01,
            pool_logging_name="orders",
        )
        with engine.connect():
            time.sleep(0.5)
        engine.dispose()
        """
    )
    assert done.stderr.startswith("poolproof: A connection of pool orders (backend pid")
    assert "0x" not in done.stderr
