"""How Sphinx builds the documentation."""

from __future__ import annotations

import importlib.metadata

project = "poolproof"
author = "The poolproof authors"
project_copyright = "the poolproof authors"
release = version = importlib.metadata.version("poolproof")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"poolproof {version}"
