"""The one door to scikit-learn names that are private or differ between versions."""

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _get_feature_names

__all__ = ["Interval", "StrOptions", "fit_context", "get_feature_names"]

fit_context = _fit_context
get_feature_names = _get_feature_names
