"""Compiles what is between a CIFAR-ResNet's convolutions: BatchNorm, addition and ReLU.

torch.compile specialises on tensor shapes, which do not depend on E. So networks of one depth,
width and kernel size share the code, also across processes through the on-disk cache. Whole
networks would be compiled anew for each E, which takes longer than training them.
"""

from functools import cache
from types import MethodType

import torch
import torch.nn.functional as F
from torch import nn

from ..models import BasicBlock, CIFARResNet
from ..utils.check import one_line

BACKEND = "inductor"


@cache
def compiled(function):
    """A function of tensors, compiled for each of their shapes."""
    # per function: the paper's widths, mini-batches and image sizes
    torch._dynamo.config.recompile_limit = 256
    return torch.compile(function, backend=BACKEND, dynamic=False, fullgraph=True)


def compile_regions(network):
    """Lets a CIFAR-ResNet run its regions through compiled code in training, in place.

    Returns:
        The number of modules with such regions; 0 for any other network.
    """
    forwards = {CIFARResNet: _resnet_forward, BasicBlock: _block_forward}
    modules = [module for module in network.modules() if type(module) in forwards]
    for module in modules:
        module.forward = MethodType(forwards[type(module)], module)
    return len(modules)


@cache
def require_compiler(device):
    """Raises ValueError if this machine cannot compile for a device.

    It needs a C++ compiler, and Triton on a GPU.
    """
    try:
        norm = nn.BatchNorm2d(1).to(device)
        normalize_relu(norm, torch.rand(2, 1, 2, 2, device=device)).sum().backward()
    except Exception as error:  # compilers raise many kinds
        raise ValueError(f"nothing can be compiled on this machine ({one_line(error)[:100]}); "
                         "leave out fuse") from None


def _resnet_forward(self, x):
    return self.fc(self.blocks(normalize_relu(self.bn1, self.conv1(x))).mean((2, 3)))


def _block_forward(self, x):
    y = normalize_relu(self.bn1, self.conv1(x))
    return normalize_relu(self.bn2, self.conv2(y), self.shortcut(x))


def normalize_relu(norm, x, shortcut=None):
    """`relu(norm(x) + shortcut)`, compiled in training."""
    if not norm.training:
        y = norm(x)
        return F.relu(y if shortcut is None else y + shortcut)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked += 1
    return compiled(_region)(x, shortcut, norm.running_mean, norm.running_var,
                             norm.weight, norm.bias, norm.momentum, norm.eps)


def _region(x, shortcut, mean, variance, weight, bias, momentum, eps):
    y = F.batch_norm(x, mean, variance, weight, bias, True, momentum, eps)
    return F.relu(y if shortcut is None else y + shortcut)
