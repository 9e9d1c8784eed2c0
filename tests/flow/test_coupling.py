import numpy as np
import pytest
import torch

from sklearn_nsgf.flow import couple


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


def test_a_coupling_that_does_not_converge_is_warned_about():
    x, y = clouds(50, 50)
    with pytest.warns(RuntimeWarning, match="Raise blur"):
        couple(x, y, "sinkhorn", rng(), blur=1e-3, tol=1e-3, max_iter=2)


def test_an_unknown_coupling():
    x, y = clouds(3, 3)
    with pytest.raises(ValueError, match="use one of"):
        couple(x, y, "best", rng())
    with pytest.raises(ValueError, match="'sinkhorn' with a blur"):
        couple(x, y, "sinkhorn", rng())
