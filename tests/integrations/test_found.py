"""What uses this pool in a program that has named nothing."""

from __future__ import annotations

import flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy.orm import scoped_session, sessionmaker

import poolproof
from poolproof.integrations.found import on_our_pool

URL = "postgresql+psycopg2://db/found"


def test_sessions_on_our_pool_are_found_and_no_others():
    ours = create_engine(URL, poolclass=poolproof.Pool)
    theirs = create_engine(URL)
    scoped = scoped_session(sessionmaker(ours))
    maker = sessionmaker(ours)
    others = [
        sessionmaker(theirs),
        scoped_session(sessionmaker(theirs)),
        sessionmaker(binds={object: ours, str: theirs}),
        sessionmaker(),
    ]
    sessions, engines = on_our_pool()
    assert ours in engines
    assert theirs not in engines
    assert scoped in sessions
    assert maker in sessions
    assert scoped.session_factory not in sessions
    assert not any(one in sessions for one in others)
    ours.dispose()


def test_flask_sqlalchemy_is_found_as_a_whole():
    app = flask.Flask("found")
    app.config["SQLALCHEMY_DATABASE_URI"] = URL
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"poolclass": poolproof.Pool}
    db = SQLAlchemy(app)
    sessions, engines = on_our_pool()
    assert db in sessions
    assert db.session not in sessions
    with app.app_context():
        assert db.engine in engines
        db.engine.dispose()
