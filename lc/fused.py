"""What stands between the convolutions of a CIFAR-ResNet, compiled: a kernel or two each way instead of one an operation.

Compiled is for a shape, whatever the expansion, so that all networks of one depth, width and kernel size share it, in a
process and, by the compiler's own cache on disk, beyond. More than these regions is not compiled: a whole network would be
compiled anew for every expansion, for longer than its training takes.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from .check import one_line
from .models import BasicBlock, CIFARResNet, normalize_relu

BACKEND = "inductor"


@cache
def compiled(function):
    """A function of tensors, compiled anew for each of their shapes."""
    torch._dynamo.config.recompile_limit = 256  # of one function: the grid of the paper's widths, batches and image sizes
    return torch.compile(function, backend=BACKEND, dynamic=False, fullgraph=True)


def fuse(network):
    """Let a network run BatchNorm, addition and ReLU through compiled code in training, in place.

    Returns:
        The number of places: 0 unless the network is a CIFAR-ResNet, with LC-Blocks or without.
    """
    places = [module for module in network.modules() if isinstance(module, (CIFARResNet, BasicBlock))]
    for module in places:
        module.normalize_relu = _normalize_relu
    return len(places)


@cache
def check(device):
    """Compile a small region on a device.

    Raises:
        ValueError: if this machine cannot: it takes a C++ compiler, and on a GPU Triton.
    """
    try:
        norm = nn.BatchNorm2d(1).to(device)
        _normalize_relu(norm, torch.rand(2, 1, 2, 2, device=device)).sum().backward()
    except Exception as error:  # whatever stops the compiler
        raise ValueError(f"nothing can be compiled on this machine ({one_line(error)[:100]}); leave out fuse") from None


def _normalize_relu(norm, x, shortcut=None):
    if not norm.training:
        return normalize_relu(norm, x, shortcut)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1
    return compiled(_region)(x, shortcut, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.momentum, norm.eps)


def _region(x, shortcut, mean, variance, weight, bias, momentum, eps):
    y = F.batch_norm(x, mean, variance, weight, bias, True, momentum, eps)
    return F.relu(y if shortcut is None else y + shortcut)
