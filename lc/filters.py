"""Metrics of spatial filters: variance entropy (Figures 5, 11, 12), variance maps (Figure 8b)."""

import math

import numpy as np
import torch

from .blocks import combined_filters
from .utils import check

SHOWN = 32  # input and output channels of the first layer whose filters are kept


def variance_entropy(weight, normalize=False):
    """Filter variance entropy (FVE) of a weight `[c_out, c_in, k, k]` (Figures 5, 11, 12).

    It is the entropy, to base 10, of the shares of variance that the principal components of the
    c_out * c_in kernels explain (Gavrikov and Keuper, CVPR 2022): from 0 (all kernels are equal) to
    log10(k^2). With `normalize`, for 3x3 kernels, it is divided by the randomness threshold: about
    1 for random kernels.

    Raises:
        ValueError: if the weight is no tensor of four dimensions, is empty, complex, on the meta
            device or not finite, or if kernels to normalise are not 3x3.
    """
    check.kind("weight", weight, torch.Tensor, "a tensor")
    if weight.ndim != 4 or not weight.numel():
        raise ValueError(f"weight must be [c_out, c_in, k, k], not {list(weight.shape)}")
    height, width = weight.shape[2:]
    if normalize and (height, width) != (3, 3):
        raise ValueError("the randomness threshold holds for 3x3 kernels only, not "
                         f"{height}x{width}")
    kernels = _scaled(weight).flatten(2).flatten(0, 1)
    variance = torch.linalg.svdvals(kernels - kernels.mean(0)).square()
    # Equal kernels differ from their mean by rounding only, and two in one direction only.
    rounding = kernels.square().sum() * len(kernels) * torch.finfo(torch.float64).eps ** 2
    if len(kernels) < 3 or variance.sum() <= rounding:
        return 0.0
    share = variance / variance.sum()
    entropy = -torch.xlogy(share, share).sum().item() / math.log(10)
    return entropy / randomness_threshold(len(kernels)) if normalize else entropy


def randomness_threshold(n):
    """The least FVE of n random 3x3 kernels (Gavrikov and Keuper, CVPR 2022).

    Raises:
        ValueError: if n is below 1.
    """
    check.number("n", n, 1, math.inf)
    return 1.2618047 / (1 + math.exp(-0.88767525 * (math.log2(n) - 2.30436435))) - 0.31050834


def variance_map(model, kernel_size=None):
    """The variance of a network's kernels by position, `[k, k]` (Figure 8b).

    Each layer's combined filters are divided by the standard deviation of the layer's whole weight,
    or are zeros if all are equal. The variance is over all kernels of all layers, in float64.

    Args:
        kernel_size: use only layers with this k. A network with several kernel sizes needs it.

    Raises:
        ValueError: if not one kernel size is left, or a weight is complex, on the meta device or
            not finite.
    """
    if kernel_size is not None:
        check.integer("kernel_size", kernel_size)
    filters = combined_filters(model).values()
    if not filters:
        raise ValueError("the model has no spatial convolution, and so no variance map")
    sizes = {tuple(w.shape[2:]) for w in filters}
    chosen = sizes if kernel_size is None else sizes & {(kernel_size, kernel_size)}
    if len(chosen) != 1:
        raise ValueError(f"variance_map needs one kernel size; the network has {sorted(sizes)}: "
                         "choose one with kernel_size=")
    kernels = []
    for weight in (_scaled(w) for w in filters if tuple(w.shape[2:]) in chosen):
        varies = weight.min() < weight.max()  # else its deviation is rounding
        weight = weight / weight.std(correction=0) if varies else 0 * weight
        kernels.append(weight.flatten(0, 1))
    return torch.cat(kernels).var(0, correction=0)


def _scaled(weight):
    """A weight in float64 on the CPU, its largest magnitude 1, so that no square overflows."""
    if weight.is_complex() or weight.is_meta:
        raise ValueError("weight must have real values: it is complex or on the meta device")
    weight = weight.detach().double().cpu()
    largest = weight.abs().max()
    if not largest.isfinite():
        raise ValueError("weight has values that are not finite")
    return weight / largest if largest else weight


def summarize(model):
    """What figures and claims read of a trained network's combined filters, as numpy arrays.

    Returns:
        `variance_map` `[k, k]`, of layers with the last layer's k; `first`, float16 `[c_out, c_in,
        k, k]`, of the first layer, at most 32 x 32 channels; `last`, float16 `[8, k, k]`, the
        kernels of largest norm in as many channels of the last layer; `singular_values` of the last
        layer's filters as `[c_out, c_in * k * k]`.
    """
    weights = [weight.float().cpu() for weight in combined_filters(model).values()]
    first, last = weights[0], weights[-1]
    kernels = last[:SHOWN, :SHOWN].flatten(0, 1).numpy()
    norms = np.square(kernels, dtype=float).sum((1, 2))
    largest = np.argsort(-norms, kind="stable")[:8]
    return {"variance_map": variance_map(model, last.shape[-1]).float().numpy(),
            "first": first[:SHOWN, :SHOWN].half().numpy(),
            "last": kernels[largest].astype(np.float16),
            "singular_values": torch.linalg.svdvals(last.flatten(1)).numpy()}
