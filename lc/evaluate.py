"""Clean and robust accuracy (Section 4.1)."""

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import LCBlock
from .utils import check
from .utils.check import one_line
from .utils.device import arithmetic, out_of_memory
from .utils.modules import without_autocast

# images at a time: few stay in a CPU's cache, and their expanded feature maps in a GPU's memory
LARGE, SMALL = 500, 50


class Normalize(nn.Module):
    """Normalises images in [0, 1] by channel: the first layer of an attacked model.

    Raises:
        ValueError: if there is not one finite mean and standard deviation above 0 for each channel.
    """

    def __init__(self, mean, std):
        super().__init__()
        mean, std = (torch.tensor(value, dtype=torch.float32).view(-1, 1, 1)
                     for value in (mean, std))
        known = mean.isfinite().all() and std.isfinite().all() and (std > 0).all()
        if mean.shape != std.shape or not len(std) or not known:
            raise ValueError("mean and std must be one finite number for each channel, std above "
                             f"0, not {mean.flatten().tolist()} and {std.flatten().tolist()}")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x):
        return (x - self.mean) / self.std


def accuracy(model, images, labels):
    """Percent of the images that the model classifies right, in evaluation mode.

    With a large expansion, take `lc.fold(model)`: it combines the filters only once.

    Args:
        images: `[N, c, h, w]` on the model's device, in the range that the model takes: floating
            point in [0, 1] if there is a `Normalize` in it.
        labels: int64 `[N]`.

    Raises:
        ValueError: if images, labels and model do not fit, or the model is on the meta device.
    """
    return percent(right(model, images, labels))


def fgsm_accuracy(model, images, labels, eps=1 / 255):
    """Percent of the images that the model classifies right under l-infinity FGSM (Section 4.1).

    Each pixel moves by `eps` along the sign of the cross-entropy's gradient and is then clipped to
    [0, 1] (Figure 4c).

    Args:
        model: has its normalisation inside: `nn.Sequential(Normalize(mean, std), network)`.
        images, labels: as for `accuracy`, in [0, 1].

    Raises:
        ValueError: as `accuracy`, if the images or `eps` are outside [0, 1], the model was built
            under `torch.inference_mode`, or gives the images no gradient.
    """
    check.number("eps", eps, 0, 1)
    return percent(right(model, images, labels, eps))


def fgsm(model, images, labels, eps):
    """The attacked images of one mini-batch (Goodfellow et al., 2015)."""
    with torch.inference_mode(False), torch.enable_grad():
        x = images.detach().clone().requires_grad_()  # a copy, if images are of inference_mode
        # a sum, not a mean: in half precision, gradients divided by the mini-batch may become zero
        logits = model(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss, gradient = F.cross_entropy(logits, labels.clone(), reduction="sum"), None
        if loss.requires_grad:
            gradient, = torch.autograd.grad(loss, x, allow_unused=True)
        if gradient is None:
            raise ValueError("FGSM needs the gradient of the images, and the model's logits have "
                             "none: it must not call torch.no_grad or detach")
    return (images + eps * gradient.sign()).clamp(0, 1)


def in_mini_batches(function, size, *tensors):
    """A function of mini-batches of at most `size`, its values below each other.

    Where memory runs out, the mini-batches are halved until they fit.
    """
    while True:
        try:
            return torch.cat([function(*each)
                              for each in zip(*(tensor.split(size) for tensor in tensors))])
        except RuntimeError as error:
            if size == 1 or not out_of_memory(error):
                raise
        size = (size + 1) // 2  # not above, where the error keeps what did not fit


def percent(right):
    """The share of True in a bool tensor, in percent."""
    return 100 * right.sum().item() / len(right)


def right(model, images, labels, eps=None):
    """Which images the model classifies right, bool `[N]`, attacked if there is an `eps`.

    In evaluation mode, in fp32 and not TF32. Arguments and errors are those of `fgsm_accuracy`.
    """
    _check(model, images, labels, attacked=eps is not None)
    was_training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with (torch.inference_mode(False), torch.no_grad(), arithmetic("fp32", images.device),
              without_autocast(images.device.type)):
            _check_logits(_tried(model, images[:1]), labels)
            expanded = any(isinstance(m, LCBlock) and m.expands for m in model.modules())
            size = LARGE if images.device.type == "cuda" and not expanded else SMALL
            return in_mini_batches(
                lambda x, y: model(x if eps is None else fgsm(model, x, y, eps)).argmax(1) == y,
                size, images, labels)
    finally:
        for module in was_training:
            module.training = True


def _check(model, images, labels, attacked):
    check.kind("the model", model, nn.Module, "an nn.Module")
    check.kind("images", images, torch.Tensor, "a tensor")
    check.kind("labels", labels, torch.Tensor, "a tensor")
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must be [N, c, h, w], at least one, not {list(images.shape)}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"labels must be {len(images)} of torch.int64, one an image, not "
                         f"{labels.dtype} {list(labels.shape)}")
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("the model's weights have no values (the meta device): load them first")
    if any(isinstance(m, Normalize) for m in model.modules()) and not _in_unit_box(images):
        raise ValueError("the model normalises floating-point images in [0, 1] itself, not "
                         f"{images.dtype} from {images.min():g} to {images.max():g}: make them so, "
                         "as lc.data.to_unit does")
    if attacked and not _in_unit_box(images):
        raise ValueError("FGSM needs floating-point images in [0, 1]; put the normalisation into "
                         "the model")
    if attacked and any(p.is_inference() for p in model.parameters()):
        raise ValueError("FGSM needs gradients: build or load the model outside of "
                         "torch.inference_mode")


def _in_unit_box(images):
    return images.is_floating_point() and images.min() >= 0 and images.max() <= 1  # no nan


def _tried(model, images):
    """What the model gives. Raises ValueError if it does not take such images."""
    try:
        return model(images)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise ValueError(f"the model does not take images of {images.dtype} and shape "
                         f"[N, {', '.join(map(str, images.shape[1:]))}] on {images.device}: "
                         f"{one_line(error)[:200]}") from error


def _check_logits(logits, labels):
    check.kind("the model's logits", logits, torch.Tensor, "a tensor alone")
    if logits.ndim != 2:
        raise ValueError(f"the model must give logits [N, classes], not {list(logits.shape)}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels are {labels.min()} to {labels.max()}, but the model has "
                         f"{logits.shape[1]} classes (from 0)")
