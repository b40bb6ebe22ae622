"""The precision of a recipe: it goes before what else asks for one."""

import pytest
import torch

import lc
from lc.fast import FastTrainer
from lc.training import Trainer


def run(precision):
    recipe = lc.Recipe(f"tiny-{precision}", epochs=1, batch_size=8, train_images=16, test_images=16,
                       precision=precision)
    return lc.Run("ResNet-LC-8-8x2", "digits", True, 0, recipe)


@pytest.mark.parametrize("own, asked, used", [
    ("bf16", "fp32", "bf16"), ("fp32", "bf16", "fp32"), ("auto", "bf16", "bf16")])
def test_a_recipes_own_precision_is_what_its_runs_are_trained_in(own, asked, used, monkeypatch):
    def step(self, batch, step=Trainer.step):
        given.append(self.precision)
        return step(self, batch)

    given = []
    monkeypatch.setattr(Trainer, "step", step)
    assert lc.train(run(own), device="cpu", precision=asked, progress=False).precision == used
    assert given == [used] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision, captured", [("fp32", 0), ("bf16", 1), ("auto", 1)])
def test_fp32_by_the_recipe_is_without_a_graph(precision, captured, monkeypatch):
    captures, capture = [], FastTrainer.capture
    monkeypatch.setattr(FastTrainer, "capture", lambda self: captures.append(1) or capture(self))
    lc.train(run(precision), device="cuda", progress=False)
    assert len(captures) == captured
