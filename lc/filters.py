"""What spatial filters look like: variance entropy (Figures 5, 11, 12) and variance maps (Figure 8b)."""

import math

import numpy as np
import torch

from . import check
from .blocks import combined_filters

SHOWN = 32  # channels of the last layer whose filters are kept to look at


def variance_entropy(weight, normalize=False):
    """Filter variance entropy (FVE) of a weight `[c_out, c_in, k, k]` (Gavrikov and Keuper, CVPR 2022; Figures 5, 11, 12).

    The entropy, to base 10, of the variance that each principal component explains of the c_out * c_in kernels: 0 where
    all kernels are equal (collapsed), at most log10 of k^2. Normalised, by the randomness threshold, 1 and more mean
    kernels as diverse as random ones.

    Raises:
        ValueError: if the weight is no tensor of four dimensions, empty or not finite, or `normalize` is asked of a kernel
            that is not 3x3 (the threshold was fitted to these alone).
    """
    check.kind("weight", weight, torch.Tensor, "a tensor")
    if weight.ndim != 4 or not weight.numel():
        raise ValueError(f"weight must be [c_out, c_in, k, k], not {list(weight.shape)}")
    if normalize and tuple(weight.shape[2:]) != (3, 3):
        raise ValueError(f"the randomness threshold holds for 3x3 kernels only, not {weight.shape[2]}x{weight.shape[3]}")
    kernels = weight.detach().double().cpu().flatten(2).flatten(0, 1)
    if not kernels.isfinite().all():
        raise ValueError("weight has values that are not finite")
    variance = torch.linalg.svdvals(kernels - kernels.mean(0)).square()
    # Equal kernels leave only what rounding left of their mean; that is no diversity.
    if variance.sum() <= kernels.square().sum() * len(kernels) * torch.finfo(torch.float64).eps ** 2:
        return 0.0
    share = variance / variance.sum()
    entropy = -torch.xlogy(share, share).sum().item() / math.log(10)
    return entropy / randomness_threshold(len(kernels)) if normalize else entropy


def randomness_threshold(n):
    """The least FVE of n random 3x3 kernels, as fitted by Gavrikov and Keuper (CVPR 2022). ValueError if n is below 1."""
    check.number("n", n, 1, math.inf)
    return 1.2618047 / (1 + math.exp(-0.88767525 * (math.log2(n) - 2.30436435))) - 0.31050834


def variance_map(model, kernel_size=None):
    """The variance of a network's kernels by position, `[k, k]` (Figure 8b).

    Each layer's combined filters are divided by the standard deviation of the layer's whole weight; the variance is
    over all kernels of all spatial layers.

    Args:
        kernel_size: only layers with this kernel size k; needed where a network has several.

    Raises:
        ValueError: if the spatial layers differ in kernel size and none is chosen, or there is no layer to measure.
    """
    filters = combined_filters(model).values()
    if not filters:
        raise ValueError("the model has no spatial convolution, and so no variance map")
    sizes = {tuple(w.shape[2:]) for w in filters}
    if kernel_size is not None:
        sizes &= {(kernel_size, kernel_size)}
    if len(sizes) != 1:
        raise ValueError(f"variance_map needs one kernel size; the network has {sorted({tuple(w.shape[2:]) for w in filters})}: "
                         "choose one with kernel_size=")
    size = sizes.pop()
    kernels = torch.cat([(w / w.std(correction=0)).flatten(0, 1) for w in filters if tuple(w.shape[2:]) == size])
    return kernels.var(0, correction=0)


def summarize(model):
    """All that a figure needs of a trained network's filters, so that none needs its checkpoint.

    Returns:
        Numpy arrays: `fve` `[layers]`, H of each spatial layer, first to last, and their names `layers`; `variance_map`
        `[k, k]`, of the layers with the last layer's kernel size; `first` `[c_out, c_in, k, k]`, the first layer's
        combined filters; `last`, the last layer's, of its first 32 x 32 channels.
    """
    filters = {name: weight.float().cpu() for name, weight in combined_filters(model).items()}
    weights = list(filters.values())
    first, last = weights[0], weights[-1]
    return {
        "layers": np.array(list(filters)),
        "fve": np.array([variance_entropy(w) for w in weights]),
        "variance_map": variance_map(model, last.shape[-1]).float().cpu().numpy(),
        "first": first.numpy(),
        "last": last[:SHOWN, :SHOWN].half().numpy(),
    }
