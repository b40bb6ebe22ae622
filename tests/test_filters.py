"""Filter variance entropy against the authors' code, and variance maps against plain numpy."""

import math

import numpy as np
import pytest
import torch
import torchconvquality
from torch import nn

import lc
from lc.filters import summarize


@pytest.mark.parametrize("shape", [(16, 3, 3, 3), (3, 2, 3, 3), (16, 8, 5, 5)])
def test_entropy_equals_the_authors(shape):
    correlated = torch.randn(shape) * torch.logspace(-3, 3, shape[2] ** 2).view(shape[2:])
    for weight in (torch.randn(shape), torch.rand(shape) + 3, correlated,
                   torch.randn(shape).to(memory_format=torch.channels_last)):
        expected = torchconvquality.variance_entropy(weight.double().contiguous())
        assert lc.variance_entropy(weight) == pytest.approx(expected[0], rel=1e-10)
        if shape[2] == 3:
            normalized = lc.variance_entropy(weight, normalize=True)
            assert normalized == pytest.approx(expected[1], rel=1e-10)
        else:
            with pytest.raises(ValueError, match="3x3 kernels only, not 5x5"):
                lc.variance_entropy(weight, normalize=True)


@pytest.mark.parametrize("directions", [1, 2, 5, 9])
def test_entropy_of_known_weights(directions):
    kernels = torch.cat([torch.eye(9)[:directions], -torch.eye(9)[:directions]])
    entropy = lc.variance_entropy(kernels.view(-1, 1, 3, 3))
    assert entropy == pytest.approx(math.log10(directions), abs=1e-14)
    kernels = torch.diag(torch.tensor([2.0, 1, 1, 0, 0, 0, 0, 0, 0]))[:3]  # variances 4 : 1 : 1
    assert lc.variance_entropy(kernels[:2].view(2, 1, 3, 3), normalize=True) == 0
    entropy = lc.variance_entropy(torch.cat([kernels, -kernels]).view(3, 2, 3, 3))
    assert entropy == pytest.approx(math.log10(6) - 4 / 6 * math.log10(4), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3, 10_007])
def test_collapsed_layers_have_no_entropy(n, dtype):
    awkward = torch.tensor([0.1, 0.2, 0.3, 0.7, -1 / 3, 1.1, 5e-3, 1e-4, 0], dtype=dtype)
    for kernel in (awkward * 1e-20, awkward * 1e15, awkward[:1].expand(9), awkward * 0):
        assert lc.variance_entropy(kernel.expand(n, 9).reshape(n, 1, 3, 3)) == 0.0
        assert lc.variance_entropy(kernel.expand(n, 9).reshape(1, n, 3, 3), normalize=True) == 0.0


def test_entropy_ignores_scale_and_shift():
    weight = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    entropy = lc.variance_entropy(weight)
    shift = torch.randn(3, 3, dtype=torch.float64)
    for other in (weight * 1e-300, weight * -1e300, weight + shift, weight.flip(0), weight.mT):
        assert lc.variance_entropy(other) == pytest.approx(entropy, rel=1e-9)
    # nearly equal kernels are as diverse as their differences: a collapse is exact
    assert lc.variance_entropy(0.1 + 1e-10 * weight) == pytest.approx(entropy, rel=1e-4)


def test_randomness_threshold():
    middle = lc.randomness_threshold(2 ** 2.30436435)
    assert middle == pytest.approx(1.2618047 / 2 - 0.31050834, rel=1e-12)
    for n in (2, 27, 48, 256, 4096, 10 ** 6):
        expected = torchconvquality._entropy_max_threshold(n)
        assert lc.randomness_threshold(n) == pytest.approx(expected, rel=1e-14)


def numpy_variance_map(weights):
    stacked = np.concatenate([(w / w.std()).reshape(-1, *w.shape[2:]) for w in weights])
    return np.moveaxis(stacked, 0, -1).var(-1)


def test_variance_map_equals_numpy():
    block = lc.LCBlock(8, 8, 3, expansion=2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), block, nn.Conv2d(8, 8, 1),
                          nn.Conv2d(8, 8, 3, groups=8)).double().requires_grad_(False)
    model[0].weight[:, :, 1, 1] += 5
    p, s = block.pointwise.weight.numpy()[:, :, 0, 0], block.spatial.weight.numpy()
    weights = [model[0].weight.numpy(), np.einsum("ij,jckl->ickl", p, s), model[4].weight.numpy()]
    actual = lc.variance_map(model)
    assert actual.shape == (3, 3)
    np.testing.assert_allclose(actual.numpy(), numpy_variance_map(weights), rtol=1e-10)


def test_variance_map_of_random_layers_is_one_everywhere():
    model = lc.build_model("ResNet-20-16-k5")
    assert (lc.variance_map(model) - 1).abs().max() < 0.05
    model.blocks[0].conv1.weight.data *= 1e20  # each layer counts by its own standard deviation
    assert (lc.variance_map(model) - 1).abs().max() < 0.05


def test_variance_map_of_several_kernel_sizes():
    model = nn.Sequential(*(nn.Conv2d(8, 8, k) for k in (5, 3, 1, 3)))
    with pytest.raises(ValueError, match=r"\(3, 3\), \(5, 5\).*kernel_size="):
        lc.variance_map(model)
    weights = [m.weight.detach().double().numpy() for m in model]
    for k, ours in ((5, weights[:1]), (3, weights[1::2])):
        actual = lc.variance_map(model, k).numpy()
        np.testing.assert_allclose(actual, numpy_variance_map(ours), rtol=1e-5)
    for missing in (7, 1):
        with pytest.raises(ValueError, match="kernel_size="):
            lc.variance_map(model, missing)


@pytest.mark.parametrize("name, first", [
    ("ResNet-LC-8-64x2", (32, 3, 3, 3)), ("ResNet-LC-8-4x2-k5", (4, 3, 5, 5)),
    ("ResNet-LC-8-4x2+ReLU", (8, 3, 3, 3)),
])
def test_summarize(name, first):
    model = lc.build_model(name)
    arrays, filters = summarize(model), lc.combined_filters(model)
    assert set(arrays) == {"variance_map", "first", "last", "singular_values"}
    assert arrays["variance_map"].dtype == np.float32 and arrays["first"].shape == first
    np.testing.assert_allclose(arrays["variance_map"], lc.variance_map(model), rtol=1e-6)
    np.testing.assert_array_equal(arrays["first"], filters["conv1"][:32].half())
    last = list(filters.values())[-1]
    norms = last[:32, :32].flatten(0, 1).norm(dim=(1, 2)).topk(8).values
    kept = np.linalg.norm(arrays["last"].astype(float), axis=(1, 2))
    np.testing.assert_allclose(kept, norms, rtol=2e-3)
    squares = torch.linalg.eigvalsh(last.flatten(1) @ last.flatten(1).T).flip(0)
    np.testing.assert_allclose(arrays["singular_values"] ** 2, squares, atol=1e-5)


@pytest.mark.parametrize("value", [0, 0.1])
def test_variance_map_counts_a_constant_layer_as_zeros(value):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    model[1].weight.data.fill_(value)
    kernels = model[0].weight.detach().double().flatten(0, 1)
    stacked = torch.cat([kernels / kernels.std(correction=0), torch.zeros(64, 3, 3)])
    torch.testing.assert_close(lc.variance_map(model), stacked.var(0, correction=0))
