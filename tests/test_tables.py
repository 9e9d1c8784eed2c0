"""Tables as users have them: quantiles, ties, categories, types."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from clouds import rows_of
from scipy.special import ndtri
from scipy.stats import norm
from sklearn.base import clone

from sklearn_nsgf import FlowMatchingTransport, NSGFPlusPlus, SinkhornFlowTransport
from sklearn_nsgf._data import check
from sklearn_nsgf._data.charts import STEP_MARGIN, Charts, far_values, marginal_of
from sklearn_nsgf._data.choice import find_frame
from sklearn_nsgf._data.outliers import warn_of_units
from sklearn_nsgf._data.rows import FrameRows
from sklearn_nsgf._data.table import Table
from sklearn_nsgf.domains import stack_domains
from sklearn_nsgf.metrics import energy_distance

SMALL = {"hidden_layer_sizes": (8,), "max_iter": 10, "random_state": 0}
FLOWS = {"n_flows": 2, "flow_batch_size": 64}
COUPLINGS = {"n_couplings": 4, "coupling_batch_size": 64}
ESTIMATORS = [
    SinkhornFlowTransport(**SMALL, **FLOWS),
    FlowMatchingTransport(**SMALL, **COUPLINGS),
    NSGFPlusPlus(**SMALL, **FLOWS, **COUPLINGS),
]


@pytest.fixture(params=ESTIMATORS, ids=lambda est: type(est).__name__)
def est(request):
    return type(request.param)(**request.param.get_params())


def mixed(n_rows, seed, share=0.3):
    """Counts, many zeros, one decimal, categories, booleans and a plain column."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(17, 90, n_rows),
            "gain": np.where(rng.random(n_rows) < 0.9, 0.0, np.exp(rng.normal(8, 1, n_rows)).round(1)),
            "sex": pd.Categorical(
                rng.choice(["m", "f"], n_rows, p=[share, 1 - share]), categories=["m", "f"]
            ),
            "old": rng.random(n_rows) < share,
            "x": rng.normal(size=n_rows),
        }
    )


def charts_of(source, target, are_categories=None):
    n_columns = source.shape[1]
    return Charts(
        np.arange(n_columns),
        [marginal_of(column) for column in source.T],
        [marginal_of(column) for column in target.T],
        np.zeros(n_columns),
        np.ones(n_columns),
        np.zeros(n_columns, dtype=bool) if are_categories is None else np.array(are_categories),
    )


def test_quantiles_of_distinct_values_lie_in_the_middle_of_their_steps():
    marginal = marginal_of(np.array([3.0, 1.0, 2.0, 10.0]))
    np.testing.assert_allclose(marginal.probabilities, [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(marginal.values, [1, 2, 3, 10])
    np.testing.assert_allclose(marginal.quantiles(np.array([0.0, 0.25, 0.5, 1.0])), [1, 1.5, 2.5, 10])
    np.testing.assert_allclose(marginal.slopes(np.array([0.05, 0.25, 0.8, 0.95])), [0, 4, 28, 0])
    assert marginal.decimals is None


def test_a_value_that_repeats_has_its_whole_step():
    marginal = marginal_of(np.array([0.0, 0.0, 0.0, 1.5]))
    low, high = marginal.steps(np.array([0.0, 1.5, -3.0, 9.0, 0.75]))
    np.testing.assert_allclose(low, [0, 0.875, 0, 0.875, 0.8125])
    np.testing.assert_allclose(high, [0.75, 0.875, 0.75, 0.875, 0.8125])
    assert marginal.decimals == 1


def test_between_far_values_and_the_others_there_is_nothing():
    values = np.append(np.arange(97.0), [1e6, -9999.0, -9999.0])
    marginal = marginal_of(values)
    drawn = marginal.quantiles((np.arange(10_000) + 0.5) / 10_000)
    assert (drawn == 1e6).sum() == 100 and (drawn == -9999).sum() == 200
    rest = drawn[(drawn != 1e6) & (drawn != -9999)]
    assert rest.min() == 0 and rest.max() == 96
    # The others are the middles of their steps, as they are without far ones.
    np.testing.assert_allclose(marginal.quantiles((np.arange(2, 99) + 0.5) / 100), np.arange(97.0), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_come_back_exactly(dtype):
    """Zeros, integers, decimals, a constant; in the types that a flow has."""
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [
            np.where(rng.random(500) < 0.7, 0, rng.exponential(size=500)),
            rng.integers(-3, 40, 500),
            rng.normal(size=500).round(2),
            np.full(500, 7.0),
        ]
    ).astype(dtype)
    frame = find_frame(X, X[::-1].copy(), "quantile", per_feature=True)
    for t in (0.0, 1.0):
        Z = frame.encode(X, t)
        assert Z.dtype == dtype
        again = frame.decode(Z, t, dtype)
        np.testing.assert_array_equal(again[:, 1:], X[:, 1:])
        np.testing.assert_array_equal(again[:, 0] == 0, X[:, 0] == 0)
        np.testing.assert_allclose(again[:, 0], X[:, 0], rtol=1e-4)


def test_one_column_alone_is_sorted_onto_the_other():
    """The optimal map in one dimension, however skew."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(200, 1)), np.exp(2 * rng.normal(size=(200, 1)))
    frame = find_frame(source, target, "quantile", per_feature=True)
    moved = frame.decode(frame.encode(source, 0.0), 1.0, float)
    np.testing.assert_allclose(np.sort(moved, axis=0), np.sort(target, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(moved.ravel().argsort(), source.ravel().argsort())
    halfway = frame.decode(frame.encode(source, 0.0), 0.5, float)
    np.testing.assert_allclose(halfway, (source + moved) / 2, rtol=1e-9)


def test_a_point_on_its_way_is_found_again():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(300, 3)), np.exp(rng.normal(size=(200, 3)))
    target[:, 2] = target[:, 2].round()
    frame = find_frame(source, target, "quantile", per_feature=True)
    Z = frame.encode(source, 0.0)
    for t in (0.2, 0.9):
        X = frame.decode(Z, t, float)
        np.testing.assert_allclose(frame.decode(frame.encode(X, t), t, float), X, atol=1e-9)
    times = np.repeat([0.2, 0.9], 150)
    X = np.concatenate([frame.decode(Z[:150], 0.2, float), frame.decode(Z[150:], 0.9, float)])
    again = frame.encode(X, times)
    separately = np.concatenate([frame.encode(X[:150], 0.2), frame.encode(X[150:], 0.9)])
    np.testing.assert_allclose(again, separately, atol=1e-9)


def test_velocity_is_the_derivative_of_the_way():
    rng = np.random.default_rng(0)
    charts = charts_of(rng.normal(size=(100, 2)), np.exp(rng.normal(size=(80, 2))))
    U, V, t, h = rng.normal(size=(400, 2)), rng.normal(size=(400, 2)), np.full(400, 0.4), 1e-6
    ahead, behind = (charts.decode(U + sign * h * V, 0.4 + sign * h) for sign in (1, -1))
    difference = np.abs((ahead - behind) / (2 * h) - charts.velocity(U, V, t))
    # But where a step of the quantile function lies between.
    assert np.quantile(difference, 0.98) < 1e-5


def test_equal_rows_fill_their_step_evenly():
    """The scores of a constant are normal, and those of two constants independent."""
    X = np.zeros((2000, 2))
    charts = charts_of(X, X)
    scores = charts.encode(X, 0)
    places = (norm.cdf(scores) - STEP_MARGIN) / (1 - 2 * STEP_MARGIN)
    for column in places.T:
        gaps = np.diff(np.sort(column))
        assert gaps.max() < 3 / 2000
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.05


def test_scores_do_not_depend_on_the_other_rows():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 3, 100), rng.normal(size=100)])
    charts = charts_of(X, X)
    scores = charts.encode(X, 0)
    order = rng.permutation(100)
    np.testing.assert_array_equal(charts.encode(X[order], 0), scores[order])
    np.testing.assert_array_equal(charts.encode(X[:7], 0), scores[:7])
    np.testing.assert_array_equal(charts.encode(np.where(X == 0, -0.0, X), 0), scores)


def test_a_category_is_one_of_both_at_any_time():
    rng = np.random.default_rng(0)
    codes = rng.choice([0.0, 1.0, 4.0], size=(100, 1))
    charts = charts_of(codes, rng.choice([1.0, 3.0], size=(50, 1)), [True])
    U = charts.encode(codes, 0)
    np.testing.assert_array_equal(charts.decode(U, 0.49), codes)
    assert set(np.unique(charts.decode(U, 0.5))) == {1.0, 3.0}
    np.testing.assert_array_equal(charts.velocity(U, U, np.full(100, 0.5)), 0)


def test_noise_for_a_table_is_a_gaussian_copula():
    """An untrained flow gives each column its marginals, and their rank correlation."""
    rng = np.random.default_rng(0)
    normal = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=4000)
    X = np.column_stack(
        [np.exp(normal[:, 0]), normal[:, 1] ** 3, rng.choice(3, size=4000, p=[0.7, 0.2, 0.1])]
    )
    frame = find_frame(None, rows_of(X), "quantile", per_feature=True)
    drawn = frame.decode(frame.draw_noise(20_000, np.random.RandomState(0)), 1.0, float)
    probabilities = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(
        np.quantile(drawn[:, 0], probabilities), np.exp(ndtri(probabilities)), rtol=0.1
    )
    np.testing.assert_allclose([(drawn[:, 2] == k).mean() for k in range(3)], [0.7, 0.2, 0.1], atol=0.02)
    # Spearman's correlation of two normal variables.
    expected = 6 / np.pi * np.arcsin(0.8 / 2)
    ranks = drawn[:, :2].argsort(axis=0).argsort(axis=0)
    assert np.corrcoef(ranks.T)[0, 1] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("kind", ["none", "linear", "quantile"])
def test_categories_are_scores_in_every_frame(kind):
    rng = np.random.default_rng(0)
    source, target = (
        np.column_stack([rng.choice(3, size=400, p=p), rng.normal(size=400)])
        for p in ([0.2, 0.3, 0.5], [0.5, 0.5, 0.0])
    )
    frame = find_frame(source, target, kind, per_feature=True, categorical=[0])
    moved = frame.decode(frame.encode(source, 0.0), 1.0, float)
    if kind == "none":
        np.testing.assert_allclose(moved, source, atol=1e-9)
    else:
        shares = [(moved[:, 0] == k).mean() for k in range(3)]
        np.testing.assert_allclose(shares, [0.5, 0.5, 0], atol=0.05)


def test_automatic_columns():
    """Many zeros, counts, one decimal, far values: as scores; plain columns and constants: as they are."""
    rng = np.random.default_rng(0)
    X = np.column_stack(
        [
            rng.normal(size=500),
            np.where(rng.random(500) < 0.1, 0, rng.normal(size=500)),
            rng.integers(0, 90, 500),
            np.exp(rng.normal(0, 2, 500)),
            np.full(500, 3.0),
        ]
    )
    frame = find_frame(None, rows_of(X), "auto", per_feature=True)
    assert frame.charts.columns.tolist() == [1, 2, 3]
    assert find_frame(None, rows_of(X), "auto", per_feature=False).charts is None
    assert find_frame(None, rows_of(X), "linear", per_feature=True).charts is None


@pytest.mark.parametrize(
    ("share", "place", "spread"),
    [(0.005, 12, 0.05), (0.01, 12, 0.05), (0.15, 12, 0.05), (0.03, 6, 1), (0.1, 5, 1)],
)
def test_a_small_cluster_is_no_heavy_tail(share, place, spread):
    """Scores would close the gap: rows of one cluster by one column alone would be drawn."""
    rng = np.random.default_rng(0)
    n_far = round(1000 * share)
    X = np.concatenate([rng.normal(size=(1000 - n_far, 2)), rng.normal(place, spread, (n_far, 2))])
    frame = find_frame(None, rows_of(X), "auto", per_feature=True)
    assert frame.charts is None
    drawn = frame.decode(frame.draw_noise(20_000, np.random.RandomState(0)), 1.0, float)
    is_far, drawn_far = X > place / 2, drawn > place / 2
    assert drawn_far.all(axis=1).mean() == pytest.approx(is_far.all(axis=1).mean(), rel=0.25)
    mixed = (is_far[:, 0] != is_far[:, 1]).mean()
    assert (drawn_far[:, 0] != drawn_far[:, 1]).mean() < mixed + 0.01


def test_clusters_make_no_heavy_tail_a_light_one():
    """That of one of them, or of few values, or of such as are likely mistakes."""
    rng = np.random.default_rng(0)
    heavy = [rng.standard_cauchy(500), rng.standard_t(2, 500), np.exp(2 * rng.normal(size=500))]
    heavy += [rng.exponential(size=500), rng.laplace(size=1000)]
    heavy += [np.concatenate([each, 50 * np.ptp(each) + rng.normal(size=40)]) for each in heavy]
    heavy += [np.append(rng.normal(size=500), 30 + 0.1 * rng.normal(size=n)) for n in (1, 4)]
    heavy += [np.append(rng.normal(size=500), 1e6 + rng.normal(size=20))]
    for values in heavy:
        frame = find_frame(None, rows_of(rng.permutation(values)[:, None]), "auto", per_feature=True)
        assert frame.charts is not None
    for n in (1, 10):
        three = np.concatenate([rng.normal(place, 1, n * m) for place, m in ((0, 900), (30, 60), (40, 40))])
        assert find_frame(None, rows_of(three[:, None]), "auto", per_feature=True).charts is None


def test_few_equal_values_may_be_rounded_numbers():
    """Three equal ones of 100 say nothing; four do, or 2 % of more rows."""
    rng = np.random.default_rng(0)
    values = np.append(rng.permutation(1000)[:96] / 100, [-1, -2, -3, -4])[:, None]
    for n_rows, n_equal, is_score in ((100, 3, False), (100, 4, True), (500, 9, False), (500, 10, True)):
        X = np.repeat(values, n_rows // 100, axis=0) + 1e-3 * np.arange(n_rows)[:, None]
        X[:n_equal] = X[0]
        frame = find_frame(None, rows_of(X), "auto", per_feature=True)
        assert (frame.charts is not None) == is_score


def test_heavy_tails_converge(est):
    """A log-normal column costs what a normal one does: in scores it is one."""
    rng = np.random.default_rng(0)
    X = np.exp(rng.normal(0, 2, (2000, 1)))
    drawn = est.set_params(max_iter=50).fit(X).sample(20_000, random_state=0)
    assert np.quantile(drawn, 0.99) == pytest.approx(np.exp(2 * ndtri(0.99)), rel=0.25)
    assert drawn.min() > 0


def test_a_wrong_row_is_named_and_ruins_nothing(est):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(500, 2)), rng.normal([3, 2], [1, 0.5], size=(500, 2))
    target[0, 1] = 1e6
    with pytest.warns(UserWarning, match="column 1 of the target has 1 of 500 values far away .* 1e\\+06"):
        est.fit(source, target)
    moved = est.transform(rng.normal(size=(500, 2)))
    assert energy_distance(moved, target[1:]) < 0.05


def test_rows_far_outside_are_named_and_counted(est):
    rng = np.random.default_rng(0)
    names = ["°C", "constant", "kind"]
    source = pd.DataFrame(
        np.column_stack([rng.uniform(0, 1, 40), np.full(40, 0.1), np.arange(40) % 2]), columns=names
    )
    source["kind"] = source["kind"].astype("category")
    est.fit(source, source.assign(**{"°C": source["°C"] + 1}))
    # Three times the range beyond it, and the rounding of a constant, are near enough.
    near = source.assign(**{"°C": source["°C"].replace({source["°C"].max(): 3.9}), "constant": 0.1 + 1e-9})
    est.transform(near)
    far = near.copy()
    far.loc[[3, 5], "°C"] = [40.0, 50.0]
    match = r"2 of 40 rows of X lie far .* '°C' has 40, and the source of the fit had values from 0\.\d+ to"
    with pytest.warns(UserWarning, match=match):
        est.transform(far)
    with pytest.warns(UserWarning, match="1 of 40 rows .* 'constant' has 0.2, .* from 0.1 to 0.1"):
        est.transform(near.assign(constant=np.where(np.arange(40) == 7, 0.2, 0.1)))


def test_rows_far_outside_in_parts_and_beside_a_target(est):
    """The range is that of all parts, and rows of the target may lie anywhere."""
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(60, 2))
    est.partial_fit(X, X + 1).partial_fit(X + 40, X + 41)
    est.transform(X + 20)
    domain = np.where(np.arange(60) < 30, 1, -1)
    est.transform(np.concatenate([X[:30], X[30:] + 1e4]), sample_domain=domain)
    with pytest.warns(UserWarning, match="30 of 30 rows of X lie far"):
        est.transform(np.concatenate([X[:30] + 1e4, X[30:]]), sample_domain=domain)


def test_columns_that_count_for_nothing_are_named(est):
    X = np.random.default_rng(0).normal(size=(40, 3)) * [1, 1e9, 0] + [0, 0, 5]
    est.fit(X)
    with pytest.warns(
        UserWarning, match=r"column 1 varies ([5-9]e\+08|[12]e\+09) times as much as 0, which counts"
    ):
        est.set_params(standardize=False).fit(X)
    est.fit(X * [1, 1e-6, 1])
    with pytest.warns(UserWarning, match=r"column 0 varies inf times as much as 1"):
        warn_of_units(X * [1e300, 1e-309, 1], Table())
    warn_of_units(X[:, :1] * 1e303, Table())


def test_far_values():
    rng = np.random.default_rng(0)
    values = rng.normal(15, 4, 2000)
    assert far_values(values) is None
    values[:60] = -9999
    np.testing.assert_array_equal(far_values(values), np.full(60, -9999.0))
    # Heavy tails have no gap, rare values of a constant no scale.
    assert far_values(np.exp(rng.normal(0, 2, 2000))) is None
    assert far_values(np.where(rng.random(2000) < 0.02, 1e6, 0)) is None
    assert far_values(np.array([1.0, 2.0, 1e9])) is None


def test_a_table_comes_back_as_one(est):
    source, target = mixed(150, 0), mixed(120, 1, share=0.6)
    est.fit(source, target)
    source.index = source.index + 1000
    moved = est.transform(source)
    assert isinstance(moved, pd.DataFrame)
    assert moved.dtypes.equals(target.dtypes)
    assert moved.index.equals(source.index)
    assert (moved["sex"].cat.categories == ["m", "f"]).all()
    assert set(moved["age"]) <= set(range(17, 90))
    assert (moved["gain"] == 0).mean() == pytest.approx((target["gain"] == 0).mean(), abs=0.05)
    assert (moved["gain"] * 10).round().sub(moved["gain"] * 10).abs().max() < 1e-6
    drawn = est.sample(50, random_state=0)
    assert drawn.dtypes.equals(target.dtypes)
    assert est.integrate(source, t_end=0.3).dtypes["sex"] == "category"
    assert est.inverse_transform(target).dtypes.equals(source.dtypes)
    assert np.isfinite(est.score(source, target))
    for container, package in (("polars", pl), ("pandas", pd)):
        assert isinstance(est.set_output(transform=container).transform(source), package.DataFrame)
        assert isinstance(est.sample(3), package.DataFrame)


def test_generation_of_a_table(est):
    table = mixed(150, 0)
    drawn = est.fit(table).sample(2000, random_state=0)
    assert drawn.dtypes.equals(table.dtypes)
    for name in ("sex", "old"):
        share = (drawn[name] == table[name][0]).mean()
        assert share == pytest.approx((table[name] == table[name][0]).mean(), abs=0.1)
    assert np.isfinite(est.score(table))


def test_dtypes_of_all_kinds():
    """Small, nullable and unsigned integers, ordered and numeric categories, names of any kind."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "u": rng.integers(0, 200, 60).astype("uint8"),
            "n": pd.array(rng.integers(-9, 9, 60), dtype="Int16"),
            "size": pd.Categorical(rng.choice(["s", "m", "l"], 60), categories=["s", "m", "l"], ordered=True),
            "code": pd.Categorical(rng.choice([10, 20], 60)),
            "ok": pd.array(rng.random(60) < 0.5, dtype="boolean"),
            "x": rng.normal(size=60).astype("float32"),
            "y": pd.array(rng.normal(size=60), dtype="Float64"),
        }
    )
    for kind, columns in (("linear", table.columns), ("auto", range(10, 17))):
        table.columns = columns
        est = SinkhornFlowTransport(frame=kind, **SMALL, **FLOWS).fit(table, table[::-1])
        for answer in (est.transform(table), est.sample(200, random_state=0), est.inverse_transform(table)):
            assert answer.dtypes.equals(table.dtypes)
            assert answer.columns.tolist() == table.columns.tolist()
            # Not wrapped around, which would send -1 to 255.
            assert answer.iloc[:, 0].max() < 250


def test_a_library_need_not_be_imported():
    """As in a process that opens a file."""
    code = (
        "import sys, numpy as np, pandas as pd\n"
        "from sklearn_nsgf import SinkhornFlowTransport\n"
        "assert 'polars' not in sys.modules\n"
        "table = pd.DataFrame({'a': np.arange(9.0), 'b': np.arange(9) % 2 == 0})\n"
        "est = SinkhornFlowTransport(max_iter=0).set_output(transform='polars').fit(table)\n"
        "print(est.sample(2).columns)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == "['a', 'b']", answer.stderr


def test_polars_tables():
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "k": pl.Series(rng.choice(["a", "b"], 60).tolist(), dtype=pl.Categorical),
            "e": pl.Series(rng.choice(["u", "v"], 60).tolist(), dtype=pl.Enum(["v", "u"])),
            "n": rng.integers(0, 5, 60),
            "ok": rng.random(60) < 0.5,
            "x": rng.normal(size=60),
        }
    )
    est = SinkhornFlowTransport(**SMALL, **FLOWS).fit(table, table[::-1])
    for answer in (est.transform(table), est.sample(5), est.inverse_transform(table)):
        assert isinstance(answer, pl.DataFrame)
        assert answer.schema == table.schema


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_large_frames_are_read_in_parts(library, monkeypatch):
    """And are never an array as a whole."""
    X, Y = (mixed(150, seed) for seed in range(2))
    if library == "polars":
        X, Y = (
            pl.DataFrame({name: each[name].tolist() for name in each}).cast({"sex": pl.Categorical})
            for each in (X, Y)
        )
    whole = clone(ESTIMATORS[1]).fit(X, Y).transform(X)
    monkeypatch.setattr(check, "_PART_SIZE", 200)
    read = []
    monkeypatch.setattr(check, "FrameRows", lambda *args: read.append(FrameRows(*args)) or read[-1])
    est = clone(ESTIMATORS[1]).fit(X, Y)
    assert [rows.shape for rows in read] == [(150, 5), (150, 5)]
    assert est.transform(X).equals(whole)
    if library == "pandas":
        X.loc[149, "x"] = np.nan
        with pytest.raises(ValueError, match=r"columns \['x'\] of X"):
            est.fit(X, Y)


def test_categories_of_arrays_come_back_as_their_values():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.choice([2.0, 5.0, 9.0], 80), rng.normal(size=80)])
    options = {"categorical_features": [0], **SMALL, **FLOWS}
    moved = SinkhornFlowTransport(**options).fit(X, X[::-1]).transform(X)
    assert moved.dtype == np.float64
    assert set(moved[:, 0]) == {2.0, 5.0, 9.0}
    mask = SinkhornFlowTransport(**{**options, "categorical_features": [True, False]}).fit(X, X[::-1])
    np.testing.assert_array_equal(mask.transform(X), moved)
    objects = X.astype(object)
    objects[:, 0] = np.where(X[:, 0] == 2, "two", "more")
    est = SinkhornFlowTransport(**options).fit(objects.tolist(), objects[::-1])
    assert set(est.transform(objects)[:, 0]) == {"two", "more"}
    assert set(est.sample(40, random_state=0)[:, 0]) == {"two", "more"}


def test_text_against_numbers_is_no_category(est):
    table = mixed(40, seed=0)
    coded = table.assign(sex=np.arange(40) % 2)
    for samples in ((table, coded), (coded, table)):
        with pytest.raises(TypeError, match=r"column 'sex' holds .*expected text, or numbers, in both"):
            est.fit(*samples)
    moved = est.fit(coded.astype({"sex": "category"}), coded).transform(coded)
    assert set(moved["sex"]) <= {0, 1}


def test_names_of_categorical_columns():
    table = mixed(60, 0)[["age", "x"]]
    est = SinkhornFlowTransport(categorical_features=["age"], **SMALL, **FLOWS).fit(table, table[::-1])
    moved = est.transform(table)
    assert moved.dtypes.equals(table.dtypes)
    assert set(moved["age"]) <= set(table["age"])
    assert (
        SinkhornFlowTransport(**SMALL, **FLOWS).fit(mixed(40, 0).drop(columns=["sex", "old"])).sample(3).dtype
        == float
    )


def test_one_array_with_categories():
    """Both samples stacked, with other categories in each."""
    source, target = mixed(80, 0), mixed(60, 1)
    source["sex"] = pd.Categorical(["m"] * 80)
    X, _, sample_domain = stack_domains(source, target)
    assert X["sex"].dtype == "category"
    est = SinkhornFlowTransport(**SMALL, **FLOWS).fit(X, sample_domain=sample_domain)
    moved = est.transform(X, sample_domain=sample_domain)
    pd.testing.assert_frame_equal(moved[80:].reset_index(drop=True), target.astype({"sex": X["sex"].dtype}))
    assert np.isfinite(est.score(X, sample_domain=sample_domain))


def test_later_parts_beyond_the_scores_of_the_first_one(est):
    """Scores end where the rows of the first part did, and a column of plain numbers does not."""
    rng = np.random.default_rng(0)
    first = pd.DataFrame({"count": rng.integers(50, size=60), "x": rng.normal(size=60)})
    later = first.assign(count=first["count"] + np.where(np.arange(60) < 5, 100, 0), x=first["x"] + 100)
    est.partial_fit(first).partial_fit(later)
    later["count"] += 100
    match = "100% of the values in the column 'count' of the target .* 0 to 49. .* frame='linear'"
    with pytest.warns(UserWarning, match=match):
        est.partial_fit(later)
    with pytest.warns(UserWarning, match="column 'count' of the source"):
        clone(est).partial_fit(first, first).partial_fit(later, first)


def test_partial_fit_of_a_table():
    est = SinkhornFlowTransport(**SMALL, **FLOWS)
    for seed in range(2):
        est.partial_fit(mixed(60, seed), mixed(50, seed + 5))
    assert est.sample(5).dtypes.equals(mixed(5, 0).dtypes)


def test_errors_name_the_column():
    table, options = mixed(60, 0), {**SMALL, **FLOWS}
    with pytest.raises(ValueError, match="same columns in the same order"):
        SinkhornFlowTransport(**options).fit(table, table[table.columns[::-1]])
    with pytest.raises(ValueError, match="same columns in the same order"):
        SinkhornFlowTransport(**options).fit(table, table).score(table, table[table.columns[::-1]])
    gaps = table.assign(sex=table["sex"].where(table.index > 3))
    with pytest.raises(ValueError, match=r"column 'sex' of X has 4 missing values .* impute"):
        SinkhornFlowTransport(**options).fit(gaps, table)
    with pytest.raises(ValueError, match=r"NaN[\s\S]*columns \['x'\][\s\S]*impute"):
        SinkhornFlowTransport(**options).fit(table.assign(x=np.nan), table)
    text = table.assign(sex=table["sex"].astype(object))
    with pytest.raises(
        ValueError, match=r"column 'sex' of X has values that are not numbers .*categorical_f"
    ):
        SinkhornFlowTransport(**options).fit(text)
    with pytest.raises(ValueError, match=r"columns \['sex'\][\s\S]*categorical_features"):
        SinkhornFlowTransport(**options).fit(text.drop(columns="old"))
    est = SinkhornFlowTransport(**options).fit(table)
    with pytest.raises(
        ValueError, match="column 'sex' of X has the categories \\['x'\\], which the fit has not"
    ):
        est.transform(table.assign(sex=pd.Categorical(["x"] * 60)))
    for wrong in (["nobody"], [9], [0.5], [True, False]):
        with pytest.raises(ValueError, match=r"categorical_features has .* expected their names or places"):
            SinkhornFlowTransport(categorical_features=wrong, **options).fit(table)
    with pytest.raises(ValueError, match="for tables, and X holds images"):
        SinkhornFlowTransport(categorical_features=[0], **options).fit(np.zeros((5, 6, 6)))
    with pytest.raises(ValueError, match="frame='quantile' is for rows"):
        SinkhornFlowTransport(frame="quantile", **options).fit(np.zeros((5, 6, 6)))


def test_a_category_that_occurs_once_has_nothing_on_either_side():
    """No code between those of the rows is ever drawn."""
    categories = list("abcdefghijklmnopqrstuvwxyz")
    rows = pd.DataFrame({"c": pd.Categorical(["a"] * 198 + ["y", "z"], categories=categories)})
    est = SinkhornFlowTransport(**SMALL, **FLOWS).fit(rows)
    assert set(est.sample(5000, random_state=0)["c"]) <= {"a", "y", "z"}


def test_finer_ordered_categories_keep_their_order():
    rng = np.random.default_rng(0)
    coarse, fine = (
        pd.DataFrame({"c": pd.Categorical(rng.choice(names, 60), categories=names, ordered=True)})
        for names in (["lo", "hi"], ["lo", "mid", "hi"])
    )
    est = SinkhornFlowTransport(**SMALL, **FLOWS).fit(coarse, fine)
    assert est.transform(coarse)["c"].dtype == fine["c"].dtype
    assert stack_domains(coarse, fine)[0]["c"].cat.categories.tolist() == ["lo", "mid", "hi"]


def test_what_is_no_number_is_refused_beside_categories():
    table = mixed(40, 0)[["sex"]].assign(day=pd.date_range("2024", periods=40))
    with pytest.raises(
        ValueError, match=r"column 'day' of X has values that are not numbers .* encode dates"
    ):
        SinkhornFlowTransport(**SMALL, **FLOWS).fit(table)
    text = np.array([["a", 1.0], ["b", 2.0]] * 20)
    with pytest.raises(ValueError, match=r"X is an array of text, .* dtype=object"):
        SinkhornFlowTransport(categorical_features=[0], **SMALL, **FLOWS).fit(text)
    flags = pd.DataFrame({"c": pd.array([True, False, None] * 20, dtype="boolean")})
    with pytest.raises(ValueError, match="column 'c' has 20 missing values"):
        SinkhornFlowTransport(**SMALL, **FLOWS).fit(flags)
    with pytest.raises(TypeError, match="expected both of one kind"):
        SinkhornFlowTransport(**SMALL, **FLOWS).fit(mixed(40, 0), mixed(40, 1).to_numpy(dtype=object))


def test_large_integers_do_not_change_their_sign():
    rng = np.random.default_rng(0)
    for dtype in ("int64", "uint64"):
        largest = np.iinfo(dtype).max
        table = pd.DataFrame({"i": np.array([largest, 5] * 40, dtype=dtype), "x": rng.normal(size=80)})
        est = SinkhornFlowTransport(frame="quantile", **SMALL, **FLOWS).set_output(transform="pandas")
        moved = est.fit(table, table).transform(table)["i"]
        assert moved.dtype == dtype
        assert set(moved > 2**62) == {True, False}
        assert moved.min() == 5


def test_values_as_fine_as_the_type_come_back():
    """Halves at four million have no more digits in float32."""
    X = (4e6 + np.arange(200).reshape(-1, 1) % 4 * 0.5).astype(np.float32)
    frame = find_frame(X, X[::-1].copy(), "quantile", per_feature=True)
    moved = frame.decode(frame.encode(X, 0.0), 1.0, np.float32)
    assert set(moved.ravel()) == set(X.ravel())
    # Two values so far apart that one is all of the other's unit.
    far = np.where(np.arange(200) == 0, 0, 1e18)[:, None]
    frame = find_frame(far, far[::-1].copy(), "quantile", per_feature=True)
    np.testing.assert_array_equal(frame.decode(frame.encode(far, 0.0), 1.0, float), far)


def test_points_beyond_both_ends_are_found_at_any_time():
    X = np.arange(200.0).reshape(-1, 2) % 5
    frame = find_frame(X, X + 10, "quantile", per_feature=True)
    for far, end in ((-100.0, 10), (100.0, 14)):
        Z = frame.encode(np.full((1, 2), far), 0.5)
        np.testing.assert_array_equal(frame.decode(Z, 1.0, float), end)


def test_categories_of_two_phases_switch_with_their_dtype():
    """The second phase of the paper's transition lies on the target's side."""
    rng = np.random.default_rng(0)
    source = pd.DataFrame({"x": rng.normal(size=60), "c": pd.Categorical(rng.choice(["a", "b"], 60))})
    target = source.assign(c=pd.Categorical(rng.choice(["y", "n"], 60)))
    est = clone(ESTIMATORS[2]).set_params(transition="predicted").fit(source, target)
    assert set(est.integrate(source, t_end=0.2)["c"]) == {"a", "b"}
    assert set(est.integrate(source, t_end=0.3)["c"]) == {"y", "n"}


def test_lists_and_object_arrays_of_mixed_rows():
    table = mixed(60, 0)[["sex", "x"]]
    est = SinkhornFlowTransport(**SMALL, **FLOWS).fit(table, table[::-1])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        assert isinstance(est.transform([["m", 1.0], ["f", 2.0]]), pd.DataFrame)
    rows = table.to_numpy(dtype=object)
    est = SinkhornFlowTransport(categorical_features=[0], **SMALL, **FLOWS).fit(rows, rows[::-1])
    assert np.isfinite(est.score(rows, rows))


def test_metrics_of_categories():
    """By value, whatever their type; rows that differ in one are at distance 1."""
    frames = [pd.DataFrame({"c": pd.Categorical(values)}) for values in ([1, 2] * 50, [1.0, 2.0] * 50)]
    assert energy_distance(*frames) < 0.02
    apart = [pd.DataFrame({"c": pd.Categorical([name] * 50)}) for name in "ab"]
    assert energy_distance(*apart) == pytest.approx(2)
    with pytest.raises(ValueError, match="missing categories"):
        energy_distance(apart[0], pd.DataFrame({"c": pd.Categorical(["a", None])}))
    dates = apart[0].assign(day=pd.date_range("2024-01-01", periods=50, tz="UTC"))
    with pytest.raises(TypeError, match="values that are no numbers, such as Timestamp"):
        energy_distance(dates, dates)
