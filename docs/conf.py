"""The documentation site: `make docs-site` builds it, and any warning, a broken link or anchor among them, fails."""

project = "heap_assets"
author = "The heap_assets contributors"
copyright = "the heap_assets contributors; Apache-2.0"
extensions = ["myst_parser"]
exclude_patterns = ["_site"]
myst_heading_anchors = 4  # the fragments that GitHub gives the same headings
html_theme = "furo"
html_title = "heap_assets"
html_show_sourcelink = False
html_copy_source = False
nitpicky = True
