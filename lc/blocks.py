"""LC-Blocks: spatial convolutions recombined by pointwise ones (Sections 3 and 4 of the paper).

A pointwise convolution `P` applied to the output of a spatial convolution `S` equals one convolution with the
*combined filters* `W[i] = sum_j P[i, j] S[j]` (Lemma 3.1). An LC-Block is such a pair that replaces one convolution;
training included, it runs through its combined filters, not through the expanded features, where nothing stands between.
"""

import copy
import warnings

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from . import check
from .between import affine, is_standard, no_autocast, normalize_and_combine, patch_statistics

BETWEEN = {"BN": nn.BatchNorm2d, "ReLU": lambda channels: nn.ReLU(inplace=True)}


class LCBlock(nn.Module):
    """A spatial convolution to `out_channels * expansion` channels, then a pointwise one to `out_channels` (Figure 3).

    Input `[batch, in_channels, height, width]`, output `[batch, out_channels, height', width']`, sizes as for the
    `nn.Conv2d` that it replaces. Both convolutions keep PyTorch's default initialisation: U(-b, b) with
    b = 1/sqrt(c_in k^2) (Equation 3).

    Args:
        kernel_size, stride, dilation: an int, or a pair (height, width).
        expansion: E, the rate of linear combinations.
        between: operations between the two convolutions, in order, of "BN" and "ReLU" (Table 3). The paper's LC-Block
            has none. With BatchNorm alone the two convolutions still equal one; with ReLU they do not, and the block
            runs through its expanded features, E times as many as its output has.
        padding: as for `nn.Conv2d`; by default k // 2, which keeps the image size at stride 1.
        bias: whether the pointwise convolution has a bias (the spatial one never has).

    Raises:
        ValueError: for a size that is not a whole number of at least 1, an unknown operation, or an even kernel size
            without an explicit padding.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, expansion=1, between=(), *,
                 padding=None, dilation=1, padding_mode="zeros", bias=False, device=None, dtype=None):
        super().__init__()
        for what, value in (("in_channels", in_channels), ("out_channels", out_channels), ("expansion", expansion)):
            check.whole(what, value)
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
        self.register_buffer("combined", None, persistent=False)  # where `stacks` hands in what it computed for many blocks

    def combined_weight(self):
        """The combined filters `W[i] = sum_j P[i, j] S[j]` (Equation 4), `[out_channels, in_channels, k, k]`.

        Differentiable. With BatchNorm between, each S[j] is scaled as in evaluation mode. Computed in the weights' own
        precision also under autocast: the cost does not depend on the batch.

        Raises:
            ValueError: if other operations stand between the two convolutions, since no combined filters exist then.
        """
        return self._combine(self._running())[0]

    @property
    def folds(self):
        """Whether the block equals one convolution in evaluation mode: nothing between, or BatchNorm alone."""
        return len(self.between) == 0 or (len(self.between) == 1 and self._norm is not None)

    @property
    def _norm(self):
        """The BatchNorm that directly follows the spatial convolution, if there is one whose statistics are known."""
        return self.between[0] if len(self.between) and is_standard(self.between[0]) else None

    def _running(self):
        """The scale and shift of each expanded channel in evaluation mode; None if nothing is between."""
        if not self.folds:
            raise ValueError("no combined filters: operations other than BatchNorm stand between the block's convolutions")
        norm = self._norm
        return affine(norm, norm.running_mean, norm.running_var) if norm else None

    def _combine(self, scale_and_shift):
        """Weight and bias of the one convolution that the block equals."""
        pointwise, bias, spatial = self.pointwise.weight.flatten(1), self.pointwise.bias, self.spatial.weight
        with no_autocast(spatial.device.type):
            if scale_and_shift:
                scale, shift = (values.to(pointwise.dtype) for values in scale_and_shift)
                bias = pointwise @ shift if bias is None else pointwise @ shift + bias
                pointwise = pointwise * scale
            filters, restore = as_rows(spatial)
            return restore(pointwise @ filters), bias

    def forward(self, x):
        norm = self._norm
        if self.combined is not None:
            weight, bias = self.combined, self.pointwise.bias
        elif self.folds and not (norm and norm.training):
            weight, bias = self._combine(self._running())
        elif self.folds and self.spatial.out_channels > self.spatial.weight[0].numel():
            weight, bias = self._combine(affine(norm, *patch_statistics(self.spatial, norm, x)))
        elif norm and norm.training:
            return normalize_and_combine(norm, lambda z: self.pointwise(self.between[1:](z)), self.spatial(x))
        elif self.training:
            return self._expanded(x)
        else:  # an attack needs the gradient of its input: all is computed again, or a large batch would not fit
            return checkpoint(self._expanded, x, use_reentrant=False, preserve_rng_state=False)
        # _conv_forward is what every nn.Conv2d runs through: it knows all padding modes, and takes the weight to use.
        return self.spatial._conv_forward(x, weight, bias)

    def _expanded(self, x):
        return self.pointwise(self.between(self.spatial(x)))


def convert(model, expansion=1):
    """Replace every ungrouped spatial `nn.Conv2d` (k > 1) of any model, in place, by an LC-Block of the same shape.

    Stride, padding, padding mode, dilation, bias, device and dtype of each convolution are kept; its weights are drawn
    anew. Left alone: 1x1 convolutions, grouped ones (depthwise included), LC-Blocks, and, with a warning, subclasses
    of `nn.Conv2d` that compute something else than `nn.Conv2d` does. A convolution used in several places stays shared.

    Args:
        model: any `nn.Module`.
        expansion: E, the rate of linear combinations (Section 4).

    Returns:
        The model; a new module only if `model` is itself a convolution.

    Raises:
        ValueError: if `expansion` is not a whole number of at least 1, or `model` is no `nn.Module`, or a scripted one.
    """
    _check_model(model)
    check.whole("expansion", expansion)

    left_alone = set()

    def is_convertible(module):
        if not isinstance(module, nn.Conv2d) or not is_spatial(module) or module.groups > 1:
            return False
        if isinstance(module.weight, nn.UninitializedParameter):
            raise ValueError("the model has a lazy convolution without weights yet: run one batch through it, then convert")
        plain = (type(module).forward is nn.Conv2d.forward and type(module)._conv_forward is nn.Conv2d._conv_forward
                 and "weight" in module._parameters)  # not computed, by a parametrization or a hook
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

    model = _replace(model, is_convertible, to_block)
    if left_alone:
        warnings.warn(f"convert leaves a {', a '.join(sorted(left_alone))} alone: it does not compute what nn.Conv2d does",
                      stacklevel=2)
    return model


def fold(model):
    """A copy of the model in which plain convolutions with the combined filters stand for the LC-Blocks (Lemma 3.1).

    Same outputs (with BatchNorm between: as in evaluation mode), no trace of the expansion: the network to deploy.
    Blocks with a ReLU between stay as they are. Raises as `convert` for what is no model.
    """
    _check_model(model)

    @torch.no_grad()
    def to_conv(block):
        s = block.spatial
        weight, bias = block._combine(block._running())
        conv = nn.utils.skip_init(nn.Conv2d, s.in_channels, block.pointwise.out_channels, s.kernel_size, s.stride,
                                  s.padding, s.dilation, bias=bias is not None,
                                  padding_mode=s.padding_mode, device=weight.device, dtype=weight.dtype)
        conv.weight.data = weight
        if bias is not None:
            conv.bias = nn.Parameter(bias.clone())
        return conv.train(block.training)

    blocks = {id(m): m for m in model.modules() if isinstance(m, LCBlock) and m.folds}  # E times as large as what stays of them
    return _replace(copy.deepcopy(model, blocks), lambda m: id(m) in blocks, to_conv)


def unfold(model):
    """A copy of the model that computes each LC-Block literally, expanded features and all: the reference for `fold`.

    It costs about E times the memory and time; so did the paper's own training, as the memory it reports suggests.
    """
    return _replace(copy.deepcopy(model), lambda m: isinstance(m, LCBlock),
                    lambda block: nn.Sequential(block.spatial, block.between, block.pointwise))


def freeze_spatial(model):
    """Freeze the weight of every spatial convolution (k > 1) at its present, random values, in place (Section 3).

    Depthwise, grouped and transposed convolutions and the spatial half of LC-Blocks included. Everything else stays as
    it is: pointwise convolutions, normalisation, linear layers, biases. Frozen weights have `requires_grad=False`:
    they get no gradient, and optimisers leave them alone, weight decay included.

    Returns:
        The model.

    Raises:
        ValueError: as `convert` for what is no model.
    """
    _check_model(model)
    for module in model.modules():
        if is_spatial(module):
            for name, parameter in module.named_parameters():
                if "weight" in name:  # weight_g and weight_v, or the originals, where the weight is computed from others
                    parameter.requires_grad_(False)
    return model


def combined_filters(model):
    """The filters that each spatial layer convolves with, first to last in the order of `model.named_modules()`.

    Returns:
        `{layer name: weight}`, each detached, `[out, in, k, k]`: the combined filters of an LC-Block, the weight of any
        other spatial convolution (grouped and transposed ones in PyTorch's layout of theirs). A block with a ReLU
        between has no combined filters; its spatial weight `[out * E, in, k, k]` stands in.

    Raises:
        ValueError: as `convert` for what is no model.
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


def as_rows(weight):
    """A convolution's weight as one filter a row, `[out, in * k * k]`, in the order of its memory, so that nothing is copied.

    Returns:
        The rows, and a function that makes a weight `[out', in, k, k]` of others.
    """
    if weight.is_contiguous():
        return weight.flatten(1), lambda others: others.unflatten(1, weight.shape[1:])
    channels_last = weight.permute(0, 2, 3, 1)
    return channels_last.flatten(1), lambda others: others.unflatten(1, channels_last.shape[1:]).permute(0, 3, 1, 2)


def is_spatial(module):
    """Whether a module is a two-dimensional convolution, of any kind, with a kernel larger than 1x1."""
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and max(module.kernel_size) > 1


def _replace(model, matches, make):
    """Replace the matching modules outside of LC-Blocks, each once, wherever the model refers to it."""
    made = {}

    def visit(module):
        if matches(module):
            if module not in made:
                made[module] = make(module)
            return made[module]
        if not isinstance(module, LCBlock):
            for name, child in module._modules.items():  # named_children() would pass over a second use of a child
                if child is not None:
                    module._modules[name] = visit(child)
        return module

    return visit(model)


def _pair(what, value, least=1):
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{what} must be a whole number or a pair of them, not {value!r}")
    return tuple(check.whole(what, v, least) for v in pair)


def _check_model(model):
    check.kind("the model", model, nn.Module, "an nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("the layers of a scripted model cannot be told apart: do this before torch.jit.script")
