"""`make release` on a clone, without its long checks: what it writes, and refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "CHANGELOG.md")

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


@pytest.fixture
def clone(tmp_path):
    """Return a repository of what a release touches, as it is in the checkout."""
    place = tmp_path / "clone"
    place.mkdir()
    for name in NEEDED:
        shutil.copy(CHECKOUT / name, place)
    fragments = place / "changelog.d"
    fragments.mkdir()
    shutil.copy(CHECKOUT / "changelog.d" / "README.md", fragments)
    (fragments / "+first.added.md").write_text("The first thing.\n")
    (fragments / "17.fixed.md").write_text("The second thing.\n")
    git(place, "init", "-q")
    commit(place, "Begin")
    return place


def git(place: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    command = ["git", *who, *words]
    return subprocess.run(
        command, cwd=place, check=True, capture_output=True, text=True
    ).stdout


def commit(place: Path, subject: str) -> None:
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", subject)


def release(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "tools" / "release.py", *words],
        cwd=place,
        env=os.environ
        | {
            f"GIT_{who}_{what}": "a@b.invalid"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_release_has_changelog_version_and_tag(clone):
    seen = f"{sys.executable} -c \"print(open('Cargo.toml').read().count('9.8.7'))\""
    done = release(clone, "make", "9.8.7", seen)
    assert done.returncode == 0, done.stderr
    assert "1\n" in done.stdout  # the checks run on what is released
    assert "git push" in done.stdout
    assert release(clone, "version").stdout == "9.8.7\n"
    assert (
        'name = "poolproof"\nversion = "9.8.7"\n' in (clone / "Cargo.lock").read_text()
    )
    changelog = (clone / "CHANGELOG.md").read_text()
    assert "## 9.8.7 (" in changelog
    assert "The first thing." in changelog
    assert "The second thing. (#17)" in changelog
    assert [path.name for path in (clone / "changelog.d").iterdir()] == ["README.md"]
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "describe").strip() == "v9.8.7"
    assert git(clone, "log", "-1", "--format=%s").strip() == "Release 9.8.7"


def test_a_check_that_fails_leaves_all_as_it_was(clone):
    before = git(clone, "rev-parse", "HEAD")
    done = release(clone, "make", "9.8.7", "true", "false")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "release: false failed: no release"
    assert git(clone, "rev-parse", "HEAD") == before
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "tag") == ""
    assert (clone / "changelog.d" / "17.fixed.md").exists()


def refused(place: Path, version: str) -> str:
    """Return the one line of a refusal."""
    done = release(place, "make", version, "touch reached")
    assert done.returncode == 2, done
    assert not (place / "reached").exists()
    (line,) = done.stderr.splitlines()
    return line.removeprefix("release: ")


def test_what_cannot_be_released_is_refused_in_one_line(clone):
    assert refused(clone, "") == "'' is no version; say VERSION=1.2.3"
    assert refused(clone, "1.2").startswith("'1.2' is no version")
    assert refused(clone, "0.0.1").startswith("0.0.1 is not newer than ")
    (clone / "new").touch()
    assert refused(clone, "9.8.7") == "not all is committed: git status"
    (clone / "new").unlink()
    git(clone, "tag", "v9.8.7")
    assert refused(clone, "9.8.7") == "there is a tag v9.8.7 already"
    assert refused(clone, "9.8.6") == "9.8.6 is not newer than 9.8.7"
    for fragment in (clone / "changelog.d").glob("*.*.md"):
        fragment.unlink()
    commit(clone, "Tell nothing")
    assert refused(clone, "9.9.0").startswith("nothing to tell")
