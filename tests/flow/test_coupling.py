import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax

from sklearn_nsgf.flow import _coupling, class_probabilities, couple


def clouds(n, m, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("coupling", ["exact", "sinkhorn"])
def test_a_permuted_and_shifted_cloud_is_found_again(coupling):
    x, _ = clouds(50, 1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    rows, columns = couple(x, (x + 0.01)[order], coupling, rng(), blur=1e-3, tol=1e-3)
    assert torch.equal(rows, torch.arange(50))
    assert torch.equal(order[columns], rows)


def test_exact_pairs_cost_least():
    x, y = clouds(7, 7)
    rows, columns = couple(x, y, "exact", rng())
    cost = (x[rows] - y[columns]).square().sum()
    for _ in range(200):
        other = torch.randperm(7)
        assert cost <= (x - y[other]).square().sum() + 1e-5


@pytest.mark.parametrize("coupling", ["exact", "sinkhorn", "independent"])
@pytest.mark.parametrize(("n", "m"), [(60, 20), (20, 60), (50, 20)])
def test_unequal_sizes_use_every_point_of_the_larger_side_once(coupling, n, m):
    x, y = clouds(n, m)
    counts = np.zeros(min(n, m))
    generator = rng()
    for _ in range(50):
        rows, columns = couple(x, y, coupling, generator, blur=0.3)
        larger, smaller = (rows, columns) if n > m else (columns, rows)
        assert sorted(larger.tolist()) == list(range(max(n, m)))
        counts += np.bincount(smaller, minlength=min(n, m))
    # On average each point of the smaller side has its share.
    np.testing.assert_allclose(counts / 50, max(n, m) / min(n, m), atol=1)


def test_exact_pairs_of_unequal_sizes():
    """Two clusters of weights 1/4 and 3/4 on both sides: nobody changes sides."""
    x = torch.tensor([[0.0], [10.0], [10.0], [10.0]])
    y = torch.tensor([[0.1]] * 5 + [[10.1]] * 15)
    rows, columns = couple(x, y, "exact", rng())
    assert ((x[rows] - y[columns]).abs() < 1).all()


def test_sinkhorn_pairs_follow_the_plan():
    """Two points to two points: the plan's diagonal has the logistic weight of the cost's gap."""
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    blur = 1.0
    generator = rng()
    same = np.mean(
        [
            (torch.stack(couple(x, y, "sinkhorn", generator, blur=blur, tol=1e-4)).diff(dim=0) == 0)
            .float()
            .mean()
            for _ in range(2000)
        ]
    )
    # exp(0) against exp(-1/2 / blur^2) for each row, by symmetry.
    assert same == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.03)


def test_independent_pairs_are_independent():
    x, y = clouds(2000, 2000)
    rows, columns = couple(x, y, "independent", rng())
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.1
    assert sorted(columns.tolist()) == list(range(2000))


@pytest.mark.parametrize("coupling", ["exact", "sinkhorn", "independent"])
@pytest.mark.parametrize(("n", "m", "d"), [(0, 3, 2), (3, 0, 2), (3, 3, 0)])
def test_clouds_without_points(coupling, n, m, d):
    with pytest.raises(ValueError, match="at least one point"):
        couple(torch.zeros(n, d), torch.zeros(m, d), coupling, rng(), blur=0.1)
    with pytest.raises(ValueError, match="the same d"):
        couple(torch.zeros(3, 1), torch.zeros(3, 2), coupling, rng(), blur=0.1)


def test_a_plan_that_is_not_solved_is_warned_about(monkeypatch):
    x, y = clouds(50, 60)
    with pytest.warns(
        RuntimeWarning, match=r"error of [\d.]+, above 0.001. Raise blur, which is 0.001"
    ) as caught:
        couple(x, y, "sinkhorn", rng(), blur=1e-3, tol=1e-3, max_iter=2)
        couple(y, x, "sinkhorn", rng(), blur=1e-3, tol=1e-3, max_iter=2)
    assert [warning.filename for warning in caught] == [__file__, __file__]

    monkeypatch.setattr(_coupling, "_MAX_ITER", 2)
    with pytest.warns(RuntimeWarning, match=r"error of [\d.]+, above 0.01. Raise blur") as caught:
        class_probabilities(x.numpy(), np.arange(50), y.numpy(), np.arange(60) % 2, 2, blur=1e-3)
    assert [warning.filename for warning in caught] == [__file__]


OFFSETS = [0.0, 1e3, 1e4, 1e6]


def plan_of(monkeypatch, x, y, coupling="sinkhorn"):
    """The plan that pairs are drawn from."""
    plans = []

    def keep(plan, rng):
        plans.append(plan.double())
        return torch.zeros(len(plan), dtype=int)

    with monkeypatch.context() as patched:
        patched.setattr(_coupling, "_draw_columns", keep)
        couple(x, y, coupling, rng(), blur=0.05, tol=1e-4, max_iter=50_000)
    return plans[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_plan_far_from_zero_is_that_at_zero(monkeypatch, offset, scale, dtype):
    """Points that both types hold at both places: the answer at zero in float64 is the true one."""
    x, y = ((scale * cloud + offset).to(dtype) for cloud in clouds(80, 60))
    expected = plan_of(monkeypatch, x.double() - offset, y.double() - offset)
    for each in ((x, y), (y, x)):
        found = plan_of(monkeypatch, *each)
        assert (found.sum(-1) - 1).abs().max() < 1e-5
        assert (found - expected).abs().sum(-1).max() < 0.01


@pytest.mark.parametrize("offset", OFFSETS)
def test_exact_pairs_far_from_zero_cost_least(offset):
    """In float64, which holds the points; 4e-4 is the rounding of a squared norm at a million."""
    x, y = (0.01 * cloud.double() + offset for cloud in clouds(80, 80))
    rows, columns = couple(x, y, "exact", rng())
    expected = couple(x - offset, y - offset, "exact", rng())
    assert torch.equal(torch.stack([rows, columns]), torch.stack(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", OFFSETS)
def test_classes_far_from_zero_are_those_at_zero(monkeypatch, offset, dtype):
    """Two classes above one another, and the same ones moved to the right by less than their distance."""
    generator, codes = rng(), np.arange(90) % 2
    others, rows = (
        (generator.normal(size=(90, 2)) + np.outer(codes, [0, 3]) + [shift, 0] + offset).astype(dtype)
        for shift in (0, 1)
    )
    expected = classes_by_plain_sinkhorn(rows - np.array(offset), others - np.array(offset), codes, blur=0.3)
    monkeypatch.setattr(_coupling, "_TOL", 1e-5)
    found = class_probabilities(rows, np.arange(90), others, codes, 2, blur=0.3)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def classes_by_plain_sinkhorn(rows, others, codes, blur):
    """In float64, in the log domain, from differences of coordinates."""
    costs = np.square(others[:, None].astype(np.float64) - rows[None].astype(np.float64)).sum(-1) / 2
    f, g = np.zeros(len(others)), np.zeros(len(rows))
    for _ in range(3000):
        f = -(blur**2) * logsumexp((g - costs) / blur**2, axis=1, b=1 / len(rows))
        g = -(blur**2) * logsumexp((f[:, None] - costs) / blur**2, axis=0, b=1 / len(others))
    plan = softmax((f[:, None] - costs) / blur**2, axis=0)
    return np.stack([plan[codes == code].sum(0) for code in range(2)], axis=1)


def test_an_unknown_coupling():
    x, y = clouds(3, 3)
    with pytest.raises(ValueError, match="use one of"):
        couple(x, y, "best", rng())
    with pytest.raises(ValueError, match="'sinkhorn' with a blur"):
        couple(x, y, "sinkhorn", rng())
