"""The layer check finds each kind of breach when one is planted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tools"))

import check_layers  # noqa: E402 - found by the line above


def breaches(root: Path, files: dict[str, str]) -> list[str]:
    """Write *files* below *root* and return what is found, as 'path:line: what'."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [
        f"{breach.path.relative_to(root).as_posix()}:{breach.line}: {breach.what}"
        for breach in check_layers.check(root)
    ]


@pytest.mark.soak  # three seconds; the session `lint` runs the program itself
def test_this_checkout_keeps_to_its_layers() -> None:
    assert check_layers.check(CHECKOUT) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("src/pool/gate.rs", "use pyo3::prelude::*;\n", "pyo3 outside"),
        ("src/process/mod.rs", "fn f(_: pyo3::Python<'_>) {}\n", "pyo3 outside"),
        ("src/pool/gate.rs", "use tokio::sync::Mutex;\n", "tokio in src/pool"),
        ("src/pool/gate.rs", "use crate::socket::probe;\n", "uses crate::socket"),
        (
            "src/pool/gate.rs",
            "use crate::{process, fault};\n",
            "uses crate::fault",
        ),
        ("src/pool/gate.rs", "use super::super::py;\n", "pool uses crate::py"),
        ("src/pool/mod.rs", "use super::wire::Wire;\n", "pool uses crate::wire"),
        ("src/socket/probe.rs", "crate::pool::now();\n", "socket uses crate::pool"),
        ("src/fault/table.rs", "use crate::process;\n", "fault uses crate::process"),
        ("src/process/mod.rs", "use crate::pool;\n", "process uses crate::pool"),
        ("src/pool/gate.rs", "// SAFETY: no\nunsafe {}\n", "unsafe outside"),
        ("src/process/mod.rs", "fn f() {\n    unsafe {}\n}\n", "without a SAFETY"),
        ("src/process/mod.rs", "// SAFETY: one\nf();\nunsafe {}\n", "without a SAFETY"),
    ],
)
def test_a_breach_planted_in_the_crate_is_found(
    tmp_path: Path, name: str, text: str, found: str
) -> None:
    (breach,) = breaches(tmp_path, {name: text})
    assert breach.startswith(f"{name}:")
    assert found in breach


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {
                "src/pool/a.rs": "use super::b::{self, B};\n",
                "src/pool/b.rs": "fn f() { crate::pool::c::g(); }\n",
                "src/pool/c.rs": "use super::{a::A, d};\n",
                "src/pool/d.rs": "",
            },
            "a circle of files: pool/",
        ),
        (
            {
                "src/pool/a.rs": "pub struct Row;\n",
                "src/fault/b.rs": "pub enum Row {}\n",
            },
            "Row is the name of a type in",
        ),
    ],
)
def test_a_breach_between_files_of_the_crate_is_found(
    tmp_path: Path, files: dict[str, str], found: str
) -> None:
    (breach,) = breaches(tmp_path, files)
    assert found in breach


def test_what_the_crate_may_do_is_not_reported(tmp_path: Path) -> None:
    files = {
        "src/lib.rs": "#[pyo3::pymodule]\nmod _native {}\nuse crate::pool;\n",
        "src/py/gate.rs": "use pyo3::prelude::*;\nuse crate::{pool, process};\n",
        "src/pool/gate.rs": "// no pyo3 and no tokio here\nuse crate::process;\n",
        "src/pool/mod.rs": "pub mod gate;\npub use gate::Gate;\n",
        "src/pool/uses.rs": "use super::Gate;\n#[cfg(test)]\nmod t { super::x() }\n",
        "src/process/mod.rs": (
            "#![allow(unsafe_code)]\n"
            "// SAFETY: takes any integer.\n"
            "#[inline]\n"
            "fn f() { unsafe {} }\n"
            "// SAFETY: one statement may be several lines.\n"
            "let x = y\n"
            "    .z(|| unsafe {});\n"
            "/// # Safety\n"
            "/// Call it once.\n"
            "pub unsafe fn g() {}\n"
        ),
    }
    assert breaches(tmp_path, files) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("retry/a.py", "from poolproof import _native\n", "imports _native"),
        ("retry/a.py", "import poolproof._native as n\n", "imports _native"),
        ("retry/a.py", "from poolproof._native import Gate\n", "imports _native"),
        ("pool/a.py", "def f():\n    import poolproof.cli.app\n", "pool may not"),
        ("faults/a.py", "from poolproof.pool.b import Pool\n", "faults may not"),
        ("errors.py", "from poolproof.pool.b import Pool\n", ". may not"),
        ("retry/a.py", "from poolproof.leases import table\n", "retry may not"),
        ("plugin.py", "from poolproof.drill import run\n", "plugin may not"),
        ("pool/a.py", "from poolproof import Pool\n", "imports __init__: pool may"),
        (
            "errors.py",
            (
                "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n"
                "    from poolproof.pool.pool import Pool\n"
            ),
            ". may not",
        ),
        ("cli/app.py", "from poolproof.integrations import flask\n", "integrations"),
        (
            "drill/stage.py",
            "from poolproof.integrations import flask\n",
            "integrations",
        ),
        ("novel/a.py", "x = 1\n", "the folder novel has no place"),
        ("retry/a.py", "def f(pool):\n    pool._gate\n", "another's private name"),
    ],
)
def test_a_breach_planted_in_the_package_is_found(
    tmp_path: Path, name: str, text: str, found: str
) -> None:
    (breach,) = breaches(tmp_path, {f"python/poolproof/{name}": text})
    assert found in breach


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {
                "pool/a.py": "from poolproof.pool import b\n",
                "pool/b.py": "from poolproof.pool.c import d\n",
                "pool/c.py": "def d():\n    from poolproof.pool.a import e\n",
            },
            "a circle of files: pool/",
        ),
        (
            {"pool/a.py": "class Row: ...\n", "retry/b.py": "class Row: ...\n"},
            "Row is the name of a class of pool/a too",
        ),
        (
            {
                "pool/a.py": "class A:\n    def f(self):\n        self._gate = 1\n",
                "retry/b.py": "def f(pool):\n    return pool._gate\n",
            },
            "retry/b uses ._gate of pool",
        ),
        (
            {
                "drivers/a.py": "def f(c):\n    return hasattr(c, '_usock')\n",
                "fork/b.py": "def f(c):\n    return getattr(c, '_usock', None)\n",
            },
            "fork/b asks for _usock, which drivers/ knows of",
        ),
        (
            {"_native.pyi": "def f() -> tuple[int, int, int, int]: ...\n"},
            "a tuple of 4 values crosses the bridge",
        ),
        (
            {f"_{number}.py": "" for number in range(13)},
            "13 modules stand flat; 12 at most",
        ),
    ],
)
def test_a_breach_between_files_of_the_package_is_found(
    tmp_path: Path, files: dict[str, str], found: str
) -> None:
    inside = {f"python/poolproof/{name}": text for name, text in files.items()}
    (breach,) = breaches(tmp_path, inside)
    assert found in breach


SETTINGS = "class Settings:\n    max_idle: float\n    pre_ping: bool\n"
KNOBS = "# Knobs\n\n| knob | carried out in |\n|---|---|\n"
MAX_IDLE = "| `max_idle` | `pool/age.py` |\n"
PRE_PING = "| `pre_ping` | `pool/look.py`, `src/socket/probe.rs` |\n"
LOOK = "def f(pool):\n    return pool.settings.pre_ping\n"
UNNAMED = (
    "python/poolproof/{0}:2: {0} reads max_idle, and docs/knobs.md does not name it"
)
GONE = "src/socket/gone.rs does not exist, where pre_ping is to be carried out"
OF_KNOBS = {
    "docs/knobs.md": KNOBS + MAX_IDLE + PRE_PING,
    "src/socket/probe.rs": "",
    "python/poolproof/pool/settings.py": SETTINGS,
    "python/poolproof/pool/age.py": "def f(settings):\n    return settings.max_idle\n",
    "python/poolproof/pool/look.py": LOOK,
    # What only tells of a knob, and what bears its name, need not be named.
    "python/poolproof/cli/tell.py": LOOK,
    "python/poolproof/pool/pre_ping.py": LOOK,
}


def test_files_that_the_page_of_knobs_names_are_not_reported(tmp_path: Path) -> None:
    assert breaches(tmp_path, OF_KNOBS) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (
            "docs/knobs.md",
            KNOBS + PRE_PING,
            {
                "docs/knobs.md:1: the page does not say which files carry out max_idle",
                UNNAMED.format("pool/age.py"),
            },
        ),
        (
            "docs/knobs.md",
            KNOBS + MAX_IDLE + PRE_PING + "| `patience` | `pool/age.py` |\n",
            {
                "docs/knobs.md:7: patience is no knob",
                "docs/knobs.md:7: pool/age.py does not mention patience",
            },
        ),
        (
            "docs/knobs.md",
            KNOBS + MAX_IDLE + PRE_PING.replace("probe", "gone"),
            {f"docs/knobs.md:6: {GONE}"},
        ),
        (
            "docs/knobs.md",
            KNOBS
            + MAX_IDLE.replace("`pool/age.py`", "`pool/age.py`, `pool/look.py`")
            + PRE_PING,
            {"docs/knobs.md:5: pool/look.py does not mention max_idle"},
        ),
        (
            "python/poolproof/fork/b.py",
            "def f(entry):\n    return entry.owner.settings.max_idle\n",
            {UNNAMED.format("fork/b.py")},
        ),
    ],
)
def test_a_knob_that_the_page_places_wrongly_is_found(
    tmp_path: Path, name: str, text: str, found: set[str]
) -> None:
    assert set(breaches(tmp_path, {**OF_KNOBS, name: text})) == found


def test_what_the_package_may_do_is_not_reported(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from poolproof.pool.pool import Pool\n",
        "__main__.py": "from poolproof.cli.app import main\n",
        "_sqlalchemy.py": "NEEDED = ['Pool._dialect']\n",
        "pool/pool.py": (
            "from poolproof import _native, errors\n"
            "import poolproof.fork\n"
            "class Pool:\n"
            "    def f(self):\n"
            "        self._gate = self._dialect\n"
        ),
        "pool/slots.py": "def f(pool) -> tuple[int, int, int]:\n    pool._gate\n",
        "drivers/base.py": "def f(connection):\n    return connection._sock\n",
        "fork/__init__.py": "",
        "errors.py": "import os\nos._exit(0)\n",
        "cli/app.py": "from poolproof.drill import run\nfrom poolproof import Pool\n",
        "drill/services/shop.py": "from poolproof.integrations.flask import init_app\n",
    }
    inside = {f"python/poolproof/{name}": text for name, text in files.items()}
    assert breaches(tmp_path, inside) == []


@pytest.mark.parametrize("name", ["src/pool/gate.rs", "python/poolproof/pool.py"])
def test_a_long_file_must_say_why_it_is_one_idea(tmp_path: Path, name: str) -> None:
    comment = "//" if name.endswith(".rs") else "#"
    rest = f"{comment} more\n" * 400
    (breach,) = breaches(tmp_path, {name: f"{comment} A file.\n{rest}"})
    assert breach == f"{name}:1: 401 lines, and its top does not say why it is one idea"
    assert (
        breaches(tmp_path, {name: f"{comment} Long, as it is one idea.\n{rest}"}) == []
    )
