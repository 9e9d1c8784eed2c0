import itertools

import joblib
import numpy as np
import pytest
import torch

from sklearn_nsgf.flow import (
    ArraySampler,
    Couplings,
    GaussianSampler,
    MixtureSampler,
    PushforwardSampler,
    SinkhornFlows,
    StackedBlocks,
    _blocks,
)

TARGET = np.random.default_rng(0).uniform(size=(200, 2)).astype(np.float32)
NOISE = GaussianSampler(np.ones(2))


def flows(n_particles=64, **options):
    options = {"n_particles": n_particles, "blur": 0.1, "n_steps": 3, **options}
    return SinkhornFlows(NOISE, ArraySampler(TARGET), **options)


def couplings(source, target, coupling="exact", n_points=60):
    return Couplings(source, target, coupling=coupling, n_points=n_points, blur=0.1)


def test_flows_side_by_side_are_those_one_after_the_other(monkeypatch):
    seeds = np.random.SeedSequence(0).spawn(5)
    together = flows()
    paths = together(seeds)
    assert together.n_converged == together.n_problems
    monkeypatch.setattr(_blocks, "_SIZE_AT_ONCE", {"cpu": 1})
    torch.testing.assert_close(paths, flows()(seeds), rtol=0, atol=1e-2)


def test_small_flows_go_side_by_side():
    for n_particles, n_features, expected in ((64, 2, 64), (1024, 2, 1), (256, 784, 1)):
        noise = GaussianSampler(np.ones(n_features))
        maker = SinkhornFlows(noise, noise, n_particles=n_particles, blur=0.1, n_steps=3)
        assert maker.n_at_once == expected


def test_the_shape_of_a_block_is_known_before_it_is_made():
    drawn = []

    def moved(rows):
        drawn.append(rows)
        return rows

    start = PushforwardSampler(ArraySampler(TARGET[:40]), moved)
    makers = [
        flows(n_particles=16, n_targets=30),
        SinkhornFlows(start, ArraySampler(TARGET), n_particles=10, blur=0.1, n_steps=3),
        couplings(start, ArraySampler(TARGET)),
        couplings(NOISE, ArraySampler(TARGET), n_points=1000),
        StackedBlocks([flows(n_particles=16), flows(n_particles=7)]),
    ]
    shapes = [maker.block_shape for maker in makers]
    assert not drawn
    assert shapes == [(16, 4, 2), (10, 4, 2), (60, 2, 2), (1000, 2, 2), (23, 4, 2)]
    for maker, shape in zip(makers, shapes, strict=True):
        assert maker.n_paths == shape[0]
        assert maker(np.random.SeedSequence(0).spawn(2)).shape == (2, *shape)


def test_couplings_are_pairs_of_the_two_samples():
    source, target = ArraySampler(TARGET[:40] - 5), ArraySampler(TARGET)
    for coupling in ("independent", "exact", "sinkhorn"):
        maker = couplings(source, target, coupling)
        assert (maker.n_sources, maker.n_targets) == (40, 60)
        paths = maker(np.random.SeedSequence(0).spawn(2))
        assert paths.shape == (2, 60, 2, 2)
        ends = {tuple(end) for end in paths[0, :, 1].tolist()}
        assert len(ends) == 60  # every target point once
        assert ends <= {tuple(row) for row in TARGET.tolist()}
        starts = {tuple(start) for start in paths[:, :, 0].flatten(0, 1).tolist()}
        assert starts <= {tuple(row) for row in (TARGET[:40] - 5).tolist()}


def test_blocks_differ_unless_they_take_all_rows_of_both_sides():
    """Two blocks of different seeds hold the same paths, in another order, where `differs` is false."""
    whole, other = ArraySampler(TARGET[:40] - 5), ArraySampler(TARGET[:40])
    shifts = itertools.count()
    moved = PushforwardSampler(whole, lambda rows: rows + next(shifts))
    weighted = ArraySampler(TARGET[:40] - 5, np.linspace(0.5, 1.5, 40))
    larger = ArraySampler(TARGET[:41])

    def sinkhorn_flows(source, target, n_targets=40):
        return SinkhornFlows(source, target, n_particles=40, n_targets=n_targets, blur=0.3, n_steps=2)

    same = [
        sinkhorn_flows(whole, other),
        sinkhorn_flows(whole, larger, 41),
        couplings(whole, other),
        StackedBlocks([couplings(whole, other), couplings(other, whole)]),
    ]
    different = [
        sinkhorn_flows(NOISE, other),
        sinkhorn_flows(weighted, other),
        sinkhorn_flows(whole, larger),
        sinkhorn_flows(MixtureSampler([whole, other], [1, 1]), other),
        couplings(whole, other, "independent"),
        couplings(whole, other, "sinkhorn"),
        couplings(whole, larger),
        couplings(whole, other, n_points=39),
        couplings(weighted, other),
        couplings(moved, other),
        StackedBlocks([couplings(whole, other), couplings(NOISE, other, n_points=40)]),
    ]
    for maker in same + different:
        blocks = [sorted(block.flatten(1).tolist()) for block in maker(np.random.SeedSequence(0).spawn(2))]
        assert maker.differs == (maker in different)
        assert np.allclose(*blocks, rtol=0, atol=1e-3) != maker.differs


class Whole(ArraySampler):
    """Rows that stay where they are."""

    def __reduce__(self):
        raise TypeError("A whole sample was sent to a worker.")


@pytest.mark.parametrize("n_points", [60, 600])
def test_workers_are_sent_minibatches_and_no_samples(n_points):
    rows = np.random.default_rng(0).uniform(size=(1000, 2)).astype(np.float32)
    seeds = np.random.SeedSequence(0).spawn(5)
    options = {"blur": 0.3, "n_steps": 2}
    makers = [
        SinkhornFlows(Whole(rows), Whole(rows), n_particles=n_points, **options),
        Couplings(Whole(rows), Whole(rows), coupling="exact", n_points=n_points),
    ]
    for maker in makers:
        expected = maker(seeds)
        with joblib.parallel_config("loky", n_jobs=2):
            assert torch.equal(maker(seeds), expected)


def test_the_number_of_threads_is_given_back():
    n_threads = torch.get_num_threads()
    flows(n_jobs=2)(np.random.SeedSequence(0).spawn(2))
    assert torch.get_num_threads() == n_threads


def test_stacked_blocks_have_a_part_from_each_maker():
    class Maker:
        n_paths, block_shape, n_at_once, differs, n_failed = 3, (3, 2, 1), 1, True, 2

        def __init__(self, value):
            self.value = value

        def __call__(self, seeds):
            draws = [np.random.default_rng(seed).random() for seed in seeds]
            return self.value + torch.tensor(draws)[:, None, None, None].expand(-1, 3, 2, 1)

    stacked = StackedBlocks([Maker(0), Maker(10)])
    seeds = np.random.SeedSequence(0).spawn(4)
    blocks = stacked(seeds)
    assert blocks.shape == (4, *stacked.block_shape) == (4, 6, 2, 1)
    assert stacked.n_failed == 4
    assert ((blocks[:, :3] < 1) & (blocks[:, 3:] >= 10)).all()
    assert len(blocks.unique()) == 8  # each part of each block has a seed of its own
    torch.testing.assert_close(torch.cat([stacked(seeds[:1]), stacked(seeds[1:])]), blocks, rtol=0, atol=0)
