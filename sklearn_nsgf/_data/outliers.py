"""Values and units that are probably mistakes."""

from __future__ import annotations

import numpy as np

from sklearn_nsgf._data.charts import Charts, far_values
from sklearn_nsgf._data.moments import deviations_of, some_rows
from sklearn_nsgf._data.rows import SampleRows
from sklearn_nsgf._data.table import Table
from sklearn_nsgf._documentation import question
from sklearn_nsgf._warn import warn_caller
from sklearn_nsgf.flow._samplers import Rows

# A new row is far when it lies that many times the range of the fit beyond it, or this part of a constant.
N_RANGES, CONSTANT = 3.0, 1e-6
# Of two deviations, where columns have one unit: float32 has hardly more digits.
LARGEST_RATIO = 1e6
# Of the values of later rows, beyond those of the first ones.
LARGEST_PART_BEYOND = 0.1


def warn_of_outliers(rows: SampleRows, name: str, table: Table) -> None:
    """Warn of each column with a handful of values far away from all others."""
    cloud = some_rows(rows)
    for place, values in enumerate(cloud.T):
        far = None if place in table.categories else far_values(values)
        if far is not None:
            warn_caller(
                f"The column {table.title(place)!r} of the {name} has {len(far)} of {len(cloud)} values far "
                f"away from all others, such as {far[0]:g}. If they are mistakes or stand for missing "
                "values, leave these rows out or impute them. If they are right, frame='auto' and "
                "frame='quantile' keep them from deciding the units of the column; other frames do not."
                + question("faq-far-values"),
                UserWarning,
            )


def warn_beyond_charts(charts: Charts, source: Rows | None, target: Rows, table: Table) -> None:
    """Warn of a column of scores, if later rows have many values where its first ones had none."""
    clouds = ((source, charts.source, "source"), (target, charts.target, "target"))
    for rows, marginals, name in clouds:
        if rows is None:
            continue
        cloud = some_rows(rows)
        for k, marginal in enumerate(marginals):
            if marginal is None or charts.are_categories[k]:
                continue
            low, high = marginal.values[[0, -1]]
            values = cloud[:, charts.columns[k]]
            part = ((values < low) | (values > high)).mean()
            if part > LARGEST_PART_BEYOND:
                warn_caller(
                    f"{part:.0%} of the values in the column {table.title(charts.columns[k])!r} of the "
                    f"{name} are beyond those of the first fit, {low:g} to {high:g}. The column is read as "
                    "scores, so rows are drawn and moved within these. Begin anew with rows of all times, or "
                    "with frame='linear'.",
                    UserWarning,
                )
                return


def warn_of_units(rows: SampleRows, table: Table) -> None:
    """Warn of columns that count for nothing beside another one, where all have one unit."""
    cloud = some_rows(rows)
    std = deviations_of(cloud)
    varies = np.flatnonzero(std > CONSTANT * np.abs(cloud).max(axis=0)).tolist()
    varies = [place for place in varies if place not in table.categories]
    if not varies:
        return
    least, most = min(varies, key=std.__getitem__), max(varies, key=std.__getitem__)
    with np.errstate(over="ignore"):
        ratio = std[most] / std[least]
    if ratio > LARGEST_RATIO:
        warn_caller(
            "With standardize=False all columns have one unit. The column "
            f"{table.title(most)!r} varies {ratio:.0e} times as much as "
            f"{table.title(least)!r}, which counts for nothing beside it. Leave standardize=True, or bring "
            "the columns to similar units.",
            UserWarning,
        )


def warn_of_far_rows(rows: np.ndarray, low: np.ndarray, high: np.ndarray, table: Table) -> None:
    """Warn of rows to be moved that lie far outside of the source of the fit.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features)
    low, high : ndarray of shape (n_features,)
        Least and largest values of the source.
    table : Table
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    # A constant is only as constant as its rounding. Beyond the largest float there is nothing.
    with np.errstate(over="ignore"):
        reach = N_RANGES * (high - low) + CONSTANT * np.maximum(np.abs(low), np.abs(high))
        least, most = low - reach, high + reach
    has_far = (rows.min(axis=0) < least) | (rows.max(axis=0) > most)
    columns = [place for place in np.flatnonzero(has_far).tolist() if place not in table.categories]
    if not columns:
        return
    first, values = columns[0], rows[:, columns]
    is_far = (values < least[columns]) | (values > most[columns])
    warn_caller(
        f"{is_far.any(axis=1).sum()} of {len(rows)} rows of X lie far outside of the source, where the flow "
        f"has learnt nothing: the column {table.title(first)!r} has {values[is_far[:, 0], 0][0]:g}, and the "
        f"source of the fit had values from {low[first]:g} to {high[first]:g}. Check its units, and that X "
        "went through the steps that the rows of the fit went through." + question("faq-far-rows"),
        UserWarning,
    )
