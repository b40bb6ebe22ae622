"""LC-Blocks with operations between their convolutions (Table 3), at the least cost that each allows."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def is_standard(norm):
    """Whether a module is a BatchNorm with learned scale and shift and an exponential average of its statistics."""
    return type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats and norm.momentum is not None


def affine(norm, mean, variance):
    """The scale and shift by channel that BatchNorm amounts to, given its statistics."""
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale


def patch_statistics(conv, norm, x):
    """The mean and (biased) variance of each channel of `conv(x)`, without computing `conv(x)`; `norm` averages them.

    A channel is a product of its kernel s with patches of the input, so its mean is s m and its variance s C s, where m
    is the mean patch, `[c_in k^2]`, and C the covariance of patches. Both are exact, and cheaper than `conv(x)` once
    it has more channels than a patch has values.
    """
    with no_autocast(x.device.type):
        mean, covariance, n = checkpoint(_moments, conv, x, use_reentrant=False, preserve_rng_state=False)
        if n == 1:
            raise ValueError("BatchNorm needs more than one value per channel to train on")
        kernels = conv.weight.flatten(1).to(mean.dtype)
        mean = kernels @ mean
        variance = ((kernels @ covariance) * kernels).sum(1)
        _average(norm, mean.detach(), variance.detach() * (n / (n - 1)))
        return mean, variance


def _moments(conv, x):
    x = x.to(torch.promote_types(conv.weight.dtype, torch.float32))
    padding = conv.padding
    if conv.padding_mode != "zeros" or isinstance(padding, str):
        x = F.pad(x, conv._reversed_padding_repeated_twice, "constant" if conv.padding_mode == "zeros" else conv.padding_mode)
        padding = 0
    patches = F.unfold(x, conv.kernel_size, conv.dilation, padding, conv.stride).transpose(0, 1).flatten(1)
    n = patches.shape[1]
    mean = patches.mean(1)
    centred = patches - mean[:, None]
    return mean, centred @ centred.T / n, n


def normalize_and_combine(norm, rest, z):
    """`rest(norm(z))` in training, keeping only `z` for the backward pass: what follows it is computed again there."""
    mean, variance = torch.zeros_like(norm.running_mean), torch.ones_like(norm.running_var)

    def normalized(z):  # with momentum 1 the statistics are the batch's own, however often this runs
        return rest(F.batch_norm(z, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps))

    y = checkpoint(normalized, z, use_reentrant=False, preserve_rng_state=False)
    _average(norm, mean, variance)
    return y


@torch.no_grad()
def _average(norm, mean, variance):
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), norm.momentum)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1


def no_autocast(device):
    """A context in which sums and products keep their inputs' precision."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
