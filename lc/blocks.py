"""LC-Blocks: spatial convolutions whose filters a pointwise convolution combines (Sections 3 and 4 of the paper).

A pointwise convolution `P` directly after a spatial convolution `S` equals one convolution with the *combined filters*
`W[i] = sum_j P[i, j] S[j]` (Lemma 3.1). An LC-Block is such a pair. It computes the combined filters and convolves once,
in training too, so it never computes the expanded feature maps.
"""

import copy
import warnings
from contextlib import nullcontext

import torch
from torch import nn

from .utils import check

BETWEEN = {"BN": nn.BatchNorm2d, "ReLU": lambda channels: nn.ReLU(inplace=True)}


class LCBlock(nn.Module):
    """A spatial convolution to `out_channels * expansion` channels, then a pointwise one to `out_channels` (Figure 3).

    Input `[batch, in_channels, height, width]`, output `[batch, out_channels, height', width']`, with the sizes of the
    `nn.Conv2d` that it replaces. Both convolutions keep PyTorch's default initialisation: U(-b, b) with
    b = 1/sqrt(c_in k^2) (Equation 3).

    Args:
        kernel_size, stride, dilation: an integer, or a pair (height, width).
        expansion: E, the rate of linear combinations.
        between: names of operations between the two convolutions, in order: "BN", "ReLU" (Table 3). The paper's LC-Block
            has none. With operations between, the block computes its expanded feature maps.
        padding: as for `nn.Conv2d`. The default is k // 2, which keeps the image size at stride 1.
        bias: whether the pointwise convolution has a bias. The spatial one never has one.

    Raises:
        ValueError: if a size is not an integer of at least 1, if an operation is unknown, or if an even kernel size has no
            explicit padding.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, expansion=1, between=(), *,
                 padding=None, dilation=1, padding_mode="zeros", bias=False, device=None, dtype=None):
        super().__init__()
        for what, value in (("in_channels", in_channels), ("out_channels", out_channels), ("expansion", expansion)):
            check.integer(what, value)
        kernel, _, dilations = (_pair(what, value) for what, value in (
            ("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)))
        if padding is None:
            if not all(k % 2 for k in kernel):
                raise ValueError(f"kernel_size must be odd, not {kernel_size}; an even one needs an explicit padding")
            padding = tuple(d * (k // 2) for d, k in zip(dilations, kernel))
        elif not isinstance(padding, str):  # "same" or "valid"
            _pair("padding", padding, least=0)
        if isinstance(between, str):
            raise ValueError(f"between must be a list of operations such as ('BN', 'ReLU'), not {between!r}")
        unknown = [name for name in between if name not in BETWEEN]
        if unknown:
            raise ValueError(f"unknown operation between the convolutions: {unknown[0]!r}; known: {', '.join(BETWEEN)}")
        expanded = out_channels * expansion
        factory = {"device": device, "dtype": dtype}
        self.spatial = nn.Conv2d(in_channels, expanded, kernel_size, stride, padding, dilation,
                                 bias=False, padding_mode=padding_mode, **factory)
        self.between = nn.Sequential(*(BETWEEN[name](expanded) for name in between)).to(device, dtype)
        self.pointwise = nn.Conv2d(expanded, out_channels, 1, bias=bias, **factory)

    def forward(self, x):
        if len(self.between):
            return self.pointwise(self.between(self.spatial(x)))
        # nn.Conv2d's own forward is this call with its own weight. It knows all padding modes.
        return self.spatial._conv_forward(x, *self.combine())

    def combined_weight(self):
        """The combined filters `W[i] = sum_j P[i, j] S[j]` (Equation 4), `[out_channels, in_channels, k, k]`.

        They are differentiable. A BatchNorm between the convolutions scales each S[j] as in evaluation mode.

        Raises:
            ValueError: if other operations stand between the two convolutions, because no combined filters exist then.
        """
        return self.combine()[0]

    @property
    def folds(self):
        """Whether nothing, or a BatchNorm alone, is between. The block then equals one convolution in evaluation mode."""
        norms = [m for m in self.between if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
        return len(self.between) == len(norms) <= 1

    def combine(self):
        """Weight and bias of the one convolution that the block equals. Raises as `combined_weight`."""
        if not self.folds:
            raise ValueError("no combined filters: operations other than BatchNorm stand between the block's convolutions")
        pointwise, bias, spatial = self.pointwise.weight.flatten(1), self.pointwise.bias, self.spatial.weight
        with _no_autocast(spatial.device.type):  # the cost does not depend on the batch, so full precision is cheap
            for norm in self.between:
                scale = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
                shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
                bias = pointwise @ shift.to(pointwise.dtype) + (0 if bias is None else bias)
                pointwise = pointwise * scale.to(pointwise.dtype)
            return (pointwise @ spatial.flatten(1)).unflatten(1, spatial.shape[1:]), bias


def convert(model, expansion=1):
    """Replaces every ungrouped spatial `nn.Conv2d` (k > 1) of a model, in place, by an LC-Block of the same shape.

    Each block keeps its convolution's stride, padding, padding mode, dilation, bias, device and dtype. Its weights are
    drawn anew. These stay as they are: 1x1 convolutions, grouped ones (depthwise too), LC-Blocks, and, with a warning,
    subclasses of `nn.Conv2d` that compute something else. A convolution that is used in several places stays shared.

    Args:
        model: any `nn.Module`.
        expansion: E, the rate of linear combinations (Section 4).

    Returns:
        The model. If `model` itself is a convolution, the new LC-Block.

    Raises:
        ValueError: if `expansion` is not an integer of at least 1, or if `model` is no `nn.Module` or a scripted one.
    """
    _check_model(model)
    check.integer("expansion", expansion)
    left_alone = set()

    def is_convertible(module):
        if not isinstance(module, nn.Conv2d) or not is_spatial(module) or module.groups > 1:
            return False
        if isinstance(module.weight, nn.UninitializedParameter):
            raise ValueError("the model has a lazy convolution without weights yet: run one batch through it, then convert")
        plain = (type(module).forward is nn.Conv2d.forward and type(module)._conv_forward is nn.Conv2d._conv_forward
                 and "weight" in module._parameters)  # a parametrization or a hook would compute it
        if not plain:
            left_alone.add(type(module).__name__)
        return plain

    def to_block(conv):
        block = LCBlock(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, expansion,
                        padding=conv.padding, dilation=conv.dilation, padding_mode=conv.padding_mode,
                        bias=conv.bias is not None, device=conv.weight.device, dtype=conv.weight.dtype)
        if conv.bias is not None:
            block.pointwise.bias = conv.bias
        return block.train(conv.training)

    model = replace_modules(model, is_convertible, to_block)
    if left_alone:
        warnings.warn(f"convert leaves a {', a '.join(sorted(left_alone))} alone: it does not compute what nn.Conv2d does",
                      stacklevel=2)
    return model


def fold(model):
    """A copy of the model with plain convolutions in place of its LC-Blocks (Lemma 3.1): the network to deploy.

    The outputs are the same, with a BatchNorm between as in evaluation mode. Blocks with a ReLU between stay as they are.
    Raises as `convert` if `model` is no `nn.Module` or a scripted one.
    """
    _check_model(model)

    @torch.no_grad()
    def to_conv(block):
        weight, bias = block.combine()
        conv = plain_convolution(block, bias is not None)
        conv.weight.data = weight
        if bias is not None:
            conv.bias = nn.Parameter(bias.clone())
        return conv

    return replace_in_copy(model, lambda block: block.folds, to_conv)


def unfold(model):
    """A copy of the model that computes the expanded feature maps of each LC-Block: the reference for `fold`.

    It takes about E times the memory and time. The memory that the paper reports suggests that it was trained this way.
    """
    return replace_in_copy(model, lambda block: True, lambda block: nn.Sequential(*(
        copy.deepcopy(part) for part in (block.spatial, block.between, block.pointwise))))


def freeze_spatial(model):
    """Freezes the weight of every spatial convolution (k > 1) at its present, random values, in place (Section 3).

    This includes depthwise, grouped and transposed convolutions and the spatial half of LC-Blocks. Everything else stays
    as it is: pointwise convolutions, normalisation, linear layers, biases. Frozen weights have `requires_grad=False`, so
    they get no gradient, and an optimiser that is given the others only does not decay them.

    Returns:
        The model. Raises as `convert` if `model` is no `nn.Module` or a scripted one.
    """
    _check_model(model)
    for module in model.modules():
        if is_spatial(module):
            for name, parameter in module.named_parameters():
                if "weight" in name:  # also weight_g, weight_v and the originals of a parametrization
                    parameter.requires_grad_(False)
    return model


def combined_filters(model):
    """The filters that each spatial layer convolves with, in the order of `model.named_modules()`.

    Returns:
        `{layer name: weight}`, detached, `[out, in, k, k]`: the combined filters of an LC-Block, and the weight of any
        other spatial convolution (grouped and transposed ones in PyTorch's layout). A block with a ReLU between has no
        combined filters, so its spatial weight `[out * E, in, k, k]` is given. Raises as `convert` if `model` is no
        `nn.Module` or a scripted one.
    """
    _check_model(model)
    filters, inside = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, LCBlock):
            inside.add(module.spatial)
            weight = module.combined_weight() if module.folds else module.spatial.weight
        elif is_spatial(module) and module not in inside:
            weight = module.weight
        else:
            continue
        filters[name] = weight.detach()
    return filters


def is_spatial(module):
    """Whether a module is a two-dimensional convolution, of any kind, with a kernel larger than 1x1."""
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and max(module.kernel_size) > 1


def plain_convolution(block, bias):
    """An `nn.Conv2d` of an LC-Block's shape, device, dtype and mode. Its weight is not initialised."""
    s, p = block.spatial, block.pointwise
    conv = nn.utils.skip_init(nn.Conv2d, s.in_channels, p.out_channels, s.kernel_size, s.stride, s.padding, s.dilation,
                              bias=bias, padding_mode=s.padding_mode, device=p.weight.device, dtype=p.weight.dtype)
    return conv.train(block.training)


def replace_in_copy(model, matches, make):
    """A copy of the model with `make(block)` in place of each LC-Block that `matches`."""
    blocks = {id(m): m for m in model.modules() if isinstance(m, LCBlock) and matches(m)}
    # deepcopy's memo: do not copy blocks that are replaced by convolutions E times smaller
    return replace_modules(copy.deepcopy(model, dict(blocks)), lambda m: id(m) in blocks, make)


def replace_modules(model, matches, make):
    """Replaces the modules outside of LC-Blocks that `matches`, each once, wherever the model refers to it."""
    made = {}

    def visit(module):
        if matches(module):
            if module not in made:
                made[module] = make(module)
            return made[module]
        if not isinstance(module, LCBlock):
            for name, child in module._modules.items():  # named_children() skips the second use of a child
                if child is not None:
                    module._modules[name] = visit(child)
        return module

    return visit(model)


def _no_autocast(device):
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _pair(what, value, least=1):
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{what} must be an integer or a pair of integers, not {value!r}")
    return tuple(check.integer(what, v, least) for v in pair)


def _check_model(model):
    check.kind("the model", model, nn.Module, "an nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("the layers of a scripted model cannot be told apart: do this before torch.jit.script")
