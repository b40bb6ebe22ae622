"""Any network as the paper's: its convolutions as LC-Blocks (Section 4), its spatial filters frozen (Section 3)."""

import math
import warnings

from torch import nn

from .blocks import LCBlock, check_memory, check_model, is_spatial
from .utils import check
from .utils.modules import is_plain, replace_modules, take_over


def convert(model, expansion=1, keep_function=False):
    """Makes an LC-Block of every ungrouped spatial `nn.Conv2d` (k > 1) of a model, in place.

    Each block has its convolution's shape, stride, padding, padding mode, dilation and bias, and
    keeps its mode, hooks, attributes, device, dtype and memory format. By default its weights are
    drawn anew. Both have the attributes of the convolution's weight, such as `weight.lr_scale`. If
    that weight was frozen, the block's spatial weight is. Convolutions that are used in several
    places, or that share a weight, go on doing so. These stay as they are: 1x1 convolutions, grouped
    ones (depthwise too), LC-Blocks, and, with a warning that names them, other spatial layers:
    transposed, one- and three-dimensional ones, and subclasses of `nn.Conv2d` that compute
    something else.

    Make the optimiser after this. One that was made before goes on with the old weights, and the
    LC-Blocks never train.

    Args:
        model: any `nn.Module`. Its convolutions are also found in attributes that are lists, tuples
            or dictionaries.
        expansion: E, the rate of linear combinations (Section 4).
        keep_function: let the model compute the same as before. The filters of each convolution then
            are the first ones of its block, and the pointwise weights are the identity, with zeros
            for all other filters (Section 6).

    Returns:
        The model. If `model` itself is a convolution, the new LC-Block.

    Raises:
        ValueError: before anything is replaced, if `expansion` is not an integer of at least 1, if
            `model` is no `nn.Module` or a scripted one, or if the new weights do not fit into the
            free memory.
    """
    check_model(model)
    check.integer("expansion", expansion)
    layers = _spatial_layers(model)
    found = [m for m in layers if isinstance(m, nn.Conv2d) and m.groups == 1 and is_plain(m)
             and {"weight", "bias"} <= m._parameters.keys()]  # a parametrization or a hook would compute them
    if any(isinstance(m.weight, nn.UninitializedParameter) for m in found):
        raise ValueError("the model has a lazy convolution without weights yet: run one batch through it, then convert")
    if found:
        check_memory(sum(expansion * m.out_channels * (m.in_channels * math.prod(m.kernel_size) + m.out_channels)
                         for m in found), found[0].weight.device, found[0].weight.dtype)
    tied, old = {}, {conv.weight for conv in found}

    def to_block(conv):
        block = LCBlock(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, expansion,
                        padding=conv.padding, dilation=conv.dilation, padding_mode=conv.padding_mode,
                        bias=conv.bias is not None, device=conv.weight.device, dtype=conv.weight.dtype)
        if keep_function:
            block.spatial.weight.data[:conv.out_channels] = conv.weight.data
            nn.init.dirac_(block.pointwise.weight)
        block.pointwise.bias = conv.bias
        halves = "spatial.weight", "pointwise.weight"
        take_over(block, conv, dict.fromkeys(halves, ([conv.weight], ())), tied)
        block.pointwise.weight.requires_grad_()  # is new: frozen filters are there to be combined
        return block

    model = replace_modules(model, found, to_block)
    left = [f"{name} ({type(m).__name__})" for m, name in layers.items() if m not in found and getattr(m, "groups", 1) == 1]
    if left or not found:
        warnings.warn(f"convert leaves {', '.join(left) or 'everything'} alone: only an ungrouped nn.Conv2d with k > 1 and a "
                      "weight of its own becomes an LC-Block", stacklevel=2)
    if tied := [name for name, p in model.named_parameters(remove_duplicate=False) if p in old]:
        warnings.warn(f"convert gives LC-Blocks new weights: {', '.join(tied)} no longer shares the weight of a convolution",
                      stacklevel=2)
    return model


def freeze_spatial(model):
    """Freezes the weight of every spatial convolution (k > 1) at its present, random values, in place (Section 3).

    This includes depthwise, grouped and transposed convolutions and the spatial half of LC-Blocks. Everything else stays
    as it is: pointwise convolutions, normalisation, linear layers, biases. With a warning that names them, so do spatial
    layers that are no two-dimensional convolutions of PyTorch's. Frozen weights have `requires_grad=False` and no gradient,
    so that an optimiser does not change them. An optimiser that already has them keeps their momentum, which takes memory
    and acts again if they are learned again. One that changes parameters without a gradient needs only the others.

    Returns:
        The model.

    Raises:
        ValueError: if `model` is no `nn.Module` or a scripted one.
    """
    check_model(model)
    frozen = [module for module in model.modules() if is_spatial(module)]
    for module in frozen:
        for name, parameter in module.named_parameters():
            if "weight" in name:  # also weight_g, weight_v and the originals of a parametrization
                parameter.requires_grad_(False)
                parameter.grad = None
    left = [f"{name} ({type(m).__name__})" for m, name in _spatial_layers(model).items()
            if m not in frozen and any(p.requires_grad for p in m.parameters())]
    if left or not frozen:
        warnings.warn(f"freeze_spatial leaves {', '.join(left) or 'everything'} as it is: it freezes PyTorch's two-dimensional "
                      "convolutions with k > 1", stacklevel=2)
    return model


def _spatial_layers(model):
    """`{module: name}` of the layers outside of LC-Blocks, of any class, that have weights and a kernel with k > 1."""
    def size(module):
        kernel = getattr(module, "kernel_size", 1)
        return max((k for k in (kernel if isinstance(kernel, (tuple, list)) else [kernel]) if isinstance(k, int)), default=1)

    inside = {half for block in model.modules() if isinstance(block, LCBlock) for half in (block, *block.modules())}
    return {m: name or "the model" for name, m in model.named_modules()
            if m not in inside and size(m) > 1 and (m._parameters or isinstance(m, nn.modules.conv._ConvNd))}
