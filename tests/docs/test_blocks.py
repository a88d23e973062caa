"""What the documents show, runs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def load(name: str) -> ModuleType:
    """Import a module that stands beside this file, whatever the path is."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"tests_docs_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


blocks = load("blocks")
PAGES = {page.relative_to(blocks.CHECKOUT).as_posix(): page for page in blocks.pages()}
RUNNING = [
    name
    for name, page in PAGES.items()
    if any(block.runs for block in blocks.blocks(page) if block.language == "python")
]
SHELL = [
    name
    for name, page in PAGES.items()
    if any(block.runs for block in blocks.blocks(page) if block.language == "console")
]
LANGUAGES = {"python", "console", "text", "toml", "ini", "{toctree}", "{eval-rst}"}


@pytest.fixture(scope="module")
def reader() -> Iterator[Any]:
    """Start the process in whose children the documents run."""
    started = blocks.Reader()
    yield started
    started.close()


def run_alone(page: Path, netloc: str, place: Path) -> tuple[int, str]:
    """Run one document's blocks in an interpreter that has imported nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(blocks.__file__), str(page), netloc],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=place,
        env=blocks.environment(),
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", sorted({*RUNNING, *SHELL}))
def test_every_block_of_a_document_runs(
    name: str, pg: Any, reader: Any, tmp_path: Path
) -> None:
    url = pg.url("psycopg2")
    netloc = f"{url.username}@{url.host}:{url.port}/{url.database}"
    page = PAGES[name]
    # What is patched must not have been imported.
    run = run_alone if "patch_all()" in page.read_text() else reader.read
    status, said = run(page, netloc, tmp_path)
    assert status == 0, said
    # What a destructor says does not change the status.
    assert "Exception ignored" not in said


def test_the_front_door_and_the_quick_start_have_blocks_that_run() -> None:
    assert {"README.md", "docs/quickstart.md", "docs/testing.md"} <= set(RUNNING)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_block_names_a_language_that_is_known(name: str) -> None:
    languages = {block.language for block in blocks.blocks(PAGES[name])}
    assert languages <= LANGUAGES


@pytest.mark.parametrize("way", ["reader", "alone"])
def test_a_block_that_fails_is_noticed(way: str, reader: Any, tmp_path: Path) -> None:
    run = {"reader": reader.read, "alone": run_alone}[way]
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n"
    )
    status, said = run(page, "", tmp_path)
    assert status != 0
    assert 'page.md", line 8' in said


def test_what_a_destructor_says_at_the_end_is_heard(
    reader: Any, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n```python\nclass Late:\n    def __del__(self):\n"
        "        raise ValueError\n\n\nlate = Late()\n```\n"
    )
    status, said = reader.read(page, "", tmp_path)
    assert status == 0
    assert "Exception ignored" in said


def test_only_a_reason_keeps_a_block_from_running(reader: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    block = "```console\n$ false\n```\n"
    page.write_text(f"<!-- not run: it fails -->\n{block}")
    assert reader.read(page, "", tmp_path)[0] == 0
    page.write_text(f"<!-- not run: -->\n{block}")
    assert reader.read(page, "", tmp_path)[0] != 0
