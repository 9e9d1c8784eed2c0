"""The space of a fit: how samples become points of the flow, and points samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sklearn_nsgf._data.frame import Frame
from sklearn_nsgf._data.labels import Classes
from sklearn_nsgf._data.layout import Layout, float_dtype, to_dtype
from sklearn_nsgf._data.table import Table


class Space(NamedTuple):
    """What a fit found out about its data, and needs to know of any other.

    Attributes
    ----------
    layout : Layout
    frame : Frame
    dtypes : (str, str)
        Of source and target as they came. Names, which skops knows.
    classes : Classes
    table : Table
    """

    layout: Layout
    frame: Frame
    dtypes: tuple[str, str]
    classes: Classes
    table: Table = Table()

    def encode(self, X: np.ndarray, t) -> np.ndarray:
        """Samples as points of the flow whose centre is where it is at time t."""
        return self.frame.encode(self.layout.to_rows(X), t)

    def decode(self, Z: np.ndarray, times: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Samples from points of the flow, of shape (n_times, n, n_features)."""
        rows = check_finite(self.frame.decode(Z, times[:, None], float_dtype(dtype)))
        return self.layout.to_samples(to_dtype(rows, dtype))

    def answer_dtype(self, dtype: np.dtype, t: float) -> np.dtype:
        """Grey values are rounded where there are images, and nowhere else."""
        has_images = t in (0, 1) and self.dtypes[int(t)] == "uint8"
        return dtype if has_images else float_dtype(dtype)


def check_finite(answer: np.ndarray) -> np.ndarray:
    """Answers of a flow, unless one of them is not a number."""
    rows = ~np.isfinite(answer).all(axis=-1)
    if rows.any():
        raise ValueError(
            f"The flow is not finite for {rows.sum()} of {rows.size} points: they lie too far outside "
            "the training data, or the numbers are too large for their dtype."
        )
    return answer
