"""Where pip has no wheel: what is missing is said in one sentence, before it builds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"

# What a free-threaded CPython answers. The version is set last: what is imported later
# would take it for its own.
FREE = (
    "free = 'Py_GIL_DISABLED'.__eq__\n"
    "poolproof_build.sysconfig.get_config_var = free\n"
    "sys.version_info = (3, {}, 0)"
)


def ask(first="", settings=None, **env):
    """Ask what building needs, as pip does first of all."""
    asked = (
        "import sys\n"
        f"sys.path.insert(0, {str(CHECKOUT / 'build_backend')!r})\n"
        "import poolproof_build\n"
        f"{first}\n"
        # There need be no maturin here.
        "sys.modules['maturin'] = object()\n"
        f"poolproof_build.maturin_after_a_look({settings!r})\n"
    )
    return subprocess.run(
        [sys.executable, "-c", asked],
        env={key: value for key, value in os.environ.items() if "OPENSSL" not in key}
        | env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that is said."""
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def tools(tmp_path):
    """Return the only directory of the PATH, which has all that is needed."""
    for name in ("cargo", "cc", "perl", "make"):
        script(tmp_path / name, "")
    script(tmp_path / "rustc", "echo 'rustc 1.85.0 (abc 2025-01-01)'")
    script(tmp_path / "pkg-config", "echo 3.0.17")
    return tmp_path


def script(place: Path, text: str) -> None:
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)


def test_where_nothing_is_missing_nothing_is_said(tools):
    done = ask(PATH=str(tools))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_all_that_is_missing_is_named_in_one_sentence(tmp_path):
    said = refused(ask(PATH=str(tmp_path)))
    assert said.startswith(f"there is no wheel of poolproof for CPython {THIS} on ")
    assert "Rust 1.85 or newer, https://rustup.rs; a C compiler; OpenSSL's h" in said


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("rustc", "Rust 1.85"),
        ("cargo", "Rust 1.85"),
        ("cc", "a C compiler"),
        ("pkg-config", "OpenSSL's headers"),
    ],
)
def test_what_is_missing_alone_is_named_alone(tools, gone, named):
    (tools / gone).unlink()
    said = refused(ask(PATH=str(tools)))
    assert f"is missing here: {named}" in said


def test_a_rust_that_is_too_old_is_named(tools):
    """A distribution's own: cargo would speak of an edition that it does not know."""
    script(tools / "rustc", "echo 'rustc 1.63.0'")
    assert "Rust 1.85 or newer (this is 1.63)" in refused(ask(PATH=str(tools)))


def test_to_build_openssl_as_well_needs_other_tools(tools):
    (tools / "pkg-config").unlink()
    words = "--features vendored-openssl"
    assert ask(PATH=str(tools), MATURIN_PEP517_ARGS=words).returncode == 0
    (tools / "perl").unlink()
    said = refused(ask(settings={"build-args": words}, PATH=str(tools)))
    assert said.endswith("is missing here: perl")


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("sys.platform = 'win32'", "poolproof runs on Linux, and on macOS for devel"),
        ("sys.implementation.name = 'pypy'", "poolproof runs on CPython alone, and t"),
        ("sys.version_info = (3, 9, 1)", "poolproof needs Python 3.10 or newer, and t"),
        ("sys.version_info = (3, 16, 0)", "this poolproof knows Python up to 3.15, an"),
        (
            FREE.format(13),
            "poolproof cannot be built for the free-threaded CPython 3.13t",
        ),
    ],
)
def test_where_it_could_not_run_it_is_not_built(tools, first, said):
    assert refused(ask(first, PATH=str(tools))).startswith(said)


def test_a_free_threaded_python_is_called_so(tools):
    assert ask(FREE.format(14), PATH=str(tools)).returncode == 0
    (tools / "cc").unlink()
    said = refused(ask(FREE.format(14), PATH=str(tools)))
    assert said.startswith("there is no wheel of poolproof for CPython 3.14t on ")


def test_the_newest_python_that_it_builds_for_is_the_newest_that_is_declared():
    declared = (CHECKOUT / "pyproject.toml").read_text()
    minors = map(
        int, re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', declared)
    )
    backend = (CHECKOUT / "build_backend" / "poolproof_build.py").read_text()
    assert f"NEWEST = (3, {max(minors)})" in backend


def test_the_rust_that_it_asks_for_is_that_of_the_crate():
    """Said in two places, for neither may read the other."""
    manifest = (CHECKOUT / "Cargo.toml").read_text()
    backend = (CHECKOUT / "build_backend" / "poolproof_build.py").read_text()
    (stated,) = (
        line for line in manifest.splitlines() if line.startswith("rust-version")
    )
    major, minor = stated.split('"')[1].split(".")
    assert f"RUST = ({major}, {minor})" in backend


@pytest.mark.skipif(shutil.which("uv") is None, reason="there is no uv here")
@pytest.mark.parametrize("kind", [(), ("--no-build-isolation",)])
def test_who_builds_from_source_meets_it(tmp_path, kind):
    """With all that an installer needs, and nothing that builds."""
    only = tmp_path / "bin"
    only.mkdir()
    uv = shutil.which("uv")
    assert uv is not None
    done = subprocess.run(
        [
            *(uv, "build", "--wheel", *kind, f"--python={sys.executable}"),
            *("--out-dir", str(tmp_path), str(CHECKOUT)),
        ],
        env=os.environ | {"PATH": str(only)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    assert "there is no wheel of poolproof for CPython" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
