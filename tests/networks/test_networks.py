import pytest
import torch
from torch import nn

from sklearn_nsgf.networks import MLP, make_network


def test_the_default_has_the_papers_size():
    widths = [layer.out_features for layer in make_network(2).layers if isinstance(layer, nn.Linear)]
    assert widths == [256, 256, 256, 2]


def test_time_and_place_matter():
    network = make_network(3, hidden_layer_sizes=(8,))
    t, x = torch.tensor([0.0, 1.0]), torch.ones(2, 3)
    at_zero, at_one = network(t, x)
    assert not torch.allclose(at_zero, at_one)
    assert not torch.allclose(network(t, x), network(t, 2 * x))


def test_the_seed_decides_and_torch_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (make_network(2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_module_is_copied():
    module = MLP(2, (4,))
    made = make_network(2, network=module)
    assert made is not module
    assert torch.equal(made.layers[0].weight, module.layers[0].weight)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (MLP(3, (4,)), "raised"),
        (lambda n_features: nn.Linear(n_features, n_features), "raised"),
        (lambda n_features: None, "NoneType"),
        (nn.Bilinear(1, 1, 1), "raised"),
        (nn.Identity(), "no parameters"),
    ],
)
def test_a_network_of_another_signature_is_explained(network, message):
    with pytest.raises(ValueError, match=r"network must map times t of shape \(n,\)") as raised:
        make_network(2, network=network)
    assert message in str(raised.value)
