"""Fixtures that several test modules use."""

import pytest

from sklearn_nsgf._data import clusters


@pytest.fixture
def one_normal_distribution(monkeypatch):
    """As the start of a generation, also of clusters."""
    monkeypatch.setattr(clusters, "MAX_CLUSTERS", 1)
