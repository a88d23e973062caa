"""Make a release of what is committed: changelog, version, checks, a tag. Push nothing.

    python tools/release.py version
    python tools/release.py make X.Y.Z [COMMAND …]

`make` turns the fragments of changelog.d into CHANGELOG.md, sets the version, runs each
COMMAND (one word), commits and tags. Where one fails the checkout stays as it was.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

FORM = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
MANIFEST = Path("Cargo.toml")
LOCK = Path("Cargo.lock")
FRAGMENTS = Path("changelog.d")
# Of our package alone: those of others stand in tables of their own.
IN_MANIFEST = re.compile(
    r'(?<=^\[package\]\nname = "poolproof"\nversion = ")[^"]+', re.MULTILINE
)
IN_LOCK = re.compile(r'(?<=^name = "poolproof"\nversion = ")[^"]+', re.MULTILINE)


class RefusedError(Exception):
    """There can be no such release; the message says why."""


def main(words: list[str]) -> None:
    """Do what the command line says.

    Exits with 2 and one line where there can be no such release, with 1 where a check
    has failed.
    """
    match words:
        case ["version"]:
            print(current())
        case ["make", version, *commands]:
            try:
                refuse(version)
                status = make(version, commands)
            except RefusedError as error:
                print(f"release: {error}", file=sys.stderr)
                status = 2
            except subprocess.CalledProcessError as error:
                print(f"release: {error}", file=sys.stderr)
                status = 1
            sys.exit(status)
        case _:
            sys.exit(str(__doc__))


def current() -> str:
    """Return the version that Cargo.toml states."""
    found = IN_MANIFEST.search(MANIFEST.read_text())
    if found is None:
        raise RefusedError(f"no version of poolproof in {MANIFEST}")
    return found[0]


def refuse(version: str) -> None:
    """Refuse what cannot be released.

    Raises:
        RefusedError: It is no version, not a newer one, or not all is committed.
    """
    if not FORM.fullmatch(version):
        raise RefusedError(f"{version!r} is no version; say VERSION=1.2.3")
    released = git("tag", "--list", "v*").split()
    if f"v{version}" in released:
        raise RefusedError(f"there is a tag v{version} already")
    last = max(
        (key(tag[1:]) for tag in released if FORM.fullmatch(tag[1:])), default=()
    )
    if key(version) <= last or key(version) < key(current()):
        newest = max(".".join(map(str, last)), current())
        raise RefusedError(f"{version} is not newer than {newest}")
    if git("status", "--porcelain").strip():
        raise RefusedError("not all is committed: git status")
    if not list(FRAGMENTS.glob("*.*.md")):
        raise RefusedError(f"nothing to tell: no fragments in {FRAGMENTS}")


def key(version: str) -> tuple[int, ...]:
    """Return what orders versions."""
    return tuple(map(int, version.split(".")))


def make(version: str, commands: list[str]) -> int:
    """Make the release, and return the exit status."""
    done = False
    try:
        prepare(version)
        for command in commands:
            print(f"release: {command}", flush=True)
            # A check that changes a file is told by the commit's own look below.
            if subprocess.run(shlex.split(command), check=False).returncode:
                print(f"release: {command} failed: no release", file=sys.stderr)
                return 1
        git("commit", "-q", "-m", f"Release {version}")
        git("tag", "-a", f"v{version}", "-m", f"poolproof {version}")
        done = True
    finally:
        if not done:
            # All was committed before, so there is nothing else to lose.
            git("reset", "-q", "--hard", "HEAD")
    print(
        f"release: {version} is committed and tagged. Look at it (git show), then "
        f"git push --atomic origin HEAD v{version}"
    )
    return 0


def prepare(version: str) -> None:
    """Write the changelog and the version, and stage both."""
    for path, pattern in ((MANIFEST, IN_MANIFEST), (LOCK, IN_LOCK)):
        text, count = pattern.subn(version, path.read_text())
        if count != 1:
            raise RefusedError(f"{count} versions of poolproof in {path}")
        path.write_text(text)
    run(sys.executable, "-m", "towncrier", "build", "--yes", f"--version={version}")
    git("add", str(MANIFEST), str(LOCK), "CHANGELOG.md")


def git(*words: str) -> str:
    """Run git and return what it prints."""
    return run("git", *words)


def run(*command: str) -> str:
    """Run a command and return what it prints; what it says of an error is shown."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
