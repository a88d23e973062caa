"""Two checkouts that share cargo's cache never get each other's build."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import build_cache  # noqa: E402 - found by the line above

MANIFEST = '[package]\nname = "poolproof"\nversion = "0.0.0"\nedition = "2021"\n'


def make_checkout(place: Path, says: str, *, age_s: int) -> Path:
    """Make a crate whose program prints a word, with files of a certain age."""
    (place / "src").mkdir(parents=True)
    (place / "Cargo.toml").write_text(MANIFEST)
    main = place / "src" / "main.rs"
    main.write_text(f'fn main() {{ println!("{says}"); }}\n')
    when = main.stat().st_mtime - age_s
    for file in (main, place / "Cargo.toml"):
        os.utime(file, (when, when))
    return place


@pytest.fixture
def run_in(monkeypatch, tmp_path):
    """Return a function that runs a checkout's program as the sessions would."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(checkout: Path) -> str:
        monkeypatch.setattr(build_cache, "CHECKOUT", checkout)
        with build_cache.target_directory("core") as target:
            done = subprocess.run(
                ["cargo", "run", "-q", "--offline", target.manifest],
                env=os.environ | target.environment,
                check=True,
                capture_output=True,
                text=True,
            )
        return done.stdout.strip()

    return run


def test_a_checkout_with_older_files_is_not_taken_for_built(run_in, tmp_path):
    older = make_checkout(tmp_path / "a", "older", age_s=3600)
    newer = make_checkout(tmp_path / "b", "newer", age_s=60)
    assert [run_in(place) for place in (newer, older, newer)] == [
        "newer",
        "older",
        "newer",
    ]


def test_an_edit_is_seen_whatever_the_file_time_says(run_in, tmp_path):
    checkout = make_checkout(tmp_path / "a", "before", age_s=3600)
    assert run_in(checkout) == "before"
    main = checkout / "src" / "main.rs"
    status = main.stat()
    main.write_text(main.read_text().replace("before", "behind"))
    os.utime(main, (status.st_atime, status.st_mtime))
    assert run_in(checkout) == "behind"


def test_an_edit_is_seen_though_the_clock_was_set_back(run_in, tmp_path):
    checkout = make_checkout(tmp_path / "a", "before", age_s=0)
    assert run_in(checkout) == "before"
    later = time.time() + 3600
    for file in (tmp_path / "cache").rglob("*"):
        os.utime(file, (later, later))
    main = checkout / "src" / "main.rs"
    main.write_text(main.read_text().replace("before", "behind"))
    assert run_in(checkout) == "behind"


def test_another_checkout_has_only_what_differs_written(run_in, tmp_path):
    one, other = (make_checkout(tmp_path / name, "same", age_s=0) for name in "ab")
    (one / "src" / "bin").mkdir()
    (one / "src" / "bin" / "gone.rs").write_text("fn main() {}")
    (one / "Cargo.toml").write_text(MANIFEST + 'default-run = "poolproof"\n')
    assert run_in(one) == "same"
    copy = tmp_path / "cache" / "poolproof" / "target" / "core" / "copy"
    times = {file: file.stat().st_mtime_ns for file in copy.rglob("*.*")}
    assert run_in(other) == "same"
    assert not (copy / "src" / "bin").exists()
    kept = (copy / "src" / "main.rs", copy / "Cargo.toml")
    assert [file.stat().st_mtime_ns == times[file] for file in kept] == [True, False]


def test_a_directory_is_held_by_one_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkout = make_checkout(tmp_path / "a", "word", age_s=0)
    monkeypatch.setattr(build_cache, "CHECKOUT", checkout)
    with build_cache.target_directory("core") as target:
        lock = Path(target.environment["CARGO_TARGET_DIR"] + ".lock")
        with lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def wheels(monkeypatch, tmp_path):
    """Return a function that builds a wheel if need be, and says whether it had to."""
    checkout = make_checkout(tmp_path / "a", "word", age_s=0)
    (checkout / "python").mkdir()
    (checkout / ".nox" / "built").mkdir(parents=True)
    monkeypatch.setattr(build_cache, "CHECKOUT", checkout)

    def build(*key: str, fails: bool = False) -> bool:
        with build_cache.wheel_directory("dev-cp313", *key) as (directory, found):
            if found is not None:
                return False
            assert not list(directory.glob("*.whl"))
            if fails:
                raise InterruptedError
            (directory / "one.whl").write_text("")
            return True

    return build


def test_a_wheel_is_built_once_for_all_sessions(wheels):
    assert wheels("options")
    assert not wheels("options")


def test_another_wheel_is_built_for_other_sources_or_options(wheels):
    assert wheels("options")
    assert wheels("others")
    module = build_cache.CHECKOUT / "python" / "module.py"
    module.write_text("one = 1")
    assert wheels("others")
    module.write_text("one = 2")
    assert wheels("others")
    (build_cache.CHECKOUT / "src" / "main.rs").write_text("fn main() {}")
    assert wheels("others")
    assert not wheels("others")


def test_a_build_that_failed_is_tried_again(wheels):
    assert wheels("options")
    with pytest.raises(InterruptedError):
        wheels("others", fails=True)
    assert wheels("options")
