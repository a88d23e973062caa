"""An application's sources, read for what no running process shows.

What is found is where it stands, not that it runs: so it is likely, never certain.
"""

from __future__ import annotations

import ast
import dataclasses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Place", "asyncio_runs", "disposals", "engines_in_jobs"]

_MOST: Final = 2000
# Hooks by their own names (Gunicorn), and by what registers them (Celery, uWSGI, os).
_HOOK_NAMES: Final = {"post_fork", "post_worker_init", "child_init"}
_REGISTERS: Final = {"worker_process_init", "postfork", "uwsgi_postfork"}
# What is run for each request or task.
_ROUTES: Final = {
    *("route", "get", "post", "put", "delete", "patch"),
    *("task", "shared_task", "actor"),
}
_ENGINES: Final = {"create_engine", "create_async_engine", "engine_from_config"}
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where something stands.

    Attributes:
        file: The source file.
        line: The line, from 1.
        words: What stands there.
        inside: The function that it is in; empty outside of one.
        spares: Whether a `dispose` is told to close nothing.
    """

    file: str
    line: int
    words: str
    inside: str = ""
    spares: bool = False

    def __str__(self) -> str:
        where = f" in {self.inside}" if self.inside else ""
        return f"{self.file}:{self.line}: {self.words}{where}"


def disposals(sources: Iterable[Path]) -> Iterator[Place]:
    """Find every `dispose` in what runs in a child after a fork.

    Args:
        sources: The files.
    """
    for path, tree in _parsed(sources, "dispose"):
        registered = set(_registered(tree))
        for node in ast.walk(tree):
            if isinstance(node, _Function) and _is_hook(node, registered):
                yield from _disposed(path, node, node.name)
            elif isinstance(node, ast.Call):
                for given in _given_to_fork(node):
                    if isinstance(given, ast.Lambda):
                        yield from _disposed(path, given, "a lambda")
                    elif isinstance(given, ast.Attribute) and given.attr == "dispose":
                        words = ast.unparse(given)
                        yield Place(str(path), given.lineno, words, "register_at_fork")


def engines_in_jobs(sources: Iterable[Path]) -> Iterator[Place]:
    """Find engines that are made for each request or task.

    Args:
        sources: The files.
    """
    for path, function in _jobs(sources):
        for call in _calls(function):
            if _last(call.func) in _ENGINES:
                words = f"{_last(call.func)}(...)"
                yield Place(str(path), call.lineno, words, function.name)


def asyncio_runs(sources: Iterable[Path]) -> Iterator[Place]:
    """Find each `asyncio.run`, which has a loop of its own every time.

    Args:
        sources: The files.
    """
    for path, tree in _parsed(sources, "asyncio"):
        for node in ast.walk(tree):
            if isinstance(node, _Function):
                for call in _calls(node):
                    if ast.unparse(call.func) == "asyncio.run":
                        yield Place(str(path), call.lineno, "asyncio.run", node.name)


def _parsed(sources: Iterable[Path], *words: str) -> Iterator[tuple[Path, ast.Module]]:
    """Parse the files that have one of some words: few of many do."""
    for path in list(sources)[:_MOST]:
        try:
            text = path.read_text(encoding="utf-8")
            if any(word in text for word in words):
                yield path, ast.parse(text)
        except (OSError, SyntaxError, ValueError):
            continue  # of another Python, or no text


def _jobs(
    sources: Iterable[Path],
) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in _parsed(sources, *_ENGINES):
        for node in ast.walk(tree):
            if isinstance(node, _Function) and any(
                _last(one) in _ROUTES for one in node.decorator_list
            ):
                yield path, node


def _is_hook(
    node: ast.FunctionDef | ast.AsyncFunctionDef, registered: set[str]
) -> bool:
    return (
        node.name in _HOOK_NAMES
        or node.name in registered
        or any(_names(one) & _REGISTERS for one in node.decorator_list)
    )


def _registered(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions that are registered for the start of a child."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if _names(node.func) & _REGISTERS:
            yield from (one.id for one in node.args if isinstance(one, ast.Name))
        yield from (one.id for one in _given_to_fork(node) if isinstance(one, ast.Name))


def _given_to_fork(node: ast.Call) -> Iterator[ast.expr]:
    if _last(node.func) == "register_at_fork":
        for keyword in node.keywords:
            if keyword.arg == "after_in_child":
                yield keyword.value


def _disposed(path: Path, node: ast.AST, inside: str) -> Iterator[Place]:
    for call in _calls(node):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "dispose":
            spares = any(
                keyword.arg == "close"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value is False
                for keyword in call.keywords
            )
            yield Place(str(path), call.lineno, ast.unparse(call), inside, spares)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Call))


def _last(node: ast.expr) -> str:
    """Return the last name of what is called: ``route`` of ``@app.route("/")``."""
    while isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _names(node: ast.expr) -> set[str]:
    return {
        one.attr if isinstance(one, ast.Attribute) else one.id
        for one in ast.walk(node)
        if isinstance(one, (ast.Attribute, ast.Name))
    }
