"""Clean and robust accuracy (Section 4.1)."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

BATCH = {"cuda": 500, "cpu": 50}  # images at a time: on a CPU, as much as stays near the cache


class Normalize(nn.Module):
    """Images in [0, 1] to zero mean and unit variance by channel: the first layer of an attacked model."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


def accuracy(model, images, labels):
    """Percent of images that the model classifies right, in evaluation mode.

    Args:
        images: `[N, c, h, w]`, in whatever range the model takes, on the model's device.
        labels: int64 `[N]`.
    """
    with _evaluation(model), torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum() for x, y in _batches(images, labels))
    return 100 * right.item() / len(labels)


def fgsm_accuracy(model, images, labels, eps=1 / 255):
    """Percent of images that the model still classifies right under an l-infinity FGSM attack (Figure 4c).

    Each pixel moves by `eps` along the sign of the cross-entropy's gradient and is clipped to [0, 1].

    Args:
        model: takes images in [0, 1], its normalisation inside: `nn.Sequential(Normalize(mean, std), network)`.
        images: float `[N, c, h, w]` in [0, 1], on the model's device.
        labels: int64 `[N]`.

    Raises:
        ValueError: if the images are not floating point or leave [0, 1], or `eps` is negative.
    """
    if not (images.is_floating_point() and images.min() >= 0 and images.max() <= 1):
        raise ValueError("FGSM needs floating-point images in [0, 1]; put the normalisation into the model")
    if eps < 0:
        raise ValueError(f"eps must be at least 0, not {eps}")
    with _evaluation(model), torch.no_grad():
        right = sum((model(fgsm(model, x, y, eps)).argmax(1) == y).sum() for x, y in _batches(images, labels))
    return 100 * right.item() / len(labels)


def fgsm(model, images, labels, eps):
    """The attacked images of one batch (Goodfellow et al., 2015), within `eps` of `images` and in [0, 1]."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        gradient, = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    return (images + eps * gradient.sign()).clamp(0, 1)


def _batches(images, labels):
    size = BATCH.get(images.device.type, BATCH["cpu"])
    return zip(images.split(size), labels.split(size))


@contextmanager
def _evaluation(model):
    was_training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True
