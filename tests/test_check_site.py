"""The check of the documentation finds what it is for."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "check_site.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the tests run without the documentation")

PAGES = {
    "index.html": '<nav><a href="good.html">Good</a><a href="bad.html">Bad</a></nav>',
    "good.html": '<h1 id="top">Good</h1><a href="#top">up</a><a href="https://example.org">away</a>'
    '<div class="math">\\(\\frac12\\)</div><p>In <code>\\frac</code> there is no markup.</p>',
    "bad.html": '<nav class="bd-docs-nav"></nav><a href="good.html#bottom">x</a><a href="gone.html">x</a>'
    '<img src="gone.png"><script src="https://example.org/x.js"></script><p>\\frac12, :doc:`index`</p>',
    "lost.html": "<p>Nobody links here.</p>",
}


def check(folder):
    specification = importlib.util.spec_from_file_location("check_site", SCRIPT)
    check_site = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(check_site)
    for name, text in PAGES.items():
        (folder / name).write_text(text)
    return list(check_site.check_files(folder, {name: check_site.Page(folder / name) for name in PAGES}))


def test_every_fault_is_found_and_nothing_else(tmp_path):
    assert sorted(check(tmp_path)) == [
        "bad.html: markup in the text: :doc:",
        "bad.html: markup in the text: \\frac",
        "bad.html: needs the network for https://example.org/x.js",
        "bad.html: no file for the link gone.html",
        "bad.html: no file gone.png",
        "bad.html: no place 'bottom' in good.html",
        "bad.html: the section navigation is empty",
        "lost.html: no menu leads here",
    ]
