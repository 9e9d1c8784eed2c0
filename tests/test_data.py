"""What comes in: units, and rows that are read as seldom as need be."""

import numpy as np
import pytest

from sklearn_nsgf._data.layout import Layout
from sklearn_nsgf._data.rows import SampleRows
from sklearn_nsgf._data.units import Units


class Counted(SampleRows):
    """Counts the rows that are read."""

    n_read = 0

    def __getitem__(self, places):
        rows = super().__getitem__(places)
        self.n_read += len(rows)
        return rows


def test_units_read_a_sample_three_times():
    """Mean, largest deviation, variance; and the same sample on both sides once."""
    X = np.random.default_rng(0).normal(size=(5000, 4))
    rows = Counted(X, Layout((4,)))
    units = Units(None, rows, per_feature=True)
    assert rows.n_read <= 3 * 5000 + 3
    np.testing.assert_allclose(units.source_mean, X.mean(axis=0))
    np.testing.assert_allclose(units.scale, X.std(axis=0))


@pytest.mark.parametrize("per_feature", [False, True])
def test_units_of_two_samples(per_feature):
    rng = np.random.default_rng(0)
    source, target = rng.normal(3, [1, 4], size=(100, 2)), rng.normal(-5, [2, 2], size=(80, 2))
    units = Units(source, target, per_feature=per_feature)
    variance = (source.var(axis=0) + target.var(axis=0)) / 2
    np.testing.assert_allclose(units.scale, np.sqrt(variance if per_feature else variance.mean()))
    np.testing.assert_allclose(units.encode(source, 0.0).mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(units.encode(target, 1.0).mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(units.decode(units.encode(source, 0.3), 0.3, float), source)
    np.testing.assert_allclose(units.at_target().decode(units.encode(target, 1.0), 0.0, float), target)
