import pytest
import torch

from sklearn_nsgf.flow._anderson import Anderson


def iterate(matrix, solution, n_steps, weights=None):
    """Distances to the solution of z <- z + A (solution - z)."""
    point = torch.zeros_like(solution)
    accelerator = Anderson(torch.ones_like(solution) if weights is None else weights)
    distances = []
    for _ in range(n_steps):
        residual = (matrix @ (solution - point).unsqueeze(-1)).squeeze(-1)
        point = point + accelerator.step(point, residual)
        distances.append((point - solution).abs().max().item())
    return distances


def test_a_linear_problem_of_two_unknowns_is_solved_by_the_first_combination():
    """With as many differences as unknowns the combined residual is zero."""
    matrix = torch.diag(torch.tensor([0.4, 0.05], dtype=torch.float64))
    distances = iterate(matrix, torch.tensor([1.0, -2.0], dtype=torch.float64), 3)
    assert distances[1] > 1
    assert distances[2] < 1e-6


def test_it_needs_far_fewer_steps_than_the_plain_iteration():
    matrix = torch.diag(torch.logspace(0, -3, 6, dtype=torch.float64))
    solution = torch.tensor([1.0, -2.0, 3.0, 1.0, 0.5, 2.0], dtype=torch.float64)
    distances = iterate(matrix, solution, 60)
    assert distances[-1] < 1e-6  # 0.999^60 = 0.94 for the plain one


def test_batches_are_independent():
    matrix = torch.diag(torch.tensor([1.0, 0.7, 0.4], dtype=torch.float64))
    solution = torch.tensor([[1.0, -2.0, 3.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    batched = iterate(matrix, solution, 4)
    singles = [iterate(matrix, row, 4) for row in solution]
    assert batched == pytest.approx([max(both) for both in zip(*singles, strict=True)], rel=1e-6)


def test_long_steps_are_cut():
    accelerator = Anderson(torch.ones(3))
    step = accelerator.step(torch.zeros(3), torch.tensor([0.0, 40.0, -20.0]))
    torch.testing.assert_close(step, torch.tensor([0.0, 10.0, -10.0]))
    short = accelerator.step(torch.zeros(3), torch.tensor([0.0, 4.0, -2.0]))
    torch.testing.assert_close(short, torch.tensor([0.0, 6.0, -3.0]))


def test_nothing_is_left_to_do_at_the_solution():
    accelerator = Anderson(torch.ones(2))
    for _ in range(4):
        torch.testing.assert_close(accelerator.step(torch.ones(2), torch.zeros(2)), torch.zeros(2))
