"""Settings of Sphinx. `make docs` builds the site into build/docs, with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generate import foreign_requests, generate  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.errors import SphinxError  # noqa: E402

from distgan import __version__  # noqa: E402

project = "distgan"
author = "the distgan authors"
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_generated"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"distgan {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = html_copy_source = html_show_copyright = False
smartquotes = False  # it turns --option into one that nobody can copy
nitpicky = True

generate(HERE / "_generated")


def setup(app: Sphinx) -> None:
    app.connect("build-finished", _check_requests)


def _check_requests(app: Sphinx, error: Exception | None) -> None:
    """No page loads anything from another host."""
    found = [] if error else foreign_requests(Path(app.outdir))
    if found:
        raise SphinxError(f"pages load from other hosts: {', '.join(found)}")
