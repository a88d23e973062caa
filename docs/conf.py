"""How Sphinx builds the documentation."""

from __future__ import annotations

import importlib.metadata
import logging

# Luigi says at its import which settings it has found.
logging.getLogger("luigi-interface").setLevel(logging.WARNING)

project = "poolproof"
author = "The poolproof authors"
project_copyright = "the poolproof authors"
release = version = importlib.metadata.version("poolproof")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
# In a docstring, `name` is a link where the name is ours, and code where it is not.
default_role = "py:obj"
nitpicky = True
# What the standard library, SQLAlchemy and the frameworks define is not looked up: that
# would need the network.
nitpick_ignore_regex = [("py:.*", r".*")]

autoclass_content = "both"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "notes_style")]
python_maximum_signature_line_length = 70

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# What is copied is what is typed: no prompt, no output.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"poolproof {version}"
html_static_path = ["_static"]
html_css_files = ["poolproof.css"]
html_js_files = ["tables.js"]
