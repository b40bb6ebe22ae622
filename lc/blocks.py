"""LC-Blocks: spatial convolutions whose filters a pointwise one combines (Sections 3 and 4).

A pointwise convolution `P` directly after a spatial convolution `S` equals one convolution with the
*combined filters* `W[i] = sum_j P[i, j] S[j]` (Lemma 3.1). An LC-Block is such a pair. In training
too, it combines the filters and convolves once, without the expanded feature maps.
"""

import copy
import math
import re
from operator import attrgetter
from pathlib import Path

import torch
import torch.fx
from torch import nn

from .utils import check
from .utils.modules import is_plain, replace_in_copy, take_over, without_autocast

BETWEEN = {"BN": nn.BatchNorm2d, "ReLU": lambda channels: nn.ReLU(inplace=True)}


class LCBlock(nn.Module):
    """A spatial convolution to `out_channels * expansion` channels, and a pointwise one (Figure 3).

    It takes `[batch, in_channels, height, width]` to `[batch, out_channels, height', width']`, and
    has the attributes of the `nn.Conv2d` that it replaces, read-only. Both convolutions keep
    PyTorch's default initialisation: U(-b, b) with b = 1/sqrt(c_in k^2) (Equation 3).

    `weight` are the combined filters, computed on each access from `spatial` and `pointwise`.
    `forward` calls these two layers only if they have hooks or operations between them: counters of
    operations need `lc.fold(model)`.

    Args:
        kernel_size, stride, dilation: an integer, or a pair (height, width).
        expansion: E, the rate of linear combinations.
        between: a list or tuple of operations between the two convolutions, in order: "BN", "ReLU"
            (Table 3). The block then computes its expanded feature maps.
        padding: as for `nn.Conv2d`; by default dilation * (k // 2), which keeps the image size at
            stride 1.
        bias: of the pointwise convolution. The spatial one has none.

    Raises:
        ValueError: if a size is not an integer of at least 1, an operation is unknown, an even
            kernel size has no explicit padding, or the weights do not fit into memory.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, expansion=1, between=(), *,
                 padding=None, dilation=1, padding_mode="zeros", bias=False, device=None,
                 dtype=None):
        super().__init__()
        check.integer("in_channels", in_channels)
        check.integer("out_channels", out_channels)
        check.integer("expansion", expansion)
        kernel, dilations = _pair("kernel_size", kernel_size), _pair("dilation", dilation)
        _pair("stride", stride)
        if padding is None:
            if not all(k % 2 for k in kernel):
                raise ValueError(f"kernel_size must be odd, not {kernel_size}; an even one needs "
                                 "an explicit padding")
            padding = tuple(d * (k // 2) for d, k in zip(dilations, kernel))
        elif not isinstance(padding, str):  # "same" or "valid"
            _pair("padding", padding, least=0)
        if not isinstance(between, (list, tuple)) or any(b not in [*BETWEEN] for b in between):
            raise ValueError("between must be a list of operations between the convolutions, not "
                             f"{between!r}; known: {', '.join(BETWEEN)}")
        expanded = out_channels * expansion
        check_memory(expanded * (in_channels * math.prod(kernel) + out_channels), device, dtype)
        factory = {"device": device, "dtype": dtype}
        self.spatial = nn.Conv2d(in_channels, expanded, kernel_size, stride, padding, dilation,
                                 bias=False, padding_mode=padding_mode, **factory)
        operations = [BETWEEN[name](expanded) for name in between]
        self.between = nn.Sequential(*operations).to(device, dtype)
        self.pointwise = nn.Conv2d(expanded, out_channels, 1, bias=bias, **factory)

    def forward(self, x):
        if self.expands:
            return self.pointwise(self.between(self.spatial(x)))
        return self.spatial._conv_forward(x, *self.combine())  # knows all padding modes

    def __setattr__(self, name, value):
        if name in ("weight", "bias"):
            raise AttributeError(f"an LC-Block's {name} is computed from `spatial` and "
                                 "`pointwise`: set theirs, or use lc.fold")
        super().__setattr__(name, value)

    out_channels = property(attrgetter("pointwise.out_channels"))
    bias = property(attrgetter("pointwise.bias"))

    @property
    def weight(self):
        if not self.combines:
            raise AttributeError  # nn.Module words it
        return self.combined_weight()

    def combined_weight(self):
        """The combined filters (Equation 4), `[out_channels, in_channels, k, k]`, differentiable.

        A BatchNorm between the convolutions scales each S[j] as in evaluation mode.

        Raises:
            ValueError: if other operations are between the two convolutions, or a hook or another
                kind of layer computes a weight.
        """
        return self.combine()[0]

    @property
    def combines(self):
        """Whether nothing, or one BatchNorm with running statistics, is between."""
        return len(self.between) <= 1 and all(
            isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
            for m in self.between)

    @property
    def expands(self):
        """Whether the block computes its expanded feature maps."""
        return len(self.between) > 0 or self.watched

    @property
    def watched(self):
        """Whether the two layers must be called: they have hooks, or are of another kind."""
        biased = getattr(self.spatial, "bias", None) is not None  # one that took its place
        return biased or any(
            not is_plain(conv) or conv._forward_hooks or conv._forward_pre_hooks
            or conv._backward_hooks or conv._backward_pre_hooks
            for conv in (self.spatial, self.pointwise))

    @property
    def folds(self):
        """Whether the block equals one convolution in evaluation mode."""
        own = "forward" in vars(self) or type(self).forward is not LCBlock.forward
        return self.combines and not self.watched and not own

    def combine(self):
        """Weight and bias of the one convolution that the block equals, as `combined_weight`."""
        if not self.combines:
            raise ValueError("no combined filters: between the block's convolutions is more than "
                             "one BatchNorm with running statistics")
        # a replica of DataParallel, or FSDP, has its weight there too, but no hook that computes it
        if any(not is_plain(conv) or "weight" in vars(conv) and conv._forward_pre_hooks
               for conv in (self.spatial, self.pointwise)):
            raise ValueError("no combined filters: a hook, or a layer of another kind, computes a "
                             "weight of the block; make it permanent (torch.nn.utils.prune.remove)")
        pointwise, bias = self.pointwise.weight, self.pointwise.bias
        for norm in self.between:
            scale = torch.rsqrt(norm.running_var + norm.eps)
            if norm.weight is not None:
                scale = scale * norm.weight
            shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
            shifted = (pointwise.flatten(1) * shift.to(pointwise.dtype)).sum(1)
            bias = shifted if bias is None else shifted + bias
            pointwise = pointwise * scale.to(pointwise.dtype).view(-1, 1, 1)
        return linear_combinations(pointwise, self.spatial.weight), bias


for name in ("in_channels", "kernel_size", "stride", "padding", "dilation", "groups",
             "padding_mode", "transposed", "output_padding"):
    setattr(LCBlock, name, property(attrgetter(f"spatial.{name}")))


@torch.fx.wrap  # a traced network calls it as one operation
def linear_combinations(pointwise, spatial):
    """Equation 4. It is cheap for any batch, so it stays outside autocast (see `arithmetic`)."""
    wider = torch.promote_types(pointwise.dtype, spatial.dtype)  # frozen filters may be in bf16
    with without_autocast(spatial.device.type):
        combined = pointwise.to(wider).flatten(1) @ spatial.to(wider).flatten(1)
        return combined.unflatten(1, spatial.shape[1:])


def fold(model):
    """A copy of the model with plain convolutions for its LC-Blocks (Lemma 3.1): the one to deploy.

    The outputs are the same, with a BatchNorm between as in evaluation mode. A block stays if it
    has a ReLU between, hooks on its two layers, layers of another kind, or a `forward` of its own.
    A folded weight is trainable if one of its halves is. A block's mode, hooks, attributes, device,
    dtype, memory format and tied weights stay.

    Raises:
        ValueError: if `model` is no `nn.Module`, scripted, or traced from LC-Blocks.
    """
    check_model(model)
    tied = {}

    def to_conv(block):
        with torch.no_grad():
            weight, bias = block.combine()
        conv = plain_convolution(block, bias is not None)
        conv.weight.data = weight
        if bias is not None:
            conv.bias.data = bias
        return conv

    def fill(conv, block, copies):
        halves = block.spatial.weight, block.pointwise.weight
        computed = {"weight": (halves, tuple(block.between))}
        if conv.bias is not None and not block.between:
            conv.bias = copy.deepcopy(block.bias, copies)
        elif conv.bias is not None:
            biases = [part.bias for part in (*block.between, block) if part.bias is not None]
            computed["bias"] = biases or halves[1:], (halves[1], *block.between)
        take_over(conv, block, computed, tied, copies)

    return replace_in_copy(model, lambda m: isinstance(m, LCBlock) and m.folds, to_conv, fill)


def unfold(model):
    """A copy of the model that computes the expanded feature maps of each LC-Block.

    It takes about E times the memory and time.
    """
    def fill(layers, block, copies):
        take_over(layers, block, copies=copies)
        layers.extend(copy.deepcopy([block.spatial, block.between, block.pointwise], copies))

    return replace_in_copy(model, lambda m: isinstance(m, LCBlock), lambda m: nn.Sequential(), fill)


def combined_filters(model):
    """The filters that each spatial layer convolves with, in the order of `model.named_modules()`.

    Returns:
        `{layer name: weight}`, detached, `[out, in, k, k]`: the combined filters of an LC-Block, or
        with a ReLU between its spatial weight `[out * E, in, k, k]`, and the weight of any other
        spatial convolution, grouped and transposed ones in PyTorch's layout. A subclass that
        standardises its weight in `forward` convolves with another one.

    Raises:
        ValueError: as `fold`, or as `LCBlock.combined_weight` for a hook on a block's layers.
    """
    check_model(model)
    filters, inside = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, LCBlock):
            inside.add(module.spatial)
            filters[name] = module.combined_weight() if module.combines else module.spatial.weight
        elif is_spatial(module) and module not in inside:
            filters[name] = module.weight
    return {name: weight.detach() for name, weight in filters.items()}


def is_spatial(module):
    """Whether a module is a two-dimensional convolution, also transposed, with k > 1."""
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and max(module.kernel_size) > 1


def plain_convolution(block, bias):
    """An `nn.Conv2d` of an LC-Block's shape, device and dtype. Its weight is not initialised."""
    s, weight = block.spatial, block.pointwise.weight
    return nn.utils.skip_init(
        nn.Conv2d, s.in_channels, block.out_channels, s.kernel_size, s.stride, s.padding,
        s.dilation, bias=bias, padding_mode=s.padding_mode, device=weight.device,
        dtype=weight.dtype)


def check_model(model):
    check.kind("the model", model, nn.Module, "an nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("a scripted model cannot be changed: do this before, and give "
                         "torch.jit.script what lc.fold returns")
    for module in model.modules():
        if isinstance(module, torch.fx.GraphModule) and _has_traced_blocks(module):
            raise ValueError("a traced model has no LC-Blocks any more: do this before, and give "
                             "torch.fx what lc.fold returns")


def _has_traced_blocks(graph):
    """Whether torch.fx or torch.export traced through LC-Blocks: of one without operations between,
    the weights are left, and else the parts."""
    return any({"spatial", "pointwise"} <= {*m._modules} and not isinstance(m, LCBlock)
               and ("between" in m._modules or type(m.spatial) is nn.Module)
               for m in graph.modules())


def check_memory(values, device, dtype):
    """Raises ValueError if new weights do not fit into the memory: Linux would kill the process."""
    needed = values * (dtype or torch.get_default_dtype()).itemsize
    meminfo = Path("/proc/meminfo")
    kind = torch.device(device or torch.get_default_device()).type
    if kind == "cpu" and meminfo.exists():
        free = 1024 * int(re.search(r"MemAvailable:\s*(\d+)", meminfo.read_text())[1])
        if needed > free:
            raise ValueError(f"the LC-Blocks need {needed / 1e9:.0f} GB for their weights, and "
                             f"{free / 1e9:.0f} GB of memory are free: choose a smaller expansion")


def _pair(what, value, least=1):
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{what} must be an integer or a pair of integers, not {value!r}")
    return tuple(check.integer(what, v, least) for v in pair)
