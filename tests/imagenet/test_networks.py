"""The ImageNet networks, their frozen parameters, and the values of procedure A2 in use."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import timm
import torch
from helpers import CPU, counts
from torch import nn

import lc
from lc.imagenet import NETWORKS, RECIPES, ImageNetRecipe, ImageNetRun, build_imagenet_model
from lc.imagenet.step import ImageNetTrainer

PARAMETERS = {  # of 1000 classes: all, and those that are learned where spatial filters are frozen
    "ResNet-18": (11_689_512, 694_632),
    "ResNet-18d": (11_708_744, 694_760),
    "ResNet-18d-LCx1": (13_107_528, 2_093_544),
    "ResNet-18d-LCx128": (1_589_529_064, 179_739_112),
    "ResNet-50": (25_557_032, 14_230_376),
    "ResNet-50d": (25_576_264, 14_230_504),
    "ResNeXt-50-32x4d": (25_028_904, 23_604_840),
    "Wide-ResNet-50x2": (68_883_240, 23_604_840),
    "MobileNet-v2": (3_504_872, 3_439_784),
    "MobileNet-v3-S": (2_542_856, 2_483_840),
    "MobileNet-v3-L": (5_483_032, 5_390_992),
}


def trainer_of(network, recipe=RECIPES["a2"], steps=10):
    return ImageNetTrainer(network, 4, recipe, steps, CPU, "fp32")


def one_batch(size=32):
    yield torch.randn(2, 3, size, size), torch.tensor([0, 3])


def test_every_network_has_its_parameters():
    assert set(NETWORKS) == {name for name in PARAMETERS if "LC" not in name}
    with torch.device("meta"):
        found = {name: counts(lc.freeze_spatial(build_imagenet_model(name))) for name in PARAMETERS}
    assert found == PARAMETERS


# grouped, depthwise, and depthwise beside LC-Blocks
@pytest.mark.parametrize("name", ["ResNeXt-50-32x4d", "MobileNet-v3-S", "MobileNet-v2-LCx2"])
def test_a_step_moves_no_frozen_filter(name):
    network = lc.freeze_spatial(build_imagenet_model(name, 4, 0.05))
    blocks = [m for m in network.modules() if isinstance(m, lc.LCBlock)]
    assert [m.spatial.out_channels for m in blocks] == ([2 * 32] if "LC" in name else [])
    spatial = {f"{at}.weight" for at, m in network.named_modules()
               if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1}
    parameters = dict(network.named_parameters())
    before = {at: p.clone() for at, p in parameters.items()}
    trainer = trainer_of(network, replace(RECIPES["a2"], profile="small", image_size=32))
    learned = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert trainer.step(one_batch()).isfinite()
    assert spatial and learned == {id(p) for at, p in parameters.items() if at not in spatial}
    assert all(p.requires_grad == (at not in spatial) for at, p in parameters.items())
    assert all(parameters[at].grad is None for at in spatial)
    moved = {at for at, p in parameters.items() if not torch.equal(p, before[at])}
    assert not moved & spatial
    assert {id(p) for p in network.get_classifier().parameters()} <= {
        id(parameters[at]) for at in moved}


@pytest.mark.parametrize("name", ["resnet18", "ResNet-18-LCx0", "ResNet-18-LCx100000", None])
def test_an_unknown_network_is_answered_with_those_that_are_known(name):
    known = "unknown ImageNet network .*; known: ResNet-18, .*MobileNet-v3-L, each also with -LCx"
    with pytest.raises(ValueError, match=known):
        build_imagenet_model(name)
    with pytest.raises(ValueError, match=known):
        ImageNetRun(name, "flowers", False, 0)
    for arguments in (0,), (4, 1.0):
        with pytest.raises(ValueError, match="must be a"):
            build_imagenet_model("ResNet-18", *arguments)


def test_a2_is_the_papers():
    assert RECIPES["a2"] == ImageNetRecipe()
    assert asdict(RECIPES["a2"]) == dict(
        profile="a2", image_size=224, crop_ratio=0.95, epochs=300, batch_size=2048,
        learning_rate=5e-3, warmup_epochs=5, warmup_learning_rate=1e-4, min_learning_rate=1e-6,
        step_on_epochs=True, weight_decay=0.02, target_threshold=0.2, drop_path=0.05, repeats=3,
        rand_augment="rand-m7-mstd0.5-inc1", mixup=0.1, cutmix=1.0, classes=None,
        images_per_class=None, min_crop=0.08, interpolation="random")


def test_the_step_has_the_recipes_parts():
    network = build_imagenet_model("ResNet-18d-LCx1", 4, RECIPES["a2"].drop_path)
    trainer = trainer_of(network)
    assert type(trainer.optimizer) is timm.optim.Lamb
    decay = {id(p): group["weight_decay"]
             for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, p in network.named_parameters():
        assert decay[id(p)] == (0 if name.endswith("bias") or p.ndim == 1 else 0.02), name
    criterion, mixup = trainer.criterion, trainer.mixup
    assert type(criterion) is timm.loss.BinaryCrossEntropy
    assert (criterion.target_threshold, criterion.smoothing) == (0.2, 0)
    assert (mixup.mixup_alpha, mixup.cutmix_alpha, mixup.label_smoothing) == (0.1, 1, 0)
    assert (mixup.mix_prob, mixup.switch_prob, mixup.mode) == (1, 0.5, "batch")
    rates = [m.drop_prob for m in network.modules() if isinstance(m, timm.layers.DropPath)]
    assert max(rates) == pytest.approx(0.05)
    assert not trainer_of(network, RECIPES["short"]).mixup


@pytest.mark.parametrize("name", ["a2", "short"])
def test_the_learning_rate_warms_up_and_falls_along_a_cosine(name):
    recipe, steps = replace(RECIPES[name], profile="twelve", epochs=12), 3
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    trainer, rates = trainer_of(network, recipe, steps), []
    for _ in range(recipe.epochs * steps):
        trainer.step(one_batch(1))
        rates += {group["lr"] for group in trainer.optimizer.param_groups}
    epochs = np.arange(len(rates)) / steps
    if name == "a2":
        epochs = np.floor(epochs)
    warm = 1e-4 + (5e-3 - 1e-4) * epochs / recipe.warmup_epochs
    cosine = 1e-6 + (5e-3 - 1e-6) * (1 + np.cos(np.pi * epochs / recipe.epochs)) / 2
    expected = np.where(epochs < recipe.warmup_epochs, warm, cosine)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_gradients_accumulate_to_those_of_the_whole_batch():
    images, labels, weights = torch.randn(6, 3, 4, 4), torch.arange(6) % 4, []
    for parts in (1, 3):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
        trainer = ImageNetTrainer(network, 4, RECIPES["short"], 1, CPU, "fp32", parts)
        batches = iter(list(zip(images.chunk(parts), labels.chunk(parts))))
        losses = [trainer.step(batches)]
        assert next(batches, None) is None
        weights.append([*losses, *network.parameters()])
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("changed", [
    {"image_size": 31}, {"epochs": True}, {"warmup_epochs": 300}, {"min_crop": 0},
    {"learning_rate": math.nan}, {"mixup": "0.1"}, {"target_threshold": 1},
    {"images_per_class": 0.5}, {"profile": "../a"}, {"interpolation": "cubic"}], ids=str)
def test_a_recipe_with_which_nothing_can_be_trained_is_refused(changed):
    with pytest.raises(ValueError):
        ImageNetRecipe(**{"profile": "own"} | changed)


def test_a_run_has_an_id_and_a_changed_recipe_its_own_profile():
    run = ImageNetRun("ResNet-18d-LCx64", "imagenet", True, 0)
    assert run.id == "imagenet/ResNet-18d-LCx64/frozen/a2/seed0"
    for recipe, message in (
            (ImageNetRecipe(epochs=100), "not the profile 'a2': give it a profile name of its own"),
            ("paper", "unknown profile 'paper'; known: a2, short, quick, smoke"),
            (lc.Recipe("smoke"), "unknown profile")):
        with pytest.raises(ValueError, match=message):
            ImageNetRun("ResNet-18", "imagenet", True, 0, recipe)
