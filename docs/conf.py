"""Sphinx configuration: see CONTRIBUTING.rst, `make docs`."""

import re
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass, isroutine
from pathlib import Path

from sphinx.util import logging
from sphinx.util.fileutil import copy_asset
from sphinx_gallery.sorting import ExplicitOrder

import sklearn_nsgf

project = "sklearn-nsgf"
author = "the sklearn-nsgf developers"
copyright = f"2026, {author}"
version = release = sklearn_nsgf.__version__
# Where source and issues are, such as "https://github.com/owner/sklearn-nsgf": "" makes no links.
REPOSITORY = ""

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
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
    "**sg_execution_times.rst",
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
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_favicon = "_static/logo.svg"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "sklearn-nsgf", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "header_links_before_dropdown": 4,
    "navbar_start": ["navbar-logo", "release"],
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
if REPOSITORY:
    html_theme_options["icon_links"] = [
        {"name": "Source", "url": REPOSITORY, "icon": "fa-brands fa-github"},
        {"name": "Issues", "url": f"{REPOSITORY}/issues", "icon": "fa-solid fa-circle-exclamation"},
    ]
# A page that stands alone in the navigation has an empty sidebar otherwise.
_SINGLE_PAGES = [
    "index",
    "quick_start",
    "benchmarks",
    "peers",
    "faq",
    "glossary",
    "changelog",
    "contributing",
    "citation",
    "genindex",
    "search",
]
html_sidebars = {page: [] for page in _SINGLE_PAGES}
# The contents of an API page say "fit()", not "SinkhornFlowTransport.fit()".
toc_object_entries_show_parents = "hide"

mathjax_path = "mathjax/tex-chtml.js"  # see copy_mathjax

# Copy what was typed, without prompts and answers.
copybutton_exclude = ".linenos, .gp, .go"

# The sections of the gallery and their pages, in the order in which they are read.
GALLERY = {
    "tables": ["recalibration", "simulation_to_data", "tables", "few_rows"],
    "images": ["color_transfer", "digits", "conditional_digits", "style_transfer"],
    "cells": ["batch_correction", "perturbation", "time_course"],
    "embeddings": ["audio_text", "modality_gap"],
    "pipelines": ["domain_adaptation", "search", "fairness"],
    "howto": [
        "two_moons",
        "trajectories",
        "progress",
        "saving",
        "own_network",
        "memmap",
        "dask",
        "sinkhorn_tolerance",
    ],
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
    "backreferences_dir": "generated/backreferences",
    "reference_url": {"sklearn_nsgf": None},
    "remove_config_comments": True,
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


_PUBLIC_MODULES = [
    import_module(f"sklearn_nsgf{name}")
    for name in ("", ".domains", ".flow", ".inspection", ".metrics", ".networks")
]


def described_methods(cls):
    """The methods that the page of a class describes: not those that scikit-learn and torch document."""
    methods = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
    return [
        name
        for name, method in methods.items()
        if isroutine(method)
        and (getattr(method, "__module__", None) or "").startswith("sklearn_nsgf")
        and method.__doc__
    ]


autosummary_context = {
    "described_methods": {
        f"{module.__name__}.{name}": described_methods(getattr(module, name))
        for module in _PUBLIC_MODULES
        for name in module.__all__
        if isclass(getattr(module, name))
    }
}


def copy_mathjax(app, error):
    """Put MathJax and its fonts, which a package brings along, beside the pages: no network is needed."""
    if error is None:
        source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
        target = Path(app.outdir, "_static", "mathjax")
        copy_asset(source / "tex-chtml.js", target)
        copy_asset(source / "output/chtml/fonts/woff-v2", target / "output/chtml/fonts/woff-v2")


def link_figures(app, page, template, context, doctree):
    """Let a tap on a figure of an example open it alone, where a phone can enlarge it."""
    if page.startswith("auto_examples/"):
        figure = r'<img src="([^"]+)"[^>]*sphx-glr-(?:single|multi)-img[^>]*>'
        context["body"] = re.sub(figure, r'<a href="\1">\g<0></a>', context["body"])


def check_reference(app):
    """Warn about public names that the reference lacks."""
    listed = set(re.findall(r"^   (\w+)$", Path(app.srcdir, "reference.rst").read_text(), re.M))
    for module in _PUBLIC_MODULES:
        missing = set(module.__all__) - listed - {"__version__"}
        if missing:
            logging.getLogger(__name__).warning(
                "reference.rst lacks %s of %s", ", ".join(sorted(missing)), module.__name__
            )


def setup(app):
    app.connect("build-finished", copy_mathjax)
    app.connect("autodoc-skip-member", skip_foreign_members)
    app.connect("builder-inited", check_reference)
    app.connect("html-page-context", link_figures)
