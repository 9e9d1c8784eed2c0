"""What has to agree before a release."""

import re
from pathlib import Path

from sklearn_nsgf import __version__

ROOT = Path(__file__).parents[1]
RELEASED = re.sub(r"\.dev\d+$", "", __version__)


def first_match(pattern, name):
    return re.search(pattern, (ROOT / name).read_text(), re.MULTILINE).group(1)


def test_the_files_tell_one_version():
    assert first_match(r"^version: (\S+)$", "CITATION.cff") == RELEASED
    assert first_match(r"^(\d\S+) \(.+\)$", "CHANGELOG.rst") == RELEASED


def test_the_changelog_has_a_date_where_the_version_is_a_release():
    state = first_match(r"^\d\S+ \((.+)\)$", "CHANGELOG.rst")
    is_release = RELEASED == __version__
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}" if is_release else "unreleased", state)
