"""The typed examples leave no public name out."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import poolproof


@pytest.mark.parametrize("name", poolproof.__all__)
def test_every_public_name_is_used_in_typed_code(name: str) -> None:
    text = Path(__file__).with_name("api.py").read_text()
    assert f"poolproof.{name}" in text


@pytest.mark.parametrize("name", poolproof.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert hasattr(poolproof, name)


@pytest.mark.parametrize(
    ("module", "name_there"),
    [("flask", "flask_integration"), ("gunicorn", "gunicorn_hooks")],
)
def test_every_public_name_of_an_integration_is_used(
    module: str, name_there: str
) -> None:
    text = Path(__file__).with_name("api.py").read_text()
    integration = importlib.import_module(f"poolproof.integrations.{module}")
    for name in integration.__all__:
        assert f"{name_there}.{name}(" in text
