"""The smallest transport with the package's conventions, for tests of what is around estimators."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_nsgf.domains import split_domains


class MeanShift(TransformerMixin, BaseEstimator):
    """Adds `part` of the difference of the means, and takes labels with `label_mode="condition"`."""

    __metadata_request__fit = {"sample_domain": True}
    __metadata_request__transform = {"sample_domain": True, "labels": True}

    def __init__(self, part=1.0, label_mode="ignore"):
        self.part = part
        self.label_mode = label_mode

    def fit(self, X, y=None, *, sample_domain=None):
        if sample_domain is not None:
            source, target = split_domains(np.asarray(X), sample_domain)
        elif y is not None and np.ndim(y) > 1:
            source, target = X, y
        else:
            source, target = np.zeros((1, *np.shape(X)[1:])), X
        self.shift_ = np.mean(target, axis=0) - np.mean(source, axis=0)
        return self

    def transform(self, X, *, labels=None, sample_domain=None):
        check_is_fitted(self)
        self.labels_seen_ = labels
        X = np.asarray(X, dtype=float)
        moves = np.ones(len(X)) if sample_domain is None else np.asarray(sample_domain) >= 0
        return X + self.part * np.multiply.outer(moves, self.shift_)

    def fit_transform(self, X, y=None, *, sample_domain=None):
        return self.fit(X, y, sample_domain=sample_domain).transform(X, sample_domain=sample_domain)

    def sample(self, n_samples=1, *, labels=None, random_state=None):
        self.labels_seen_ = labels
        rng = np.random.default_rng(random_state)
        return rng.normal(self.part * self.shift_, size=(n_samples, *self.shift_.shape))

    def score(self, X, y=None, *, sample_domain=None, sample_weight=None):
        return 0.0


def shifted_domains(n_source=30, n_target=18, seed=0):
    """Rows around 0 and around (5, 3), the two mixed, with labels that the target has not."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n_source + n_target)
    sample_domain = rng.permutation(np.repeat([1, -2], [n_source, n_target]))
    X = rng.normal(scale=0.3, size=(len(y), 2)) + 2.0 * np.column_stack([y, y])
    X[sample_domain < 0] += [5, 3]
    return X, y, sample_domain
