"""What a person names to the doctor: a URL, or ``module:engine``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import make_url

from poolproof._checks import has_second_at
from poolproof.doctor import secret_words
from poolproof.doctor.engines import engine_of, shown
from poolproof.doctor.errors import DoctorError
from poolproof.doctor.process import take
from poolproof.doctor.refusal import one_line
from poolproof.doctor.subject import Subject

if TYPE_CHECKING:
    from poolproof.doctor.deployment import Deployment

__all__ = ["read", "sources_of"]

_OURSELVES: Final = "poolproof"
_SHAPE: Final = "postgresql://user:password@host:port/database, or module:engine"
_DRIVERS: Final = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "psycopg[binary]",
    "pg8000": "pg8000",
    "asyncpg": "SQLAlchemy[asyncio] asyncpg",
}


def read(text: str, deployment: Deployment) -> Subject:
    """Read what a person named.

    Args:
        text: A URL, or a module and what in it has an engine: an engine, sync or async,
            a sessionmaker, a session, a Flask-SQLAlchemy extension, or a Flask
            application that has one; with ``()`` behind it, what makes one.
        deployment: How it is run.

    Raises:
        DoctorError: It is none of those; the message holds no secret.
    """
    if "://" in text:
        return _of_url(text.strip(), deployment)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(\))?", text):
        return _of_module(text, deployment)
    # Not quoted: it may be a URL without its beginning.
    raise DoctorError(f"neither a URL nor module:engine; it should look like {_SHAPE}")


def _of_url(text: str, deployment: Deployment) -> Subject:
    if has_second_at(text):
        raise DoctorError(
            "a second @ in the URL (what it has is not shown: it may be a piece of the "
            "password); write %40 for an @ in a name or password"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DoctorError(
            "a byte in the URL that is not UTF-8 (not shown: it may be a piece of the "
            "password); write it in UTF-8, or as % and two digits"
        )
    url = None
    # What is raised in here quotes the URL, and is not kept as a context either.
    with contextlib.suppress(exc.ArgumentError, ValueError):
        url = make_url(re.sub(r"^postgres(?=\+|://)", "postgresql", text))
    if url is None:
        raise DoctorError(f"not a database URL; it should look like {_SHAPE}")
    if "@" in (url.host or "") + (url.database or ""):
        raise DoctorError("a second @ in the URL; write %40 for an @ in a password")
    if url.get_backend_name() != "postgresql":
        raise DoctorError(
            f"a database of {one_line(url.get_backend_name())}; the doctor looks at "
            "PostgreSQL"
        )
    if "+" not in url.drivername:
        there = [name for name in _DRIVERS if importlib.util.find_spec(name)]
        if not there:
            raise DoctorError('no driver is installed: pip install "psycopg2-binary"')
        url = url.set(drivername=f"postgresql+{there[0]}")
    secrets = secret_words.of_url(url)
    try:
        engine = sa.create_engine(url)
    except ImportError as error:
        driver = url.drivername.partition("+")[2]
        package = _DRIVERS.get(driver, driver)
        raise DoctorError(
            f"the driver {driver} cannot be imported ({one_line(str(error))}): "
            f'pip install "{package}"'
        ) from error
    except Exception as error:
        said = one_line(secret_words.redact(str(error), secrets))
        raise DoctorError(f"no engine can be made of the URL: {said}") from error
    return Subject(engine=engine, shown=shown(engine), deployment=deployment)


def _of_module(text: str, deployment: Deployment) -> Subject:
    name, _, path = text.partition(":")
    module = _imported(name)
    found: Any = module
    called = path.endswith("()")
    for part in path.removesuffix("()").split("."):
        if not hasattr(found, part):
            where = getattr(found, "__name__", type(found).__name__)
            raise DoctorError(f"{where} has no {part}; {_offers(module, name)}")
        found = getattr(found, part)
    if called:
        found = _called(text, found)
    engine = _engine_in(text, found, _offers(module, name))
    if engine.dialect.name != "postgresql":
        raise DoctorError(
            f"{text} is an engine of {engine.dialect.name}; the doctor looks at "
            "PostgreSQL"
        )
    census = take()
    return Subject(
        engine=engine,
        shown=f"{text}, {shown(engine)}",
        is_application=True,
        deployment=deployment,
        pools=census.pools_of_server(engine),
        census=census,
        sources=sources_of(module),
    )


def _imported(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        # What it prints is not to stand in the report.
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise DoctorError(
                f"there is no module {error.name} in {here} or the environment; start "
                "in the folder of the application, or set PYTHONPATH"
            ) from error
        raise DoctorError(
            f"{name} cannot be imported: {one_line(str(error))}; is this the "
            "application's environment?"
        ) from error
    except (Exception, SystemExit) as error:
        # Its text may hold anything: a URL with its password, too.
        raise DoctorError(
            f"{name} cannot be imported: it raises {type(error).__name__} (-v shows "
            "more); try the same with python -c"
        ) from error


def _called(text: str, function: Any) -> Any:
    if not callable(function):
        raise DoctorError(f"{text}: that cannot be called; leave the () out")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return function()
    except Exception as error:
        raise DoctorError(
            f"{text} raises {type(error).__name__} (-v shows more)"
        ) from error


def _engine_in(text: str, found: Any, offers: str) -> sa.Engine:
    extension = getattr(found, "extensions", None)
    if isinstance(extension, dict) and "sqlalchemy" in extension:  # a Flask application
        with found.app_context():
            return engine_of(extension["sqlalchemy"])
    try:
        return engine_of(found)
    except TypeError:
        kind = type(found).__name__
        raise DoctorError(f"{text} is no engine but a {kind}; {offers}") from None
    except RuntimeError as error:  # Flask-SQLAlchemy outside of its application
        raise DoctorError(
            f"{text} has its engine in an application's context alone: name the "
            "application, as in app:app or app:create_app()"
        ) from error


def _offers(module: Any, name: str) -> str:
    """Say what of a module would do."""
    there = [
        f"{name}:{key}"
        for key, value in vars(module).items()
        if not key.startswith("_") and _has_engine(value)
    ]
    return f"try {' or '.join(there[:3])}" if there else "it has no engine that is seen"


def _has_engine(value: Any) -> bool:
    if isinstance(value, type):
        return False
    try:
        engine_of(value)
    except Exception:  # noqa: BLE001 - somebody's properties
        return False
    return True


def sources_of(module: Any) -> tuple[Path, ...]:
    """Return the source files of an application that are loaded: beside its module.

    Args:
        module: The module that has the engine, or the application.
    """
    file = getattr(module, "__file__", None)
    if file is None:
        return ()
    root = Path(file).resolve().parent
    for _ in range(module.__name__.count(".")):
        root = root.parent
    found = {Path(file).resolve()}
    for name, other in list(sys.modules.items()):
        path = getattr(other, "__file__", None)
        if (
            not isinstance(path, str)
            or not path.endswith(".py")
            or "site-packages" in path
            or name.partition(".")[0] == _OURSELVES
        ):
            continue
        resolved = Path(path).resolve()
        if resolved.is_relative_to(root):
            found.add(resolved)
    configuration = Path.cwd() / "gunicorn.conf.py"
    if configuration.is_file():
        found.add(configuration.resolve())
    return tuple(sorted(found))
