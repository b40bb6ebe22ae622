"""Weight decay on parts of LC-Blocks, and the names of recipes with another weight decay."""

from dataclasses import replace

import pytest
import torch
from helpers import epoch, short_run, trainer_of

import lc
from lc.blocks import LCBlock
from lc.fast import FastTrainer
from lc.run import DECAYED, recipe_named
from lc.training import Trainer

DECAY = 0.05


@pytest.mark.parametrize("kind", [Trainer, FastTrainer])
@pytest.mark.parametrize("decayed, frozen", [
    *((part, False) for part in DECAYED), ("factors", True), ("product", True)])
def test_the_first_step_adds_the_gradient_of_the_decay_that_is_asked_for(decayed, frozen, kind):
    ours, without = (
        trainer_of(short_run(frozen=frozen, profile="mine", train_images=24, decayed=decayed,
                             weight_decay=decay), dtype=torch.float64, kind=kind)
        for decay in (DECAY, 0.0))
    parameters = list(ours.network.parameters())
    blocks = [m for m in ours.network.modules() if isinstance(m, LCBlock)]
    spatial, pointwise = [b.spatial.weight for b in blocks], [b.pointwise.weight for b in blocks]
    decaying = {"factors": spatial + pointwise, "spatial": spatial, "pointwise": pointwise,
                "product": [b.combined_weight() for b in blocks]}[decayed]
    decaying += [p for p in parameters if p not in {*spatial, *pointwise}]
    learned = [p for p in parameters if p.requires_grad]
    penalty = sum(each.square().sum() for each in decaying) / 2
    gradients = dict(zip(learned, torch.autograd.grad(penalty, learned, materialize_grads=True)))
    before = [p.detach().clone() for p in parameters]
    epoch(ours), epoch(without)
    step = 1.9 * 0.01 * DECAY  # Nesterov's first step with momentum 0.9 is 1.9 gradients
    for start, p, plain in zip(before, parameters, without.network.parameters()):
        if p.requires_grad:
            torch.testing.assert_close(plain - p, step * gradients[p], rtol=1e-6, atol=1e-9)
        else:
            assert torch.equal(p, start)
    assert torch.equal(ours.losses[0], without.losses[0])  # cross-entropy alone


@pytest.mark.parametrize("between", ["+ReLU", "+BN"])
def test_a_product_that_does_not_exist_has_no_decay(between):
    with pytest.raises(ValueError, match="no product to decay"):
        short_run(f"ResNet-LC-8-8x2{between}", profile="mine", decayed="product")


@pytest.mark.parametrize("kind", [Trainer, FastTrainer])
@pytest.mark.parametrize("part", ["spatial", "pointwise"])
def test_a_factor_decays_beside_operations_between(part, kind):
    run = short_run("ResNet-LC-8-8x2+ReLU", False, profile="mine", decayed=part)
    ours = trainer_of(run, kind=kind)
    blocks = [m for m in ours.network.modules() if isinstance(m, LCBlock)]
    other = {"spatial": "pointwise", "pointwise": "spatial"}[part]
    spared = ours.optimizer.param_groups[1]
    assert spared["weight_decay"] == 0 and ours.optimizer.param_groups[0]["weight_decay"] > 0
    assert {id(p) for p in spared["params"]} == {id(getattr(b, other).weight) for b in blocks}


def test_the_name_of_a_profile_says_another_decay():
    short = lc.PROFILES["short"]
    for name, change in (("short-decay1e-3", dict(weight_decay=1e-3)),
                         ("short-decay-product", dict(decayed="product"))):
        assert recipe_named(name) == replace(short, profile=name, **change)
    assert recipe_named("short-decay1e-2") == short  # one recipe, one name
    run = lc.Run("ResNet-20-16", "cifar10", False, 0, "paper-decay5e-3")
    assert run.id == "cifar10/ResNet-20-16/learnable/paper-decay5e-3/seed0"
    assert run.recipe.epochs == 75
    for name in ("short-decay", "short-decay0", "papr-decay1e-3", "short-decay-factors",
                 "short-decay1e-3-decay1e-3"):
        with pytest.raises(ValueError, match="unknown profile"):
            recipe_named(name)
    with pytest.raises(ValueError, match="is not the profile"):
        lc.Run("ResNet-20-16", "cifar10", False, 0, replace(short, profile="short-decay1e-3"))
