import pytest
import torch
from torch import nn

from sklearn_nsgf.networks import MLP, ImageRows, TimePredictor, UNet, _factory, make_network


def test_the_default_has_the_papers_size():
    widths = [layer.out_features for layer in make_network((2,)).layers if isinstance(layer, nn.Linear)]
    assert widths == [256, 256, 256, 2]


def test_time_and_place_matter():
    network = make_network((3,), hidden_layer_sizes=(8,))
    t, x = torch.tensor([0.0, 1.0]), torch.ones(2, 3)
    assert not network(t, x).any()  # nothing moves at the start
    with torch.no_grad():
        network.layers[-1].weight.normal_()
    at_zero, at_one = network(t, x)
    assert not torch.allclose(at_zero, at_one)
    assert not torch.allclose(network(t, x), network(t, 2 * x))


def test_the_seed_decides_and_torch_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (make_network((2,), seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_module_is_copied():
    module = MLP(2, (4,))
    made = make_network((2,), network=module)
    assert made is not module
    assert torch.equal(made.layers[0].weight, module.layers[0].weight)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (MLP(3, (4,)), "raised"),
        (lambda event_shape: nn.Linear(*event_shape, *event_shape), "raised"),
        (lambda event_shape: None, "NoneType"),
        (nn.Bilinear(1, 1, 1), "raised"),
        (nn.Identity(), "no parameters"),
    ],
)
def test_a_network_of_another_signature_is_explained(network, message):
    with pytest.raises(ValueError, match=r"network must map times t of shape \(n,\)") as raised:
        make_network((2,), network=network)
    assert message in str(raised.value)


@pytest.mark.parametrize("image_shape", [(1, 1, 1), (1, 8, 8), (3, 15, 9), (2, 28, 5)])
def test_a_unet_takes_any_size(image_shape):
    network = UNet(image_shape, n_channels=8, n_blocks=2, attention_levels=(0, 2), n_heads=2, dropout=0.1)
    assert network(torch.rand(3), torch.rand(3, *image_shape)).shape == (3, *image_shape)


def test_a_unet_starts_as_zero_and_learns_from_all_its_parameters():
    network = UNet((1, 8, 8), n_channels=8)
    t, x = torch.rand(4), torch.rand(4, 1, 8, 8)
    assert not network(t, x).any()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (network(t, x) - x * t[:, None, None, None]).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in network.parameters())
    at_zero, at_one = network(torch.tensor([0.0, 1.0]), x[:1].expand(2, -1, -1, -1))
    assert not torch.allclose(at_zero, at_one)


def test_the_papers_sizes():
    def size(network):
        return sum(parameter.numel() for parameter in network.parameters())

    assert size(UNet((1, 28, 28))) == pytest.approx(1e6, rel=0.3)
    cifar = UNet((3, 32, 32), n_channels=128, channel_multipliers=(1, 2, 2, 2), n_blocks=2, n_heads=4)
    assert size(cifar) == pytest.approx(36e6, rel=0.1)


def test_a_unet_sees_its_labels():
    network = UNet((1, 4, 4), n_channels=4, n_classes=3)
    nn.init.normal_(network.last[-1].weight)
    for block in [*network.down, *network.up]:
        nn.init.normal_(block.conv_out.weight)
    t, x = torch.zeros(2), torch.ones(2, 1, 4, 4)
    first, second = network(t, x, torch.tensor([0, 2]))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    "options",
    [{"attention_levels": (7,)}, {"channel_multipliers": ()}, {"image_shape": (28, 28)}],
)
def test_a_unet_of_impossible_levels(options):
    with pytest.raises(ValueError, match="expected \\(C, H, W\\)"):
        UNet(**{"image_shape": (1, 8, 8), "n_channels": 4, **options})


def test_attention_needs_heads_that_divide_the_channels():
    with pytest.raises(ValueError, match="n_heads=3 must divide the 16 channels"):
        UNet((1, 8, 8), n_channels=8, n_heads=3)


def test_image_rows_are_images_with_their_channels_first():
    class Red(nn.Module):
        def forward(self, t, x):
            return x * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1) * t[:, None, None, None]

    x = torch.arange(12.0).view(1, 12)
    moved = ImageRows(Red(), (2, 2, 3))(torch.tensor([2.0]), x)
    assert torch.equal(moved, torch.cat([2 * x[:, :6], torch.zeros(1, 6)], dim=1))


def test_images_train_in_bfloat16_and_answer_in_full(monkeypatch):
    monkeypatch.setattr(_factory, "_cpu_has_bfloat16", lambda: True)
    unet = UNet((1, 6, 6), n_channels=8)
    nn.init.normal_(unet.last[-1].weight)
    network = ImageRows(unet, (1, 6, 6))
    t, x = torch.rand(4), torch.randn(4, 36)
    rounded = network(t, x)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    exact = network.eval()(t, x)
    assert not torch.equal(exact, exact.bfloat16().float())
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)
    monkeypatch.setattr(_factory, "_cpu_has_bfloat16", lambda: False)
    slow = ImageRows(unet, (1, 6, 6))(t, x)
    torch.testing.assert_close(slow, exact)


def test_time_predictors_of_images():
    network = TimePredictor(30, image_shape=(3, 5, 2))
    t = network(torch.randn(4, 30))
    assert t.shape == (4,)
    assert ((t > 0) & (t < 1)).all()


def test_a_third_partys_unet():
    diffusers = pytest.importorskip("diffusers")

    class Adapter(nn.Module):
        def __init__(self, event_shape):
            super().__init__()
            self.network = diffusers.UNet2DModel(
                sample_size=event_shape[1:],
                in_channels=event_shape[0],
                out_channels=event_shape[0],
                block_out_channels=(32, 32),
                down_block_types=("DownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "UpBlock2D"),
            )

        def forward(self, t, x):
            return self.network(x, 1000 * t).sample

    network = make_network((1, 8, 8), network=Adapter)
    assert network(torch.rand(2), torch.rand(2, 1, 8, 8)).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="called as network"):
        make_network((1, 8, 8), network=Adapter((1, 8, 8)).network)


class Normalised(nn.Module):
    """Has statistics of its batches."""

    def __init__(self, event_shape):
        super().__init__()
        self.norm = nn.BatchNorm1d(*event_shape)

    def forward(self, t, x):
        return self.norm(x)


def test_a_check_moves_no_batch_statistics():
    given = Normalised((3,))
    given.norm.running_mean += 3
    for made in (make_network((3,), network=given), make_network((3,), network=Normalised)):
        assert made.norm.num_batches_tracked == 0
        assert made.norm.training
    assert torch.equal(make_network((3,), network=given).norm.running_mean, torch.full((3,), 3.0))
