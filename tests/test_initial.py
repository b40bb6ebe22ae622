"""Random filters with structure over the kernel: their variance, their covariance, and what stays as it was."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import result
from torch import nn

import lc
from lc import results, study
from lc.__main__ import main
from lc.blocks import is_spatial
from lc.initial import KINDS, MEASURED, covariance, envelope, measured_map

KERNELS = [(3, 3), (9, 9), (4, 4), (1, 7)]
CASES = [(kind, size) for kind in KINDS for size in KERNELS if kind != "map" or size in ((3, 3), (9, 9))]


@pytest.fixture(autouse=True)
def learned(tmp_path, monkeypatch):
    """A store with the rows of the maps: the variance grows from left to right, and the centre's is largest."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path))
    for k in (3, 5, 9):
        run = lc.Run(MEASURED.format(k=f"-k{k}").split("/")[1], "cifar10", False, 0, "short")
        variance = np.tile(np.arange(1.0, k + 1), (k, 1)) + 3.0 * k * (np.indices((k, k)) == k // 2).all(0)
        results.append(replace(result(), id=run.id, model=run.model, dataset="cifar10", frozen=False, seed=0, profile="short",
                               arrays={"variance_map": variance.astype(np.float32)}))


def drawn(kind, size=(9, 9), seed=0):
    """20,000 kernels of the last of two layers."""
    torch.manual_seed(seed)
    return lc.init_spatial(nn.Sequential(nn.Conv2d(1, 1, size), nn.Conv2d(100, 200, size)), kind)[1].weight.detach()


@pytest.mark.parametrize("kind, size", CASES)
def test_the_total_variance_is_that_of_pytorchs_default(kind, size):
    weight = drawn(kind, size)
    assert weight.square().mean().item() == pytest.approx(1 / (3 * 100 * math.prod(size)), rel=0.03)
    assert weight.flatten(2).mean((0, 1)).abs().max() < 5 * weight.flatten(2).std((0, 1)).max() / 20_000 ** 0.5


def test_an_envelope_weights_independent_uniform_weights():
    weight = drawn("gauss").flatten(2)
    deviation = envelope("gauss", (9, 9)) / (100 * 81) ** 0.5
    assert (weight.abs() <= deviation).all() and weight.abs().amax((0, 1)).allclose(deviation, rtol=1e-3)
    correlation = torch.corrcoef(weight.flatten(0, 1).T)
    assert (correlation - torch.eye(81)).abs().max() < 6 / 20_000 ** 0.5


def test_the_gaussian_has_one_width_in_pixels_for_every_kernel():
    large, small = (envelope("gauss", (k, k)).view(k, k) for k in (9, 5))
    assert (large[2:-2, 2:-2] / small).std() < 1e-5
    assert (large[4, 7] / large[4, 4]).item() == pytest.approx(math.exp(-3 ** 2 / (2 * 1.5 ** 2)), rel=1e-5)


def test_the_map_is_that_of_the_learned_filters_without_a_direction():
    expected = torch.full((5, 5), 3.0)  # the mean of 1 to 5, once there are no left and right
    expected[2, 2] += 15
    rings = measured_map((5, 5))
    assert rings[2, 2] == expected[2, 2] and rings.mean() == expected.mean() and torch.equal(rings, rings.T)
    torch.testing.assert_close(drawn("map", (5, 5)).flatten(2).var((0, 1)) * 7500, (rings / rings.mean()).flatten(), rtol=0.1, atol=0)


@pytest.mark.parametrize("size, name", [((7, 7), "train cifar10/ResNet-LC-8-16x1-k7/learnable/short/seed0 first"),
                                        ((1, 7), "learned 1x7 filters"), ((4, 4), "learned 4x4 filters")])
def test_a_map_that_is_not_there_names_the_run_that_gives_it(size, name):
    with pytest.raises(ValueError, match=name):
        lc.init_spatial(nn.Conv2d(1, 1, size), "map")


def test_a_network_without_values_to_be_loaded_needs_no_map():
    with torch.device("meta"):
        assert lc.build_model("ResNet-8-2-k7~map").conv1.weight.is_meta


def test_the_covariance_is_drawn_and_written_out():
    weight, s = drawn("covariance", (5, 5)).flatten(2).flatten(0, 1).double(), 0.5 + 0.5 + 1.5
    expected = torch.empty(25, 25, dtype=torch.float64)
    places = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            about = [math.exp(-(a ** 2 + b ** 2) / (2 * s)) for a, b in ((y, x), (v, u), (y - v, x - u))]
            expected[i, j] = math.sqrt(about[0] * about[1]) * about[2] - about[0] * about[1] / 2
    expected *= 25 / expected.trace()
    torch.testing.assert_close(covariance((5, 5), 1).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.cov(weight.T) * 3 * 100 * 25, expected, rtol=0, atol=0.12)


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("depth", [0, 0.5, 1])
def test_the_covariance_is_one(size, depth):
    values = torch.linalg.eigvalsh(covariance(size, depth).double())
    assert values.min() > -1e-5 and values.sum() == pytest.approx(math.prod(size), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_spatial_weights_of_a_named_network_change_and_a_seed_repeats_them(kind):
    def built(name, seed=3):
        torch.manual_seed(seed)
        return lc.build_model(name)

    default, ours, again = built("ResNet-LC-8-4x2-k5"), built(f"ResNet-LC-8-4x2-k5~{kind}"), built(f"ResNet-LC-8-4x2-k5~{kind}")
    spatial = {f"{name}.weight" for name, module in default.named_modules() if is_spatial(module)}
    assert len(spatial) == 7
    for name, value in default.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]) != (name in spatial), name
        assert torch.equal(ours.state_dict()[name], again.state_dict()[name])
    middle = lc.variance_map(ours)[2, 2] / lc.variance_map(default)[2, 2]
    assert middle > 1.3


def test_any_network_is_drawn_anew_and_returned():
    model = nn.Sequential(nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 4, 1), nn.ConvTranspose2d(4, 2, 4), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert lc.init_spatial(model.double(), "gauss") is model
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name].double())}
    assert changed == {"0.weight", "2.weight"} and model[0].weight.dtype == torch.float64 and model[0].weight.requires_grad


@pytest.mark.parametrize("model, kind, message", [
    (nn.Conv2d(1, 1, 3), "gaus", "unknown initialisation 'gaus'; known: " + ", ".join(KINDS)),
    (nn.Conv2d(1, 1, 3), None, "unknown initialisation None; known: gauss"), ("ResNet-20", "gauss", "the model must be an nn.Module"),
    (nn.Sequential(nn.Conv2d(1, 1, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3))), "gauss", "parametrization"),
])
def test_what_cannot_be_drawn_is_said_before_anything_is(model, kind, message):
    before = [p.clone() for p in model.parameters()] if isinstance(model, nn.Module) else []
    with pytest.raises(ValueError, match=re.escape(message)):
        lc.init_spatial(model, kind)
    assert all(torch.equal(p, q) for p, q in zip(before, getattr(model, "parameters", list)()))


def test_the_experiment_is_figure_8s_lc_networks_and_the_same_frozen_with_each_kind():
    runs = study.initialisation()
    assert {run for run in runs if not run.architecture.initial} <= set(study.figure8())
    assert {run.architecture.initial for run in runs} == {"", *KINDS} and len(runs) == 4 * 3 * 4 * (2 + len(KINDS))
    assert all(run.frozen for run in runs if run.architecture.initial)
    names = {run.model for run in study.initialisation("short", kernel_sizes=[7], expansions=[2], seeds=[1])}
    assert names == {f"ResNet-LC-8-16x2-k7{kind}" for kind in ("", *(f"~{kind}" for kind in KINDS))}
    assert {lc.Run(MEASURED.format(k=k).split("/")[1], "cifar10", False, 0, "short") for k in ("", "-k5", "-k7", "-k9")} <= set(
        study.initialisation("short"))


def test_large_kernels_come_first_and_the_kind_that_needs_learned_filters_last():
    architectures = [run.architecture for run in study.initialisation("short", seeds=[0])]
    needs = [architecture.initial == "map" for architecture in architectures]
    assert needs == sorted(needs) and sum(needs) == 12
    first, = {(a.kernel_size, a.expansion) for a in architectures[:4]}
    assert first == (9, 1)


def test_a_run_takes_its_map_from_the_results_that_it_is_trained_for(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_RESULTS_DIR", "")
    name = "ResNet-LC-8-8x1-k9~map"
    main(["train", name, "--dataset", "digits", "--profile", "smoke", "--frozen", "--results", str(tmp_path), "--device", "cpu"])
    assert f"digits/{name}/frozen/smoke/seed0" in results.load_rows(tmp_path)


def test_a_run_whose_map_is_missing_fails_alone(tmp_path):
    runs = study.initialisation("smoke", kernel_sizes=[7], expansions=[1])
    with pytest.raises(lc.TrainingError, match="no variance map of learned 7x7 filters"):
        study.train_missing([run for run in runs if run.architecture.initial], tmp_path, device="cpu")
    assert {run_id.split("~")[1].split("/")[0] for run_id in results.load_rows(tmp_path) if "~" in run_id} == {"gauss", "covariance"}
