"""What a training on images cannot do: a message of one line says it, and nothing is recorded."""

import shutil
from dataclasses import replace

import pytest
import torch
from helpers import After
from imagenet_helpers import RUN, SHORT, command, go

import lc
from lc import results
from lc.__main__ import main
from lc.data import DataError
from lc.imagenet import RECIPES
from lc.imagenet.step import ImageNetTrainer
from lc.run import Stopped
from lc.utils.checkpoint import CheckpointError


@pytest.fixture
def begun(flowers, tmp_path):
    """The checkpoint of a training that was stopped after its first epoch."""
    with pytest.raises(Stopped):
        go(RUN, flowers, tmp_path / "run.pt", stop=After(3))
    return tmp_path / "run.pt"


def test_a_loss_that_is_not_finite_ends_a_training_unrecorded(flowers, tmp_path, monkeypatch):
    recipe = replace(SHORT, profile="smoke", epochs=2, learning_rate=1e30, warmup_epochs=0)
    monkeypatch.setitem(RECIPES, "smoke", recipe)
    with pytest.raises(SystemExit, match="smoke/seed0: the loss was not finite in epoch 1"):
        main(command(flowers, tmp_path))
    assert not results.load_rows(tmp_path) and not list(tmp_path.rglob("*.pt"))


def test_memory_that_runs_out_is_said_with_the_way_out(flowers, monkeypatch):
    def step(self, batches):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ImageNetTrainer, "step", step)
    with pytest.raises(lc.TrainingError, match="out of memory on cpu; .* Use a smaller --batch"):
        go(RUN, flowers)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", [b"", b"no image", None], ids=["empty", "text", "cut off"])
def test_an_image_that_cannot_be_read_is_reported_in_one_line(damage, workers, copied):
    for path in copied.glob("train/[b-d]/*"):
        path.write_bytes(path.read_bytes()[:-500] if damage is None else damage)
    message = r"^\S+.JPEG cannot be read as an image \([^\n]+\); replace or delete it$"
    with pytest.raises(DataError, match=message):
        go(RUN, copied, workers=workers)


def test_a_checkpoint_that_does_not_fit_is_refused(flowers, copied, begun):
    for split in ("train", "val"):
        shutil.rmtree(copied / split / "d")
    other = f"{begun}: checkpoint of another training .* 4 classes, batches of 4, fp32, cpu.*;"
    with pytest.raises(CheckpointError, match=other):
        go(RUN, copied, begun)
    with pytest.raises(CheckpointError, match=other):
        go(RUN, flowers, begun, batch=8)
    begun.write_bytes(begun.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=f"{begun}: damaged checkpoint .*; delete it"):
        go(RUN, flowers, begun)


@pytest.mark.parametrize("run, options, message", [
    (lc.Run("ResNet-8-8", "digits", False, 0, "smoke"), {}, "takes an lc.imagenet.ImageNetRun"),
    ("ResNet-18", {}, "takes an lc.imagenet.ImageNetRun"),
    (RUN, {"batch": 5}, "the recipe's batch of 16 is no multiple of 1 x 5"),
    (RUN, {"batch": 32}, "batch of 16 is no multiple of 1 x 32"),
    (RUN, {"batch": 0}, "batch must be an integer"),
    (RUN, {"batch": 1}, "batches of 1 cannot be mixed in pairs"),
    (RUN, {"workers": -1}, "workers must be an integer"),
    (RUN, {"precision": "fp8"}, "unknown precision 'fp8'"),
    (RUN, {"device": "tpu"}, "unknown device 'tpu'"),
    (RUN, {"data": "/nowhere"}, "/nowhere must hold train/ and val/"),
    (replace(RUN, recipe=replace(SHORT, batch_size=64)), {},
     "flowers/train: 32 images are fewer than the 64 of a step"),
])
def test_a_training_that_is_not_possible_is_refused(run, options, message, flowers, tmp_path):
    with pytest.raises(ValueError, match=message):
        go(run, flowers, tmp_path / "run.pt", **options)
    assert not list(tmp_path.iterdir())
