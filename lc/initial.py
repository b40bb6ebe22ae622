"""Random filters that are not i.i.d. over the kernel: do they close the gap of Section 4.3?"""

import torch
from torch import nn

from .blocks import is_spatial
from .names import KINDS
from .utils import check

WIDTH = 1.5  # pixels: the standard deviation of the Gaussian of kind "gauss"


def init_spatial(model, kind):
    """Draws the weight of every spatial convolution (k > 1) anew, in place, with structure.

    The kernels stay independent of each other. Their weights have mean 0, and over a layer's whole
    weight the variance of PyTorch's default, 1 / (3 c_in k^2) (Equation 3).

    - "covariance": a multivariate normal draw after Trockman et al. (2023, arXiv 2210.03651), who
      initialise depthwise filters. The covariance has two terms, from them: a Gaussian of the
      distance between two positions, weighted towards the centre, minus half a Gaussian around the
      centre. Both are wider in deeper layers. How they are combined, how wide they are and the
      total variance are ours.
    - "envelope": the variance of "covariance" at each position, without its correlations.
    - "correlation": the correlations of "covariance", with the same variance at every position.
    - "shuffled": "covariance" with the positions of a layer's kernels in a random order.
    - "gauss": i.i.d. uniform weights times a Gaussian about the centre, 1.5 pixels wide.

    A layer's depth is its place among the spatial ones in `model.modules()`.

    Returns:
        The model. The same `torch.manual_seed` gives the same weights on every device.

    Raises:
        ValueError: before any weight is drawn, if the kind is unknown, `model` is no `nn.Module`,
            or a weight has a parametrization or no shape yet.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown initialisation {kind!r}; known: {', '.join(KINDS)}")
    check.kind("the model", model, nn.Module, "an nn.Module")
    layers = [m for m in model.modules() if is_spatial(m) and not m.weight.is_meta]
    if not all("weight" in layer._parameters for layer in layers):
        raise ValueError("a spatial convolution computes its weight: remove the parametrization")
    if any(isinstance(layer.weight, nn.UninitializedParameter) for layer in layers):
        raise ValueError("a lazy convolution has no shape yet: run the model once")
    for i, layer in enumerate(layers):
        weight = layer.weight.data
        shape = weight.flatten(2).shape
        if kind == "gauss":
            uniform = torch.rand(shape, device="cpu", dtype=torch.float32) * 2 - 1
            drawn = uniform * 3 ** 0.5 * gaussian(layer.kernel_size)
        else:
            whole = covariance(layer.kernel_size, i / max(len(layers) - 1, 1))
            normal = torch.randn(shape, device="cpu", dtype=torch.float32)
            drawn = normal @ root(part(kind, whole))
        weight.copy_(drawn.view_as(weight) * (3 * weight[0].numel()) ** -0.5)
    return model


def part(kind, matrix):
    """What an ablation keeps of a covariance matrix, with the same mean variance."""
    if kind == "envelope":
        return torch.diag(matrix.diagonal())
    if kind == "correlation":
        deviation = matrix.diagonal().sqrt()
        return matrix / torch.outer(deviation, deviation)
    if kind == "shuffled":
        order = torch.randperm(len(matrix), device="cpu")
        return matrix[order][:, order]
    return matrix


def offsets(size):
    """The positions of a kernel of `size` (height, width), from its centre, `[h * w, 2]`."""
    return torch.cartesian_prod(*(torch.arange(k, device="cpu") - (k - 1) / 2 for k in size))


def gaussian(size):
    """The standard deviation by position of kind "gauss", `[h * w]`, with mean square 1."""
    deviation = torch.exp(-offsets(size).square().sum(1) / (2 * WIDTH ** 2))
    return deviation / deviation.square().mean().sqrt()


def covariance(size, depth):
    """The covariance of the weights at two positions, `[k^2, k^2]`, with mean variance 1.

    With z(p) = exp(-|p|^2 / 2s) it is sqrt(z(p) z(q)) z(p - q) - z(p) z(q) / 2, which is positive
    definite for every s.

    Args:
        depth: from 0, the first spatial layer, to 1, the last.
    """
    positions, s = offsets(size), 0.5 + 0.5 * depth + 1.5 * depth ** 2  # s in squared pixels
    z = torch.exp(-positions.square().sum(1) / (2 * s))
    moving = torch.exp(-torch.cdist(positions, positions).square() / (2 * s))
    matrix = torch.outer(z, z).sqrt() * moving - torch.outer(z, z) / 2
    return matrix / matrix.diagonal().mean()


def root(matrix):
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(matrix.double())
    return (vectors * values.clamp(min=0).sqrt() @ vectors.T).float()
