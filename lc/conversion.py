"""Any network as the paper's: convolutions as LC-Blocks (Section 4), spatial filters frozen (3)."""

import warnings

from torch import nn

from .blocks import LCBlock, check_memory, check_model, is_spatial
from .utils import check
from .utils.modules import become, is_plain, take_over


def convert(model, expansion=1, keep_function=False):
    """Makes an LC-Block of every ungrouped spatial `nn.Conv2d` (k > 1) of a model, in place.

    Each block keeps its convolution's geometry, bias, mode, hooks, attributes, device, dtype and
    memory format, but not the methods of a subclass. Its weights are new, with the attributes of
    the convolution's weight, such as `weight.lr_scale`; the spatial one is frozen if that was.
    Shared convolutions and weights stay shared. What else refers to a convolution, such as a list,
    then refers to its block. LC-Blocks, 1x1 and grouped convolutions stay as they are, and so do,
    with a warning that names them, other spatial layers: transposed, one- and three-dimensional
    ones, and subclasses of `nn.Conv2d` that compute something else.

    Make the optimiser after this: one that was made before goes on with the old weights.

    Args:
        model: any `nn.Module`. A convolution that is in a plain list alone, and so not among
            `model.modules()`, stays.
        expansion: E, the rate of linear combinations (Section 4).
        keep_function: let the model compute the same as before: a block's first filters are its
            convolution's, and its pointwise weights the identity, then zeros (Section 6).

    Returns:
        The model.

    Raises:
        ValueError: before anything is replaced, if `expansion` is not an integer of at least 1,
            `model` is no `nn.Module`, scripted, traced from LC-Blocks or lazy, or the weights do
            not fit into memory.
    """
    check_model(model)
    check.integer("expansion", expansion)
    layers = _spatial_layers(model)
    found = [m for m in layers if isinstance(m, nn.Conv2d) and m.groups == 1 and is_plain(m)
             and {"weight", "bias"} <= m._parameters.keys()]  # else a hook computes them
    if any(isinstance(m.weight, nn.UninitializedParameter) for m in found):
        raise ValueError("a lazy convolution has no weights yet: run one batch through the model")
    if found:
        values = sum(m.weight.numel() + m.out_channels ** 2 for m in found)
        check_memory(expansion * values, found[0].weight.device, found[0].weight.dtype)
    tied, old = {}, {conv.weight for conv in found}

    def to_block(conv):
        weight = conv.weight
        block = LCBlock(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
                        expansion, padding=conv.padding, dilation=conv.dilation,
                        padding_mode=conv.padding_mode, bias=conv.bias is not None,
                        device=weight.device, dtype=weight.dtype)
        if keep_function:
            block.spatial.weight.data[:conv.out_channels] = weight.data
            nn.init.dirac_(block.pointwise.weight)
        block.pointwise.bias = conv.bias
        halves = "spatial.weight", "pointwise.weight"
        take_over(block, conv, dict.fromkeys(halves, ([weight], ())), tied)
        block.pointwise.weight.requires_grad_()  # is new: frozen filters are there to be combined
        return block

    for conv, block in [(conv, to_block(conv)) for conv in found]:  # none becomes one if one fails
        become(conv, block)
    left = [m for m in layers if m not in found and getattr(m, "groups", 1) == 1]
    if left or not found:
        warnings.warn(f"convert leaves {_named(left, layers)} alone: only an ungrouped nn.Conv2d "
                      "with k > 1 and a weight of its own is replaced", stacklevel=2)
    if tied := [n for n, p in model.named_parameters(remove_duplicate=False) if p in old]:
        warnings.warn(f"convert gives LC-Blocks new weights: {', '.join(tied)} no longer shares "
                      "the weight of a convolution", stacklevel=2)
    return model


def freeze_spatial(model):
    """Freezes the weight of every spatial convolution (k > 1) at its values, in place (Section 3).

    These are also depthwise, grouped and transposed convolutions and the spatial half of LC-Blocks.
    Biases stay learned. A warning names spatial layers that are no two-dimensional convolutions of
    PyTorch's. Frozen weights have `requires_grad=False` and no gradient, so that an optimiser that
    has them does not change them.

    Returns:
        The model.

    Raises:
        ValueError: if `model` is no `nn.Module`, scripted, or traced from LC-Blocks.
    """
    check_model(model)
    frozen, layers = [m for m in model.modules() if is_spatial(m)], _spatial_layers(model)
    for module in frozen:
        weights = [p for name, p in module.named_parameters(recurse=False) if "weight" in name]
        if "weight" in getattr(module, "parametrizations", ()):  # older ones: weight_g, weight_v
            weights += module.parametrizations["weight"].parameters()
        for parameter in weights:
            parameter.requires_grad_(False)
            parameter.grad = None
    left = [m for m in layers if m not in frozen and any(p.requires_grad for p in m.parameters())]
    if left or not frozen:
        warnings.warn(f"freeze_spatial leaves {_named(left, layers)} as it is: it freezes "
                      "PyTorch's two-dimensional convolutions with k > 1", stacklevel=2)
    return model


def _spatial_layers(model):
    """`{module: name}` of all layers outside of LC-Blocks with weights and a kernel with k > 1."""
    inside = {part for block in model.modules() if isinstance(block, LCBlock)
              for part in block.modules()}
    return {m: name or "the model" for name, m in model.named_modules()
            if m not in inside and _kernel_size(m) > 1
            and (m._parameters or isinstance(m, nn.modules.conv._ConvNd))}


def _kernel_size(module):
    """The largest k of a layer of any class, 1 if it has none."""
    size = getattr(module, "kernel_size", 1)
    sizes = size if isinstance(size, (tuple, list)) else [size]
    return max((k for k in sizes if isinstance(k, int)), default=1)


def _named(modules, names):
    return ", ".join(f"{names[m]} ({type(m).__name__})" for m in modules) or "everything"
