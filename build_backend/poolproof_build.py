"""What pip calls to build poolproof where there is no wheel: maturin, after a look.

Where something is missing, or the pool cannot run at all, pip shows the one sentence
that says so; without it, a compiler's last words, or a toolchain that is fetched
unasked. What maturin builds by itself, for a release or in a checkout, passes by here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Settings = dict[str, Any] | None

RUST = (1, 85)  # as in Cargo.toml
# As in pyproject.toml's classifiers. PyO3 knows no newer one, and would say so after
# half of what it needs is compiled.
NEWEST = (3, 15)
# PyO3 knows none of the free-threaded ones before it.
FIRST_FREE = (3, 14)


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Look whether it can be built here; then what maturin says."""
    maturin = maturin_after_a_look(config_settings)
    return list(maturin.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Look whether it can be built here; then what maturin says."""
    maturin = maturin_after_a_look(config_settings)
    return list(maturin.get_requires_for_build_editable(config_settings))


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """Return what maturin says: nothing is compiled."""
    import maturin

    return list(maturin.get_requires_for_build_sdist(config_settings))


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Settings = None
) -> str:
    """Do as maturin does, after a look: who builds without isolation begins here."""
    maturin = maturin_after_a_look(config_settings)
    return str(
        maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)
    )


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    """Do as maturin does, after a look."""
    maturin = maturin_after_a_look(config_settings)
    return str(
        maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
    )


def build_editable(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    """Do as maturin does, after a look."""
    maturin = maturin_after_a_look(config_settings)
    return str(
        maturin.build_editable(wheel_directory, config_settings, metadata_directory)
    )


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Do as maturin does."""
    import maturin

    return str(maturin.build_sdist(sdist_directory, config_settings))


def maturin_after_a_look(config_settings: Settings) -> Any:
    """Return maturin; end with one sentence where it cannot be built, or not run."""
    if sys.implementation.name != "cpython":
        sys.exit(
            f"poolproof runs on CPython alone, and this is {sys.implementation.name}"
        )
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < (3, 10):
        sys.exit(f"poolproof needs Python 3.10 or newer, and this is {version}")
    if sys.version_info[:2] > NEWEST:
        sys.exit(
            f"this poolproof knows Python up to {NEWEST[0]}.{NEWEST[1]}, and this is "
            f"{version}: take a newer poolproof, or an older Python"
        )
    if sys.platform not in {"linux", "darwin"}:
        sys.exit(
            f"poolproof runs on Linux, and on macOS for development; "
            f"{sys.platform} has no fork, and no socket to sever"
        )
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        version += "t"
        if sys.version_info[:2] < FIRST_FREE:
            sys.exit(
                f"poolproof cannot be built for the free-threaded CPython {version}: "
                f"take {version[:-1]}, or {FIRST_FREE[0]}.{FIRST_FREE[1]}t or newer"
            )
    missing = find_missing(arguments_of(config_settings))
    if missing:
        sys.exit(
            f"there is no wheel of poolproof for CPython {version} on "
            f"{sys.platform} {platform.machine()}, and what builds one is missing "
            f"here: {'; '.join(missing)}"
        )
    import maturin

    return maturin


def arguments_of(config_settings: Settings) -> str:
    """Return what maturin is told beside its command."""
    told = (config_settings or {}).get("build-args")
    return str(told or os.environ.get("MATURIN_PEP517_ARGS", ""))


def find_missing(arguments: str) -> list[str]:
    """Say what is missing here of what builds it, and where it is had."""
    missing = []
    rust = rust_version()
    if rust is None or rust < RUST or shutil.which("cargo") is None:
        seen = "" if rust is None else f" (this is {rust[0]}.{rust[1]})"
        missing.append(f"Rust {RUST[0]}.{RUST[1]} or newer{seen}, https://rustup.rs")
    named = os.environ.get("CC", "").split()[:1]
    if not any(map(shutil.which, named or ("cc", "gcc", "clang"))):
        missing.append("a C compiler")
    if "vendored-openssl" in arguments:
        missing += [tool for tool in ("perl", "make") if shutil.which(tool) is None]
    elif sys.platform == "linux" and not has_openssl():
        missing.append(
            "OpenSSL's headers and pkg-config (Debian: libssl-dev pkg-config), unless "
            'MATURIN_PEP517_ARGS="--features vendored-openssl" is set, which builds it'
        )
    return missing


def rust_version() -> tuple[int, int] | None:
    """Return which Rust there is, None for none that runs."""
    found = re.match(r"rustc (\d+)\.(\d+)", said_by("rustc", "--version"))
    return None if found is None else (int(found[1]), int(found[2]))


def has_openssl() -> bool:
    """Say whether openssl-sys will find OpenSSL, as it looks for it on Linux."""
    if os.environ.get("OPENSSL_DIR") or os.environ.get("OPENSSL_LIB_DIR"):
        return True
    return bool(said_by("pkg-config", "--modversion", "openssl"))


def said_by(*command: str) -> str:
    """Return what a program prints, nothing where it fails or is not there."""
    try:
        done = subprocess.run(  # noqa: S603 - of this file's own words
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
