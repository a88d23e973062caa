"""Check that the code keeps to its layers (docs/architecture.md).

    python tools/check_layers.py [ROOT]

Each rule is a function that is given a checkout and yields what breaks it.
Rust is read line by line with the comments taken out, Python by its syntax tree.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# What each part of the crate may use of the crate. Who is not named may use nothing.
RUST_USES = {
    "process": set[str](),
    "pool": {"process"},
    "socket": {"process"},
    "fault": set[str](),
    "wire": {"process", "socket", "fault", "conninfo"},
    "conninfo": set[str](),
    "control": {"process", "socket", "fault", "conninfo"},
    "py": {"process", "pool", "socket", "fault", "wire", "control", "conninfo"},
}
MAY_BE_UNSAFE = ("src/process.rs", "src/process/", "src/socket/")

# Python's layers, from what things mean to who uses them. A module may import what
# stands on its own line or above.
PYTHON_LAYERS = (
    (
        "_as_command",
        "_log",
        "_native",
        "_signal",
        "_sqlalchemy",
        "backend",
        "connect_bounds",
        "control_params",
        "drivers",
        "errors",
        "farewells",
        "faults",
        "lease_checks",
        "lease_blocks",
        "lease_log",
        "libpq_params",
        "listeners",
        "observe",
        "opened",
        "opening",
        "parameters",
        "pool_name",
        "settings",
        "sleepers",
        "sockets",
        "stats",
    ),
    (
        "aio",
        "answers",
        "async_heartbeat",
        "async_lease",
        "attempt",
        "auto",
        "commits",
        "connect_failure",
        "connecting",
        "control",
        "course",
        "deadlines",
        "discard_all",
        "dialect",
        "driver",
        "entry",
        "fork",
        "guard",
        "heartbeat",
        "holds",
        "keeper",
        "knobs",
        "lease",
        "lease_base",
        "lease_table",
        "nested",
        "notifier",
        "orm",
        "plugin",
        "pool",
        "rest",
        "retrying",
        "stranded",
        "transactions",
        "upkeep",
        "verbs",
    ),
    ("__init__", "__main__", "cli", "drill", "integrations"),
)
# These wrap the extension; everybody else imports them.
NATIVE_USERS = (
    "__init__",
    "connecting",
    "control",
    "deadlines",
    "entry",
    "faults",
    "fork",
    "heartbeat",
    "keeper",
    "lease_base",
    "lease_table",
    "libpq_params",
    "nested",
    "notifier",
    "opening",
    "pool",
    "sleepers",
    "sockets",
    "stranded",
    "upkeep",
    "verbs",
)

# Who may import the integrations: they themselves, and what is served as a user's
# application would be.
USES_INTEGRATIONS = ("integrations/", "drill/services/")

LONG = 400
WHY_LONG = re.compile("one (idea|table)")
HEADER_LINES = 30
CODE = ("src", "python", "tests", "bench", "tools")


class Breach(NamedTuple):
    """One place that breaks a rule."""

    path: Path
    line: int
    what: str


def check(root: Path) -> list[Breach]:
    """Return every breach in the checkout *root*, in order of place."""
    rules = (rust_layers, rust_unsafe, python_imports, length)
    return sorted(breach for rule in rules for breach in rule(root))


def rust_layers(root: Path) -> Iterator[Breach]:
    """PyO3 stays in src/py, tokio out of src/pool, and siblings do not meet."""
    for path in sorted((root / "src").rglob("*.rs")):
        inside = path.relative_to(root / "src")
        layer = inside.parts[0].removesuffix(".rs")
        depth = len(inside.parts) - (inside.name == "mod.rs")
        for number, line in _rust_code(path):
            if re.search(r"\bpyo3\b", line) and layer not in {"py", "lib"}:
                yield Breach(path, number, "pyo3 outside src/py and src/lib.rs")
            if re.search(r"\btokio", line) and layer == "pool":
                yield Breach(path, number, "tokio in src/pool")
            if layer == "lib":
                continue
            for used in _crate_modules(line, depth):
                if used in RUST_USES and used not in {layer, *RUST_USES[layer]}:
                    yield Breach(path, number, f"{layer} uses crate::{used}")


def rust_unsafe(root: Path) -> Iterator[Breach]:
    """`unsafe` stands in few files, and each one says why it is sound."""
    for path in sorted((root / "src").rglob("*.rs")):
        name = path.relative_to(root).as_posix()
        lines = path.read_text().splitlines()
        for number, line in _rust_code(path):
            if not re.search(r"\bunsafe\b", line):
                continue
            if not name.startswith(MAY_BE_UNSAFE):
                yield Breach(path, number, f"unsafe outside {', '.join(MAY_BE_UNSAFE)}")
            elif not _says_why_safe(lines, number - 1):
                yield Breach(path, number, "unsafe without a SAFETY comment above it")


def python_imports(root: Path) -> Iterator[Breach]:
    """Imports point down; few see the extension, and nobody the integrations."""
    package = root / "python" / "poolproof"
    rank = {name: n for n, layer in enumerate(PYTHON_LAYERS) for name in layer}
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        module = inside.parts[0].removesuffix(".py")
        uses_frameworks = inside.as_posix().startswith(USES_INTEGRATIONS)
        for number, imported in _imports(ast.parse(path.read_text())):
            if imported == "_native" and module not in NATIVE_USERS:
                yield Breach(path, number, f"{module} imports poolproof._native")
            if imported == "integrations" and not uses_frameworks:
                yield Breach(path, number, f"{module} imports poolproof.integrations")
            if imported not in rank:
                continue
            if module not in rank:
                yield Breach(path, number, f"{module} has no layer in PYTHON_LAYERS")
            elif rank[imported] > rank[module]:
                yield Breach(path, number, f"{module} imports poolproof.{imported}")


def length(root: Path) -> Iterator[Breach]:
    """A file of more than 400 lines says at its top why it is one idea."""
    for folder in CODE:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in {".py", ".pyi", ".rs"}:
                continue
            lines = path.read_text().splitlines()
            header = " ".join(lines[:HEADER_LINES]).lower()
            if len(lines) > LONG and not WHY_LONG.search(header):
                what = (
                    f"{len(lines)} lines, and its top does not say why it is one idea"
                )
                yield Breach(path, 1, what)


def _rust_code(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a Rust file without their comments."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        yield number, re.sub(r"//.*", "", line)


def _crate_modules(line: str, depth: int) -> Iterator[str]:
    """Yield the crate's modules that a line names.

    Args:
        line: A line of code.
        depth: How many `super` lead from the file's module to the crate.
    """
    crate = rf"\b(?:crate|super(?:::super){{{depth - 1}}})::"
    yield from re.findall(rf"{crate}(\w+)", line)
    for group in re.findall(rf"{crate}\{{([^}}]*)", line):
        yield from re.findall(r"(?:^|,)\s*(\w+)", group)


def _says_why_safe(lines: list[str], index: int) -> bool:
    """Say whether the comments above a line's statement, or on it, hold its reason."""
    reason = re.compile(r"SAFETY:|# Safety")
    while not reason.search(lines[index]):
        index -= 1
        line = lines[index].strip() if index >= 0 else ""
        if not line or (line[-1] in ";{}," and not line.startswith(("//", "#["))):
            return False
    return True


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and first part below `poolproof` of each import that runs."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "poolproof" and len(parts) > 1:
                yield node.lineno, parts[1]  # type: ignore[attr-defined]


def main(arguments: list[str]) -> int:
    """Print every breach; return 1 if there is one."""
    here = Path(__file__).resolve().parent.parent
    root = Path(arguments[0]).resolve() if arguments else here
    breaches = check(root)
    for path, line, what in breaches:
        print(f"{path.relative_to(root)}:{line}: {what}")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
