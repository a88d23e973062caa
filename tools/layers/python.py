"""The rules of the package: who may import whom, and whose names are private."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from typing import TYPE_CHECKING

from layers.breach import Breach, circle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FOLDERS", "rules"]

# Who may import whom: a folder, those to its left. `.` is what stands flat: errors, and
# names that begin with an underscore. What is not named here is `poolproof` itself and
# the two ways of switching it on, which may import what they like but for `LAST`.
FOLDERS: dict[str, set[str]] = {
    ".": set(),
    "drivers": {"."},
    "driver": {".", "drivers"},
    "fork": {".", "drivers"},
    "faults": {".", "drivers", "fork"},
    "control": {".", "drivers", "fork"},
    "pool": {".", "drivers", "fork", "faults", "control"},
    "dialect": {".", "driver", "drivers", "fork", "faults", "control", "pool"},
    "leases": {".", "drivers", "fork", "faults", "control"},
    "retry": {".", "drivers", "fork", "faults", "control", "pool"},
    "metrics": {
        *(".", "drivers", "fork", "faults", "control", "pool", "leases", "retry"),
    },
    "doctor": {
        *(".", "drivers", "fork", "faults", "control", "pool", "leases", "metrics"),
    },
}
SWITCHES = {"__init__", "__main__", "auto", "plugin"}
LAST = {"integrations", "drill", "cli", "testing", "watch"}
FLAT_MOST = 12
# These wrap the extension; the others import them.
NATIVE_USERS = {"__init__", "_cooperative", "_counts", *FOLDERS}
NATIVE_USERS -= {".", "dialect", "retry", "doctor"}
# Who may import the integrations: they themselves, and what is served as a user's
# application would be.
USES_INTEGRATIONS = ("integrations/", "drill/services/")
# Names of Python's own library that only look private, and of celery's proxies.
STANDARD = {
    "_asdict",
    "_fields",
    "_current_frames",
    "_exit",
    "_get_current_object",
    "_getframe",
}
# Whose private attributes are those of a driver's connection, not SQLAlchemy's.
KNOWS_DRIVERS = ("drivers/",)


class _Module:
    """One file of the package."""

    def __init__(self, package: Path, path: Path) -> None:
        self.path = path
        self.inside = path.relative_to(package).as_posix()
        self.name = self.inside.removesuffix(".py")
        folder, slash, _ = self.name.partition("/")
        self.folder = folder if slash or folder in SWITCHES else "."
        self.tree = ast.parse(path.read_text())

    @cached_property
    def imports(self) -> list[tuple[int, str, str]]:
        """Line, module below `poolproof`, and name of each import, run or not."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                found += [(node.lineno, module, alias.name) for alias in node.names]
        return [
            (line, module.removeprefix("poolproof").lstrip(".").replace(".", "/"), name)
            for line, module, name in found
            if module.split(".")[0] == "poolproof"
        ]


class _Package:
    """All files of the package, read once."""

    def __init__(self, root: Path) -> None:
        self.path = root / "python" / "poolproof"
        self.modules = {
            module.name: module
            for path in sorted(self.path.rglob("*.py"))
            for module in [_Module(self.path, path)]
        }

    def used(self, module: str, name: str) -> str:
        """Return the file that an import leads to."""
        longer = f"{module}/{name}".lstrip("/")
        if longer.startswith("_native"):
            return "_native"
        for found in (longer, f"{longer}/__init__", module, f"{module}/__init__"):
            if found in self.modules:
                return found
        return module or "__init__"

    @cached_property
    def graph(self) -> dict[str, dict[str, int]]:
        """Say for each file which it uses, and in which line first."""
        graph: dict[str, dict[str, int]] = {}
        for module in self.modules.values():
            uses = graph.setdefault(module.name, {})
            for line, imported, name in module.imports:
                used = self.used(imported, name)
                if used != module.name:
                    uses.setdefault(used, line)
        return graph


def rules(root: Path) -> Iterator[Breach]:
    """Yield what breaks a rule of the package.

    Args:
        root: The checkout.
    """
    package = _Package(root)
    names = (_private, _of_drivers)
    for rule in (_folders, _native, _circle, _flat, _classes, *names, _tuples):
        yield from rule(package)


def _folders(package: _Package) -> Iterator[Breach]:
    """Imports point left, those for types too."""
    for module in package.modules.values():
        for used, line in package.graph[module.name].items():
            folder = _folder(package, used)
            if not _may(module.folder, folder):
                what = f"{module.name} imports {used}: {module.folder} may not"
                yield Breach(module.path, line, what)
            elif folder == "integrations" and not module.inside.startswith(
                USES_INTEGRATIONS
            ):
                yield Breach(module.path, line, f"{module.name} imports {used}")
        if module.folder not in {*FOLDERS, *SWITCHES, *LAST}:
            what = f"the folder {module.folder} has no place in FOLDERS"
            yield Breach(module.path, 1, what)


def _folder(package: _Package, used: str) -> str:
    known = package.modules.get(used)
    return known.folder if known else used.split("/", maxsplit=1)[0]


def _may(folder: str, other: str) -> bool:
    if other in {folder, "_native", "."}:
        return True
    if folder in FOLDERS:
        return other in FOLDERS[folder]
    if folder in SWITCHES:
        return other not in LAST or (folder, other) == ("__main__", "cli")
    return True


def _native(package: _Package) -> Iterator[Breach]:
    """Few see the extension."""
    for module in package.modules.values():
        name = module.folder if "/" in module.name else module.name
        if name in NATIVE_USERS:
            continue
        for line, imported, what in module.imports:
            if "_native" in {imported, what}:
                yield Breach(module.path, line, f"{module.name} imports _native")


def _circle(package: _Package) -> Iterator[Breach]:
    if found := circle(package.graph):
        path = package.modules[found[0]].path
        yield Breach(path, 1, f"a circle of files: {' > '.join(found)}")


def _flat(package: _Package) -> Iterator[Breach]:
    flat = [name for name in package.modules if "/" not in name]
    if len(flat) > FLAT_MOST:
        what = f"{len(flat)} modules stand flat; {FLAT_MOST} at most"
        yield Breach(package.path / "__init__.py", 1, what)


def _classes(package: _Package) -> Iterator[Breach]:
    """No two public classes of one name."""
    seen: dict[str, str] = {}
    for module in package.modules.values():
        for node in module.tree.body:
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            first = seen.setdefault(node.name, module.name)
            if first != module.name:
                what = f"{node.name} is the name of a class of {first} too"
                yield Breach(module.path, node.lineno, what)


def _private(package: _Package) -> Iterator[Breach]:
    """A private attribute is its folder's; SQLAlchemy's stand in _sqlalchemy.py."""
    owners: dict[str, set[str]] = {}
    flat = package.modules.get("_sqlalchemy")
    for module in package.modules.values():
        for name in () if module is flat else _defined(module.tree):
            owners.setdefault(name, set()).add(module.folder)
    listed = set(re.findall(r"\b_[a-z]\w*", flat.path.read_text())) if flat else set()
    for module in package.modules.values():
        if module.inside.startswith(KNOWS_DRIVERS) or module is flat:
            continue
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Attribute) or not _is_private(node.attr):
                continue
            name = node.attr
            if name in listed or name in STANDARD:
                continue
            if name in owners:
                if module.folder not in owners[name] and not _is_self(node.value):
                    whose = ", ".join(sorted(owners[name]))
                    what = f"{module.name} uses .{name} of {whose}"
                    yield Breach(module.path, node.lineno, what)
            else:
                what = f".{name} is another's private name, not in _sqlalchemy.py"
                yield Breach(module.path, node.lineno, what)


def _of_drivers(package: _Package) -> Iterator[Breach]:
    """What a driver calls its private parts stands in drivers/, in a text too."""
    theirs: set[str] = set()
    ours: set[str] = set()
    for module in package.modules.values():
        ours.update(_defined(module.tree))
        if module.inside.startswith(KNOWS_DRIVERS):
            theirs.update(name for _, name in _named(module.tree))
    for module in package.modules.values():
        if module.inside.startswith(KNOWS_DRIVERS):
            continue
        for line, name in _named(module.tree):
            if name in theirs - ours:
                what = f"{module.name} asks for {name}, which drivers/ knows of"
                yield Breach(module.path, line, what)


def _named(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the private names that getattr and hasattr are given, with their lines."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"getattr", "hasattr"}
        ):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant) and _is_private(
                    str(argument.value)
                ):
                    yield node.lineno, str(argument.value)


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file gives to its objects, its classes and itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _assigned(node.body)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and _is_self(node.value)
        ):
            yield node.attr
    yield from _assigned(tree.body)


def _assigned(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that are bound in a class or a module, those of slots too."""
    for line in body:
        if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield line.name
        elif isinstance(line, ast.Assign | ast.AnnAssign):
            for one in ast.walk(line):
                if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                    yield one.id
                elif isinstance(one, ast.Constant) and isinstance(one.value, str):
                    yield one.value  # of __slots__


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _tuples(package: _Package) -> Iterator[Breach]:
    """Over the bridge at most three values travel as a tuple."""
    path = package.path / "_native.pyi"
    if not path.exists():
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id == "tuple"
            and isinstance(node.slice, ast.Tuple)
            and len(node.slice.elts) > 3  # noqa: PLR2004 - the rule's number
        ):
            what = f"a tuple of {len(node.slice.elts)} values crosses the bridge"
            yield Breach(path, node.lineno, what)
