"""Runs on a small image folder, for several test files."""

from dataclasses import replace

from helpers import IMAGENET_TINY as TINY

from lc.imagenet import ImageNetRun
from lc.imagenet.training import train_imagenet

# six steps, each of four batches
RUN = ImageNetRun("MobileNet-v3-S-LCx2", "flowers", True, 0, TINY)
# only reading its images is random
RESIDUAL = ImageNetRun("ResNet-18d-LCx1", "flowers", True, 0, replace(
    TINY, profile="smoke-tiny", epochs=1, warmup_epochs=0, drop_path=0.0, mixup=0.0, cutmix=0.0))
SHORT = replace(TINY, profile="short-tiny", epochs=1, warmup_epochs=0, batch_size=4)


def go(run, folder, checkpoint=None, batch=4, **options):
    options = {"data": folder, "device": "cpu", "precision": "fp32", "progress": False} | options
    return train_imagenet(run, **options, batch=batch, checkpoint=checkpoint)


def command(folder, store, model="MobileNet-v3-S"):
    return ["imagenet", model, "--data", str(folder), "--recipe", "smoke", "--device", "cpu",
            "--precision", "fp32", "--batch", "4", "--results", str(store)]
