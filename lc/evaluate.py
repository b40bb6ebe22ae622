"""Clean and robust accuracy (Section 4.1)."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import LCBlock
from .utils import check
from .utils.device import arithmetic

LARGE, SMALL = 500, 50  # images at a time: small ones stay in a CPU's cache, and expanded feature maps in a GPU's memory


class Normalize(nn.Module):
    """Normalises images in [0, 1] by channel: the first layer of an attacked model.

    Raises:
        ValueError: if there is not one finite mean and one standard deviation above 0 for each channel.
    """

    def __init__(self, mean, std):
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))
        if mean.shape != std.shape or not len(std) or not (mean.isfinite() & std.isfinite() & (std > 0)).all():
            raise ValueError("mean and std must be one finite number for each channel, std above 0, not "
                             f"{mean.flatten().tolist()} and {std.flatten().tolist()}")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x):
        return (x - self.mean) / self.std


def accuracy(model, images, labels):
    """Percent of the images that the model classifies right, in evaluation mode.

    Args:
        images: `[N, c, h, w]`, in the range that the model takes, on the model's device.
        labels: int64 `[N]`.

    Raises:
        ValueError: if there is not one label for each image and one logit for each class.
    """
    _check(model, images, labels)
    with _evaluation(model, images.device), torch.no_grad():
        _check_classes(model(images[:1]), labels)
        right = sum((model(x).argmax(1) == y).sum() for x, y in _batches(model, images, labels))
    return 100 * right.item() / len(labels)


def fgsm_accuracy(model, images, labels, eps=1 / 255):
    """Percent of the images that the model classifies right under an l-infinity FGSM attack (Section 4.1, Figure 4c).

    Each pixel moves by `eps` along the sign of the cross-entropy's gradient and is then clipped to [0, 1].

    Args:
        model: takes images in [0, 1], its normalisation inside: `nn.Sequential(Normalize(mean, std), network)`.
        images: float `[N, c, h, w]` in [0, 1], on the model's device.
        labels: int64 `[N]`.

    Raises:
        ValueError: as `accuracy`, or if the images are not floating point, or the images or `eps` are outside [0, 1].
    """
    _check(model, images, labels)
    if not (images.is_floating_point() and images.min() >= 0 and images.max() <= 1):
        raise ValueError("FGSM needs floating-point images in [0, 1]; put the normalisation into the model")
    check.number("eps", eps, 0, 1)
    with _evaluation(model, images.device), torch.no_grad():
        _check_classes(model(images[:1]), labels)
        right = sum((model(fgsm(model, x, y, eps)).argmax(1) == y).sum() for x, y in _batches(model, images, labels))
    return 100 * right.item() / len(labels)


def fgsm(model, images, labels, eps):
    """The attacked images of one mini-batch (Goodfellow et al., 2015), within `eps` of `images` and in [0, 1]."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        gradient, = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
    return (images + eps * gradient.sign()).clamp(0, 1)


def _check(model, images, labels):
    check.kind("the model", model, nn.Module, "an nn.Module")
    for what, value in (("images", images), ("labels", labels)):
        check.kind(what, value, torch.Tensor, "a tensor")
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must be [N, c, h, w], at least one, not {list(images.shape)}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"labels must be {len(images)} of torch.int64, one an image, not {labels.dtype} {list(labels.shape)}")


def _check_classes(logits, labels):
    if logits.ndim != 2:
        raise ValueError(f"the model must give logits [N, classes], not {list(logits.shape)}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels are {labels.min()} to {labels.max()}, but the model has {logits.shape[1]} classes (from 0)")


def _batches(model, images, labels):
    expanded = any(isinstance(m, LCBlock) and len(m.between) for m in model.modules())
    size = LARGE if images.device.type == "cuda" and not expanded else SMALL
    return zip(images.split(size), labels.split(size))


@contextmanager
def _evaluation(model, device):
    was_training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with arithmetic("fp32", device):  # by default PyTorch convolves in TF32 on a GPU
            yield
    finally:
        for module in was_training:
            module.training = True
