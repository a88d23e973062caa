"""No exception carries a password out, however wrong it is, whichever way it came."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from urllib.parse import quote_from_bytes

import flask
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, create_engine, make_url

import poolproof
from poolproof import auto
from poolproof.cli.commands import commands
from poolproof.cli.main import main
from poolproof.drivers.server_params import from_dsn
from poolproof.integrations import flask as poolproof_flask

MARK = b"s3cr3t"
WHERE = "127.0.0.1:1"  # nobody listens there
FUZZ = settings(
    max_examples=4,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Bytes that are no UTF-8, halves of a pair, and what ends or splits a URL or a pair.
WRONG = st.lists(
    st.sampled_from(
        [
            *(b"\xff", b"\xe9", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f", b"\x01"),
            *(b"@", b":", b"/", b"?", b"#", b"%", b"%zz", b"'", b"\\", b" ", b"\n"),
            *(b"=", b"["),
        ]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)
SECRETS = st.tuples(WRONG, WRONG).map(lambda two: MARK + two[0] + MARK + two[1] + MARK)


def held(error, seen=None):
    """Yield all that an exception holds, as texts and as bytes."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    for say in (str, repr):
        with contextlib.suppress(UnicodeError):
            yield say(error).encode("utf-8", "surrogatepass")
    yield repr((error.args, vars(error))).encode("utf-8", "surrogatepass")
    yield repr(getattr(error, "object", b"")).encode("utf-8", "surrogatepass")
    with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError):
        yield pickle.dumps(error)
    for other in (error.__cause__, error.__context__, getattr(error, "orig", None)):
        yield from held(other, seen)


def check(error):
    assert error is not None
    for one in held(error):
        assert MARK not in one, f"{type(error)}: {one!r}"


def text_of(secret):
    return secret.decode("utf-8", "surrogateescape")


def url_of(secret, driver="", **query):
    """Write it as a URL has it, each byte by its number."""
    pairs = "&".join(f"{name}={value}" for name, value in query.items())
    scheme = f"postgresql+{driver}" if driver else "postgresql"
    return f"{scheme}://u:{quote_from_bytes(secret, safe='')}@{WHERE}/d?{pairs}"


@contextlib.contextmanager
def environment(**values):
    before = {name: os.environb.get(name.encode()) for name in values}
    for name, value in values.items():
        os.environb[name.encode()] = value.replace(b"\0", b"")
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environb[name.encode()]
            if value is not None:
                os.environb[name.encode()] = value


def connect(url, **options):
    engine = create_engine(url, poolclass=poolproof.Pool, **options)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def acquire(bind, **options):
    poolproof.Lease(bind, "n", timeout=0.01, **options).acquire()


def by_url(secret, driver, _tmp):
    connect(url_of(secret, driver))


def by_raw_url(secret, driver, _tmp):
    # What follows an @ is the host for SQLAlchemy, and drivers quote that.
    secret = secret.replace(b"@", b"")
    connect(f"postgresql+{driver}://u:{text_of(secret)}@{WHERE}/d")


def by_plugin(secret, driver, _tmp):
    engine = create_engine(url_of(secret, driver, plugin="poolproof"))
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def by_auto(secret, driver, _tmp):
    before = vars(URL)[auto._PLACE]
    auto.install()
    try:
        by_plugin(secret, driver, _tmp)
    finally:
        setattr(URL, auto._PLACE, before)


def by_bytes(secret, driver, _tmp):
    connect(f"postgresql+{driver}://u@{WHERE}/d", connect_args={"password": secret})


def by_text(secret, driver, _tmp):
    arguments = {"password": text_of(secret)}
    connect(f"postgresql+{driver}://u@{WHERE}/d", connect_args=arguments)


def by_environment(secret, driver, _tmp):
    with environment(PGPASSWORD=secret):
        connect(f"postgresql+{driver}://u@{WHERE}/d")


def by_passfile(secret, driver, tmp):
    file = tmp / "passfile"
    file.write_bytes(b"*:*:*:*:" + secret + b"\n")
    file.chmod(0o600)
    with environment(PGPASSFILE=os.fsencode(file)):
        connect(f"postgresql+{driver}://u@{WHERE}/d")
        acquire(create_engine(f"postgresql+{driver}://u@{WHERE}/d"))


def by_lease(secret, driver, _tmp):
    acquire(create_engine(url_of(secret, driver)))


def by_lease_of_bytes(secret, driver, _tmp):
    arguments = {"password": secret}
    url = f"postgresql+{driver}://u@{WHERE}/d"
    acquire(create_engine(url, connect_args=arguments))


def by_lease_of_the_environment(secret, driver, _tmp):
    with environment(PGPASSWORD=secret):
        acquire(create_engine(f"postgresql+{driver}://u@{WHERE}/d"))


def by_control_dsn(secret, driver, _tmp):
    url = make_url(f"postgresql+{driver}://u@{WHERE}/d")
    acquire(create_engine(url), control_dsn=url_of(secret))


def by_control_pairs(secret, driver, _tmp):
    from_dsn(f"host=127.0.0.1 port=1 user=u password={text_of(secret)}")
    connect(
        f"postgresql+{driver}://u@{WHERE}/d",
        control_dsn=f"host=h {text_of(secret)} password={text_of(secret)}",
        end_stranded_backends=True,
    )


WAYS = [
    *(by_url, by_raw_url, by_plugin, by_auto, by_bytes, by_text, by_environment),
    *(by_passfile, by_lease, by_lease_of_bytes, by_lease_of_the_environment),
    *(by_control_dsn, by_control_pairs),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@FUZZ
@example(secret=MARK + b"\xe9" + MARK)
@example(secret=MARK + b"@" + MARK)
@example(secret=MARK + b"@" + MARK + b"/" + MARK)
@given(secret=SECRETS)
def test_no_exception_holds_it(way, driver, tmp_path, caplog, secret):
    caplog.set_level(logging.INFO)
    caught = None
    try:
        way(secret, driver, tmp_path)
    except Exception as error:
        caught = error
    if way is not by_passfile or caught is not None:
        check(caught)
    assert MARK.decode() not in caplog.text
    caplog.clear()


@pytest.mark.parametrize("command", [("lease", "list"), ("lease", "release", "n")])
@FUZZ
@example(secret=MARK + b"@" + MARK)
@example(secret=MARK + b"@" + MARK + b"/" + MARK)
@example(secret=MARK + b"@" + MARK + b"?" + MARK)
@given(secret=SECRETS)
def test_no_command_shows_it(command, capfd, secret):
    for url in (url_of(secret), f"postgresql://u:{text_of(secret)}@{WHERE}/d"):
        assert main([*command, "--url", url]) == 2
        shown = "".join(capfd.readouterr())
        assert MARK.decode() not in shown
        assert shown.startswith("poolproof: ")
        assert shown.count("\n") == 1


def drill(url, driver):
    run = CliRunner().invoke(commands, ["drill", "--url", url, "--driver", driver])
    return run.exception, run.output


def doctor(url, driver):
    # Of no module: the doctor would read the sources of all that stands beside it here.
    app = flask.Flask("shop")
    # What SQLAlchemy takes for the host and drops behind a ? cannot be told from one.
    url = url.replace("?", "").replace("postgresql", f"postgresql+{driver}", 1)
    try:
        engine = create_engine(url)
    except Exception:  # of SQLAlchemy alone, which quotes what it cannot read
        return None, ""
    try:
        poolproof_flask.init_app(app, engine)
        run = app.test_cli_runner().invoke(args=["poolproof", "doctor"])
    finally:
        engine.dispose()
    return run.exception, run.output


def examine(url, driver):
    """The doctor in each of its outputs; -v shows a traceback as well."""
    url = url.replace("postgresql", f"postgresql+{driver}", 1)
    shown = ""
    for options in ([], ["-v"], ["--json"], ["--sarif"]):
        run = CliRunner().invoke(commands, ["doctor", url, *options])
        shown += run.output
        if run.exception is not None:
            return run.exception, shown
    return None, shown


@pytest.mark.parametrize("command", [drill, doctor, examine])
@FUZZ
@example(secret=MARK + b"\xe9" + MARK)
@example(secret=MARK + b"@" + MARK)
@example(secret=MARK + b"@" + MARK + b"/" + MARK)
@example(secret=MARK + b"@" + MARK + b"?" + MARK)
@example(secret=MARK + b"?" + MARK + b"@" + MARK)
@example(secret=MARK + b"@?" + MARK + b"=" + MARK)
@example(secret=MARK + b"/" + MARK + b"@" + MARK)
@example(secret=MARK + b"?@" + MARK + b"?" + MARK)
@given(secret=SECRETS)
def test_no_command_that_asks_a_server_shows_it(command, driver, caplog, secret):
    caplog.set_level(logging.INFO)
    for url in (url_of(secret), f"postgresql://u:{text_of(secret)}@{WHERE}/d"):
        error, shown = command(url, driver)
        if error is not None:
            check(error)
        assert MARK.decode() not in shown
        assert MARK.decode() not in caplog.text
        caplog.clear()
