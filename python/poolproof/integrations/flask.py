"""Flask and Flask-SQLAlchemy: the pool, the guard and the sessions of one application.

Three lines install it::

    from poolproof.integrations import flask as poolproof_flask

    poolproof_flask.init_app(app, db)
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

try:
    import click
    import flask
    from flask.cli import AppGroup
except ImportError as error:
    raise ImportError(
        'poolproof.integrations.flask needs Flask: pip install "Flask>=2.3"'
    ) from error

from sqlalchemy import exc
from sqlalchemy.engine import Engine
from sqlalchemy.orm import scoped_session
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.wrappers import Response

from poolproof._log import Log, Seldom
from poolproof.cli.deployment import deployment_options
from poolproof.cli.status import EXIT_ERROR
from poolproof.doctor.engines import is_engine, shown, sync_engine
from poolproof.errors import BreakerOpen, PoolTimeout
from poolproof.integrations import doctor, options, sessions
from poolproof.integrations.engines import adopt
from poolproof.metrics import scope as scopes
from poolproof.metrics.automatic import stand_by, want
from poolproof.metrics.exposition import CONTENT_TYPE
from poolproof.metrics.wsgi import metrics_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from poolproof.doctor.run import Examination

__all__ = ["add_metrics", "init_app"]

_log = Log("poolproof.integrations")
_NAME = "poolproof"
_FLASK_SQLALCHEMY = "sqlalchemy"
_SCOPE = "poolproof.scope"
_SCOPE_LONGEST = 200
# What no route leads to.
_UNROUTED = "unrouted"
# A request that is answered with 503 has cost little, and there may be many.
_SAID_EVERY_S = 10.0


def init_app(app: flask.Flask, db: Any = None, **pool_options: Any) -> None:
    """Put the pool and the guard under an application, and keep its sessions clean.

    Engines of Flask-SQLAlchemy for which no ``poolclass`` was given get
    `poolproof.Pool`, with all their other options; every engine is guarded. It does not
    matter whether `db.init_app` came before or comes later. At the end of each
    application context the scoped session is removed, also when its rollback fails.
    ``flask poolproof doctor`` prints what the pools see.

    Args:
        app: The application; its configuration is read now.
        db: A Flask-SQLAlchemy extension, an engine, a `scoped_session`, or a list of
            those. None takes the Flask-SQLAlchemy extension of the application.
        **pool_options: Options of the pool, as for `create_engine`; and ``answer_503``
            (an exhausted pool is answered with 503, off by default) with
            ``retry_after`` (seconds, 1). They go before ``POOLPROOF_*`` in
            ``app.config``, that before the environment, and all of them before what the
            engine was made with.

    Raises:
        ArgumentError: A key or value that is wrong, by the key's name.
        TypeError: An option that does not exist, or a `db` of an unknown kind.
        RuntimeError: It was done already for this application.
    """
    if _NAME in app.extensions:
        msg = "poolproof is installed in this application already; pass all in one call"
        raise RuntimeError(msg)
    try:
        chosen = options.read(pool_options, app.config, os.environ)
    except exc.ArgumentError as error:
        raise _RefusedOption(str(error)) from None
    for slip in chosen.unknown:
        _log.warning("%s", slip)
    parts = _parts(db)
    # What Flask refuses after the first request comes before anything is changed.
    if chosen.answer_503:
        _answer_503(app, chosen.retry_after)
    extension = _Extension(app, chosen)
    extension.add(parts)
    app.extensions[_NAME] = extension
    app.cli.add_command(_group)


def add_metrics(app: flask.Flask, path: str = "/metrics") -> None:
    """Answer one path of an application with the metrics of its pools, for Prometheus.

    Of all processes where `POOLPROOF_METRICS_DIR` names their directory, or under
    Gunicorn with its hooks (`poolproof.integrations.gunicorn`), else of the one that
    answers. Whoever can reach the path can read it.

    Args:
        app: The application, before its first request.
        path: The path, with ``/`` at its beginning.

    Raises:
        ValueError: The path does not begin with ``/``.
    """

    def metrics() -> Response:
        return Response(metrics_text(), content_type=CONTENT_TYPE)

    app.add_url_rule(path, "poolproof_metrics", metrics, methods=["GET"])
    want()


class _RefusedOption(exc.ArgumentError, click.ClickException):
    """An option that is refused.

    Flask's command line shows its sentence alone, without a traceback.
    """


class _Extension:
    """What is installed in one application."""

    def __init__(self, app: flask.Flask, chosen: options.Chosen) -> None:
        self._app = app
        self.chosen = chosen
        self._plain: list[Engine | AsyncEngine] = []
        # The Flask-SQLAlchemy extension, as soon as it has its engines.
        self._db: Any = None
        # By process: a thread of a parent may have held its lock at the fork.
        self._locks: dict[int, threading.Lock] = {}
        # They know a method by weak reference; the application has this object.
        flask.request_started.connect(self._on_request, app)
        flask.request_tearing_down.connect(self._on_request_end, app)

    def _on_request(self, _app: flask.Flask, **_more: object) -> None:
        """Name what is done for a request by its endpoint."""
        name = flask.request.endpoint or _UNROUTED
        flask.request.environ[_SCOPE] = scopes.enter(name[:_SCOPE_LONGEST])

    def _on_request_end(self, _app: flask.Flask, **_more: object) -> None:
        before = flask.request.environ.pop(_SCOPE, None)
        if before is not None:
            scopes.restore(before)

    def add(self, parts: list[Any]) -> None:
        """Take over what was given, now or when it is there."""
        found = [part for part in parts if isinstance(part, scoped_session)]
        for session in found:
            self._app.teardown_appcontext(_remover(session))
        for session in found:
            for engine in _binds(session):
                self._take(engine)
        for part in parts:
            if is_engine(part):
                self._take(part)
        waits = any(_may_be_extension(part) for part in parts)
        if waits and not self._take_extension():
            # Whoever uses an engine of the extension has pushed a context before.
            flask.appcontext_pushed.connect(self._on_push, self._app)

    def _on_push(self, _app: flask.Flask, **_more: object) -> None:
        if self._take_extension():
            flask.appcontext_pushed.disconnect(self._on_push, self._app)

    def _take_extension(self) -> bool:
        """Take over the engines of Flask-SQLAlchemy; say whether they were there."""
        own = threading.Lock()
        with self._locks.setdefault(os.getpid(), own):
            db = self._app.extensions.get(_FLASK_SQLALCHEMY)
            if db is None or self._db is not None:
                return db is not None
            for key, engine in _engines_of(self._app, db).items():
                self._adopt(engine, keep_pool=_is_chosen(self._app, db, key))
            self._replace_teardown(db)
            self._db = db
            return True

    def _take(self, engine: Engine | AsyncEngine) -> None:
        self._adopt(engine)
        if engine not in self._plain:
            self._plain.append(engine)

    def _adopt(self, engine: Engine | AsyncEngine, *, keep_pool: bool = False) -> None:
        chosen = self.chosen
        try:
            adopt(engine, chosen.pool, keep_pool=keep_pool, places=chosen.places)
        except exc.ArgumentError as error:
            raise _RefusedOption(options.blamed(error, chosen.places)) from None

    def _replace_teardown(self, db: Any) -> None:
        """Let the session be removed in the very place where the extension does it.

        Functions of the application that still use the session keep their place.
        """
        functions = self._app.teardown_appcontext_funcs
        ours = _remover(db.session)
        theirs = getattr(db, "_teardown_session", None)
        if theirs in functions:
            functions[functions.index(theirs)] = ours
        else:
            functions.append(ours)

    def engines(self) -> Iterator[tuple[str, Engine]]:
        """Yield the engines with their names."""
        if self._db is not None:
            for key, engine in _engines_of(self._app, self._db).items():
                yield key or "default", engine
        for plain in self._plain:
            found = sync_engine(plain)
            yield found.logging_name or "engine", found


def _parts(db: Any) -> list[Any]:
    """Return what was given as a list, every part of a known kind."""
    parts = list(db) if isinstance(db, (list, tuple, set)) else [db]
    for part in parts:
        known = is_engine(part) or isinstance(part, scoped_session)
        if not (known or _may_be_extension(part)):
            msg = (
                "db must be a Flask-SQLAlchemy extension, an engine, a "
                f"scoped_session, or a list of those, not {type(part).__name__}"
            )
            raise TypeError(msg)
    return parts


def _may_be_extension(part: Any) -> bool:
    """Say whether a part stands for Flask-SQLAlchemy's extension."""
    return part is None or callable(getattr(part, "init_app", None))


def _binds(session: Any) -> list[Engine]:
    """Return the engines of a scoped session, each once."""
    given = getattr(session.session_factory, "kw", {})
    found = [given.get("bind"), *(given.get("binds") or {}).values()]
    return [one for one in dict.fromkeys(found) if isinstance(one, Engine)]


def _engines_of(app: flask.Flask, db: Any) -> dict[str | None, Engine]:
    # The mapping itself: `db.engines` needs a context, and pushing one would run the
    # application's own functions.
    engines = getattr(db, "_app_engines", {}).get(app)
    if engines is None:
        with app.app_context():
            engines = db.engines
    return dict(engines)


def _is_chosen(app: flask.Flask, db: Any, key: str | None) -> bool:
    """Say whether somebody chose the pool of an engine of Flask-SQLAlchemy."""
    given = [getattr(db, "_engine_options", {})]
    if key is None:
        given.append(app.config.get("SQLALCHEMY_ENGINE_OPTIONS") or {})
    bind = (app.config.get("SQLALCHEMY_BINDS") or {}).get(key)
    if isinstance(bind, dict):
        given.append(bind)
    return any(
        place.get(name) is not None for place in given for name in ("poolclass", "pool")
    )


def _remover(session: Any) -> Any:
    def remove_session(_error: BaseException | None) -> None:
        sessions.remove(session)

    return remove_session


def _answer_503(app: flask.Flask, retry_after: int) -> None:
    seldom = Seldom(_SAID_EVERY_S)

    def unavailable(error: Exception) -> Any:
        if (more := seldom.due()) is not None:
            _log.warning("a request was answered with 503: %s%s", error, more)
        # Through the application's own page for 503, if it has one.
        return app.handle_http_exception(
            ServiceUnavailable(
                "No database connection was free in time.", retry_after=retry_after
            )
        )

    app.register_error_handler(PoolTimeout, unavailable)
    app.register_error_handler(BreakerOpen, unavailable)


# --- flask poolproof … ----------------------------------------------------------------

_group = AppGroup(_NAME, help="Look at the database connection pools.")


@_group.command("doctor")
@deployment_options
def _doctor(**deployment: Any) -> None:
    """Print what the pools see, try a connection of each, and run every check.

    Of this process, which is not one of those that serve. Exit status: 1 when an engine
    has no connection, 3 when the worst finding is an error.
    """
    with stand_by():
        _say_all(deployment)


def _say_all(deployment: dict[str, Any]) -> None:
    # Here, for an application that serves needs none of it.
    from poolproof.cli import doctor_text  # noqa: PLC0415

    extension: _Extension = flask.current_app.extensions[_NAME]
    for slip in extension.chosen.unknown:
        click.echo(f"warning: {slip}")
    found = list(extension.engines())
    # Before a connection of each is tried, which then rests in its pool.
    examined = _examined(dict(found), deployment)
    fine = True
    for (name, engine), examination in zip(found, examined, strict=True):
        click.echo(f"{name}: {shown(engine)}")
        answer, well = doctor.ask(engine)
        fine = fine and well
        for line in (answer, *doctor.describe(engine)):
            click.echo(f"  {line}")
        click.echo("  checks:")
        for line in doctor_text.as_text(examination).splitlines()[2:]:
            click.echo(f"    {line}".rstrip())
    if not found:
        click.echo("no engine: pass db to init_app, or install Flask-SQLAlchemy")
    if not (fine and found):
        raise SystemExit(1)
    if any(one.worst == "error" for one in examined):
        raise SystemExit(EXIT_ERROR)


def _examined(
    engines: dict[str, Engine], deployment: dict[str, Any]
) -> list[Examination]:
    from poolproof.doctor.catalogue import CHECKS  # noqa: PLC0415
    from poolproof.doctor.deployment import Deployment  # noqa: PLC0415
    from poolproof.doctor.subject import Subject  # noqa: PLC0415
    from poolproof.doctor.target import sources_of  # noqa: PLC0415
    from poolproof.doctor.together import examine_together  # noqa: PLC0415

    module = sys.modules.get(flask.current_app.import_name)
    subjects = [
        Subject(
            engine=engine,
            shown=f"{name}, {shown(engine)}",
            is_application=True,
            deployment=Deployment(**deployment),
            sources=sources_of(module),
        )
        for name, engine in engines.items()
    ]
    return examine_together(subjects, CHECKS)
