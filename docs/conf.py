"""Settings of the documentation build."""

from importlib.metadata import version as installed_version

project = "pyrate-limiter"
copyright = "the pyrate-limiter contributors"  # noqa: A001 - Sphinx reads this name
author = "the pyrate-limiter contributors"
release = version = installed_version("pyrate-limiter")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "requirements.txt"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # the attributes of a NamedTuple would be described twice
# Docstrings write `name` for code.
default_role = "code"

html_theme = "furo"
html_title = f"pyrate-limiter {release}"
