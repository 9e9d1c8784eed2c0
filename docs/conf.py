"""Sphinx configuration: see CONTRIBUTING.rst, `make docs`."""

import re
from importlib import import_module
from pathlib import Path

from sphinx.util import logging
from sphinx_gallery.sorting import ExplicitOrder

import sklearn_nsgf

project = "sklearn-nsgf"
author = "the sklearn-nsgf developers"
copyright = f"2026, {author}"
version = release = sklearn_nsgf.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "_templates",
    # Fragments that other pages include.
    "_*.rst",
    "auto_examples/**.ipynb",
    "auto_examples/**.py",
]
# What single backticks mean in the docstrings.
default_role = "literal"

autosummary_generate = True
# A network's `forward` would otherwise show what torch says to authors of modules.
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
# The templates list the members.
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = f"sklearn-nsgf {version}"
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 4,
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_end": [],
}
# A page that stands alone in the navigation has an empty sidebar otherwise.
_SINGLE_PAGES = ("quick_start", "benchmarks", "peers", "faq", "glossary", "changelog")
html_sidebars = {page: [] for page in _SINGLE_PAGES}

# The sections of the gallery and their pages, in the order in which they are read.
GALLERY = {
    "images": ["color_transfer", "digits", "conditional_digits", "style_transfer"],
    "tables": ["tables", "few_rows"],
    "cells": [],
    "embeddings": [],
    "pipelines": ["domain_adaptation"],
    "howto": ["two_moons", "trajectories", "sinkhorn_tolerance"],
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "subsection_order": ExplicitOrder([f"../examples/{section}" for section in GALLERY]),
    "within_subsection_order": ExplicitOrder(
        [f"plot_{page}.py" for pages in GALLERY.values() for page in pages]
    ),
    "doc_module": ("sklearn_nsgf",),
    "reference_url": {"sklearn_nsgf": None},
    "show_memory": False,
    "download_all_examples": False,
}


def skip_foreign_members(app, what, name, obj, skip, options):
    """Leave out what is documented elsewhere.

    A NamedTuple's docstring has its fields; scikit-learn's docstrings refer to its own pages.
    """
    is_field = type(obj).__name__ == "_tuplegetter"
    is_scikit_learn = (getattr(obj, "__module__", None) or "").startswith("sklearn.")
    return True if is_field or is_scikit_learn else None


def check_reference(app):
    """Warn about public names that the reference lacks."""
    listed = set(re.findall(r"^   (\w+)$", Path(app.srcdir, "reference.rst").read_text(), re.M))
    for name in (
        "sklearn_nsgf",
        "sklearn_nsgf.domains",
        "sklearn_nsgf.flow",
        "sklearn_nsgf.inspection",
        "sklearn_nsgf.metrics",
        "sklearn_nsgf.networks",
    ):
        missing = set(import_module(name).__all__) - listed - {"__version__"}
        if missing:
            logging.getLogger(__name__).warning(
                "reference.rst lacks %s of %s", ", ".join(sorted(missing)), name
            )


def setup(app):
    app.connect("autodoc-skip-member", skip_foreign_members)
    app.connect("builder-inited", check_reference)
