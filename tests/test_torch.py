import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from clouds import two_clouds

from sklearn_nsgf import NSGFPlusPlus
from sklearn_nsgf._torch import RandomStream, one_thread


@pytest.fixture(autouse=True)
def two_threads():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(n_threads)


def number_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("first_ends_first", [True, False])
def test_overlapping_blocks_leave_every_thread_its_number(first_ends_first, is_known):
    """The other thread may have used torch before, or start inside the first one's block."""
    inside, may_end = threading.Event(), threading.Event()

    def other_block():
        with one_thread:
            inside.set()
            assert may_end.wait(10)
            number = torch.get_num_threads()
        return number, torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        if is_known:
            assert pool.submit(torch.get_num_threads).result() == 2
        with one_thread:
            other = pool.submit(other_block)
            assert inside.wait(10)
            if not first_ends_first:
                may_end.set()
                other.result()
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        may_end.set()
        assert other.result() == (1, 2)
    assert torch.get_num_threads() == 2
    assert number_of_a_new_thread() == 2


def test_a_block_within_a_block_of_the_same_thread():
    with one_thread:
        with one_thread:
            pass
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread:
        raise KeyError
    assert torch.get_num_threads() == 2


def test_a_thread_that_was_left_with_one_takes_none_from_the_others():
    """It has started inside a block, without one of its own, and is later the first inside."""
    with ThreadPoolExecutor(1) as pool:
        with one_thread:
            pool.submit(torch.get_num_threads).result()
        inside, may_end = threading.Event(), threading.Event()

        def block():
            with one_thread:
                inside.set()
                assert may_end.wait(10)

        other = pool.submit(block)
        assert inside.wait(10)
        with one_thread:
            pass
        assert torch.get_num_threads() == 2
        may_end.set()
        other.result()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("transition", ["direct", "predicted"])
def test_fits_at_the_same_time_are_those_of_one_after_the_other(transition):
    """And torch's own generator is left as it was."""
    source, target = two_clouds(60, 50)
    options = {"n_flows": 2, "flow_batch_size": 32, "n_couplings": 4, "coupling_batch_size": 32}
    small = {"hidden_layer_sizes": (16,), "max_iter": 60, "early_stopping": False, "n_jobs": 1}

    def fit(seed):
        est = NSGFPlusPlus(**options, **small, transition=transition, random_state=seed)
        return est.fit(source, target).transform(source)

    state = torch.get_rng_state()
    expected = [fit(seed) for seed in range(3)]
    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(fit, [0, 1, 2, 0, 1, 2]))
        for each, one in zip(found, expected * 2, strict=True):
            np.testing.assert_array_equal(each, one)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("last_call", [1, 2, 3])
def test_ctrl_c_in_a_turn_gives_the_turn_back(monkeypatch, last_call):
    class Interrupting:
        n_calls = 0

        def __getattr__(self, name):
            self.n_calls += 1
            if self.n_calls == last_call:
                raise KeyboardInterrupt
            return getattr(torch.default_generator, name)

    state, generator = torch.get_rng_state(), Interrupting()
    with monkeypatch.context() as patch:
        patch.setattr(RandomStream, "generators", staticmethod(lambda: (generator,)))
        with pytest.raises(KeyboardInterrupt), RandomStream(0).turn():
            torch.rand(1)
    assert torch.equal(torch.get_rng_state(), state)

    def draw():
        with RandomStream(0).turn():
            return torch.rand(1)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(draw).result(timeout=10) == draw()
