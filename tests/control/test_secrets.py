"""No error holds a password, or a piece of one: not as text, argument or attribute."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import traceback

import pytest
from sqlalchemy import create_engine, exc

from poolproof import ControlError, Lease
from poolproof.drivers.server_params import from_dsn

PIECES = ("s3", "cret")
TEXTS = (
    "postgresql://u:s3@cret@h/d",
    "postgresql://u:s3/cret@h/d",
    "postgresql://u:s3%cret@h/d",
    "postgresql://u:s3cret\ud800@h/d",
    "postgresql://u@h/d?port=s3cret",
    "mysql://u:s3cret@h/d",
    "host=h password=s3 cret=1",
    "host=h password='s3cret",
    "host=h password=s3cret\ud800",
    "host=h password=s3cret\0",
    "port=s3cret",
    "connect_timeout=s3cret",
)


def everything(error: BaseException | None) -> str:
    """Return all that an error says and holds, with what it came from."""
    told = []
    while error is not None:
        told += [*traceback.format_exception_only(error), repr(vars(error))]
        told += [repr(error.args), repr(getattr(error, "object", ""))]
        told.append(repr(pickle.dumps(error)))
        error = error.__cause__ or error.__context__
    return "\n".join(told)


def assert_silent(error: BaseException) -> None:
    told = everything(error)
    for piece in PIECES:
        assert piece not in told, told


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_that_cannot_be_read_is_not_quoted(text):
    with pytest.raises(exc.ArgumentError) as caught:
        from_dsn(text)
    assert_silent(caught.value)


@pytest.mark.parametrize(
    "value", [b"s3cret\xff", "s3cret\udcff", b"s3cret\0", "s3cret\0"]
)
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_a_password_of_any_bytes_is_taken_or_refused_in_silence(driver, value):
    url = f"postgresql+{driver}://u@127.0.0.1:1/d"
    engine = create_engine(url, connect_args={"password": value})
    with pytest.raises((exc.ArgumentError, ControlError)) as caught:
        Lease(engine, "x", timeout=0.5).acquire()
    assert_silent(caught.value)


def test_a_variable_of_any_bytes_is_taken(monkeypatch):
    monkeypatch.setitem(os.environb, b"PGPASSWORD", b"s3cret\xff")
    given = from_dsn("host=127.0.0.1 port=1")
    for piece in PIECES:
        assert piece not in repr(given)


def test_a_passfile_of_any_bytes_is_taken(home):
    path = home / ".pgpass"
    path.write_bytes(b"*:*:*:*:s3cret\xe9\n")
    path.chmod(0o600)
    given = from_dsn("host=127.0.0.1 port=1")
    for piece in PIECES:
        assert piece not in repr(given)


def test_the_tail_of_a_password_is_not_shown_as_a_host():
    engine = create_engine("postgresql+psycopg2://u:s3@cret@127.0.0.1:1/d")
    assert "cret" in engine.url.host  # that is how SQLAlchemy reads it
    with pytest.raises((exc.ArgumentError, ControlError)) as caught:
        Lease(engine, "x", timeout=0.5).acquire()
    assert_silent(caught.value)
    assert "%40" in str(caught.value)


# --- homes that cannot be entered ---------------------------------------------------

ASK = """
import json, os, sys
cases, uid, *path = json.loads(sys.argv[1])
sys.path[:0] = path
from control.asking import ask_control_plane, ask_libpq
ask_control_plane("host=/nowhere user=u")  # imports the rest, which may be root's alone
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
for text, home in cases:
    os.environ.pop("HOME", None)
    if home:
        os.environ["HOME"] = home
    print(ask_control_plane(text)[0], ask_libpq(text)[0])
"""
NOBODY = 65534
WITHOUT_A_NAME = 54321


@pytest.mark.parametrize("uid", [NOBODY, WITHOUT_A_NAME])
def test_a_home_that_cannot_be_entered_is_none(uid, serve, tmp_path):
    closed = tmp_path / "closed"
    (closed / ".postgresql").mkdir(parents=True)
    closed.chmod(0o000)
    where = f"host=127.0.0.1 port={serve(auth='trust').port} dbname=d"
    modes = ("prefer", "require", "disable")
    cases = [(f"{where} user=u sslmode={mode}", str(closed)) for mode in modes]
    # Without a name there is no role to be had, but a home may be.
    cases += [(where, str(closed)), (where, None), (f"{where} user=u", None)]
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps([cases, uid, *sys.path])],
        capture_output=True,
        timeout=200,
        check=False,
        cwd="/",
    )
    closed.chmod(0o700)
    assert done.returncode == 0, done.stderr.decode()
    said = [line.split() for line in done.stdout.decode().splitlines()]
    assert len(said) == len(cases)
    for ours, theirs in said:
        assert ours == theirs, said
    if os.geteuid() == 0:
        assert [ours for ours, _ in said] == ROOT_DROPPED[uid]


# A certificate file that cannot be seen is an error of TLS, which `prefer` forgives.
ROOT_DROPPED = {
    NOBODY: ["True", "False", "True", "True", "True", "True"],
    WITHOUT_A_NAME: ["True", "False", "True", "False", "False", "True"],
}
