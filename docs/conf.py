"""Sphinx's settings of these pages: `make docs` builds them, strictly, and asks no network."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from ptft import __version__  # noqa: E402 (found by the line above)

project = "ptft"
version = release = __version__
copyright = ""  # noqa: A001 (Sphinx's name); Apache-2.0, said in the README
html_show_copyright = False
html_show_sphinx = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["*.py"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
smartquotes = False  # --resume is two dashes

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
add_module_names = False

html_theme = "furo"
html_title = f"ptft {version}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}
