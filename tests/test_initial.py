"""Random filters with structure over the kernel: their variance and covariance."""

import copy
import math
import re

import pytest
import torch
from torch import nn

import lc
from lc.blocks import is_spatial
from lc.initial import covariance, gaussian
from lc.names import ABLATIONS, KINDS

KERNELS = [(9, 9), (4, 4), (1, 7)]


def drawn(kind, size=(9, 9), seed=0):
    """20,000 kernels of the last of two layers."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 1, size), nn.Conv2d(100, 200, size))
    return lc.init_spatial(model, kind)[1].weight.detach()


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_total_variance_is_that_of_pytorchs_default(kind, size):
    weight = drawn(kind, size)
    assert weight.square().mean().item() == pytest.approx(1 / (3 * 100 * math.prod(size)), rel=0.03)
    weight = weight.flatten(2).flatten(0, 1)
    assert weight.mean(0).abs().max() < 5 * weight.std(0).max() / 20_000 ** 0.5


def test_a_gaussian_weights_independent_uniform_weights():
    weight = drawn("gauss").flatten(2)
    deviation = gaussian((9, 9)) / (100 * 81) ** 0.5
    assert (weight.abs() <= deviation).all()
    assert weight.abs().amax((0, 1)).allclose(deviation, rtol=1e-3)
    correlation = torch.corrcoef(weight.flatten(0, 1).T)
    assert (correlation - torch.eye(81)).abs().max() < 6 / 20_000 ** 0.5
    for size in (9, 5):  # one width in pixels for every kernel
        bell = gaussian((size, size)).view(size, size)
        ratio = (bell[size // 2, size // 2 + 2] / bell.max()).item()
        assert ratio == pytest.approx(math.exp(-2 ** 2 / (2 * 1.5 ** 2)), rel=1e-5)


def test_the_covariance_written_out():
    s = 0.5 + 0.5 + 1.5
    expected = torch.empty(25, 25, dtype=torch.float64)
    places = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            p, q, between = (math.exp(-(a ** 2 + b ** 2) / (2 * s))
                             for a, b in ((y, x), (v, u), (y - v, x - u)))
            expected[i, j] = math.sqrt(p * q) * between - p * q / 2
    expected *= 25 / expected.trace()
    torch.testing.assert_close(covariance((5, 5), 1).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("depth", [0, 1])
def test_the_covariance_is_one(size, depth):
    values = torch.linalg.eigvalsh(covariance(size, depth).double())
    assert values.min() > -1e-5 and values.sum() == pytest.approx(math.prod(size), rel=1e-5)


@pytest.mark.parametrize("kind", ABLATIONS)
def test_an_ablation_keeps_its_part_of_the_covariance(kind):
    weight = drawn(kind, (5, 5)).flatten(2).flatten(0, 1).double()
    whole, ours = covariance((5, 5), 1).double(), torch.cov(weight.T) * 3 * 100 * 25
    variance = whole.diagonal()
    if kind == "shuffled":  # the same variances and spectrum, at other positions
        assert not ours.diagonal().allclose(variance, rtol=0.1)
        torch.testing.assert_close(ours.diagonal().sort()[0], variance.sort()[0], rtol=0.1, atol=0)
        expected, ours = torch.linalg.eigvalsh(whole), torch.linalg.eigvalsh(ours)
    elif kind == "envelope":
        expected = torch.diag(variance)
    elif kind == "correlation":
        expected = whole / torch.outer(variance, variance).sqrt()
    else:
        expected = whole
    torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.12)


@pytest.mark.parametrize("kind", KINDS)
def test_only_spatial_weights_of_a_named_network_change_and_a_seed_repeats_them(kind):
    def built(name):
        torch.manual_seed(3)
        return lc.build_model(name)

    default = built("ResNet-LC-8-4x2-k5")
    ours, again = (built(f"ResNet-LC-8-4x2-k5~{kind}") for _ in range(2))
    spatial = {f"{name}.weight" for name, m in default.named_modules() if is_spatial(m)}
    assert len(spatial) == 7
    for name, value in default.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]) != (name in spatial), name
        assert torch.equal(ours.state_dict()[name], again.state_dict()[name])
    middle = lc.variance_map(ours)[2, 2] / lc.variance_map(default)[2, 2]
    assert middle > 1.3 or kind in ("correlation", "shuffled")


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_dtype_changes_no_draw(kind):
    drawn = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            layer = nn.Conv2d(2, 3, 5)
            torch.manual_seed(0)
            drawn.append(lc.init_spatial(layer, kind).weight)
        finally:
            torch.set_default_dtype(torch.float32)
    assert [weight.dtype for weight in drawn] == [torch.float32, torch.float64]
    torch.testing.assert_close(*drawn, check_dtype=False)


def test_any_network_is_drawn_anew_and_returned():
    model = nn.Sequential(nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 4, 1),
                          nn.ConvTranspose2d(4, 2, 4), nn.Linear(2, 2)).double()
    before = copy.deepcopy(model.state_dict())
    with torch.device("meta"):  # where new tensors go does not matter
        assert lc.init_spatial(model, "gauss") is model and model[0].weight.requires_grad
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        "0.weight", "2.weight"}


@pytest.mark.parametrize("model, kind, message", [
    (nn.Conv2d(1, 1, 3), "gaus", "unknown initialisation 'gaus'; known: " + ", ".join(KINDS)),
    (nn.Sequential(nn.Conv2d(1, 1, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3))),
     "gauss", "parametrization"),
])
def test_what_cannot_be_drawn_is_said_before_anything_is(model, kind, message):
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=re.escape(message)):
        lc.init_spatial(model, kind)
    assert all(map(torch.equal, before, model.parameters()))
