"""Stores the weights in few large tensors, so that a step launches few large kernels."""

import torch
from torch import nn
from torch.func import functional_call

from ..blocks import LCBlock, plain_convolution
from ..utils.modules import replace_in_copy, take_over


class StackedWeights:
    """A network whose LC-Blocks of one shape are folded together, by one batched matrix product.

    The spatial weights of such blocks become slices of one tensor, and so do their pointwise
    weights. The optimiser gets these tensors. All other convolution weights are cast together, and
    the counters of all BatchNorm layers are increased together. The network stays whole: its
    parameters and counters are views of these tensors. Blocks with operations between their
    convolutions are left alone.

    Args:
        network: on its device, in training mode, with all its parameters in one dtype.
        dtype: the precision of the convolutions, or None for the parameters' own.
    """

    def __init__(self, network, dtype=None):
        self.network, self.dtype = network, dtype
        folded, shapes, others, within = set(), {}, {}, set()
        for name, module in network.named_modules():
            if isinstance(module, LCBlock):
                within.update(module.modules())
                if not len(module.between):
                    folded.add(name)
                    weights = module.spatial.weight, module.pointwise.weight
                    shape = tuple((w.shape, w.is_contiguous(), w.requires_grad) for w in weights)
                    shapes.setdefault(shape, {})[f"{name}.weight"] = weights
            elif isinstance(module, nn.Conv2d) and module not in within and dtype:
                others.setdefault(module.weight.requires_grad, {})[f"{name}.weight"] = module.weight
        self.groups = [*map(_Blocks, shapes.values()), *map(_Convolutions, others.values())]

        norms = {name: m for name, m in network.named_modules()
                 if getattr(m, "num_batches_tracked", None) is not None}
        self.counts = None
        if norms:
            self.counts = torch.stack([m.num_batches_tracked for m in norms.values()])
            for norm, count in zip(norms.values(), self.counts):
                norm.num_batches_tracked = count

        # The network with plain convolutions for the blocks. Each call gives it its tensors.
        self.skeleton = replace_in_copy(
            network, lambda m: isinstance(m, LCBlock) and not len(m.between),
            lambda m: plain_convolution(m, m.bias is not None),
            lambda new, block, copies: take_over(new, block, copies=copies))
        tensors, self.given = dict(_tensors(network)), {}
        for name, _ in _tensors(self.skeleton):
            layer, _, kind = name.rpartition(".")
            if layer in folded:
                # of use for the bias alone: each call replaces the weight
                self.given[name] = tensors.get(f"{layer}.pointwise.{kind}")
            elif layer in norms and kind == "num_batches_tracked":
                self.given[name] = None  # they are increased together
            else:
                self.given[name] = tensors[name]

    def learned(self):
        """The tensors to optimise in place of all parameters with `requires_grad`."""
        stacks = [stack for group in self.groups for stack in group.stacks]
        replaced = {id(p) for group in self.groups for p in group.parameters}
        return [p for p in (*stacks, *self.network.parameters())
                if p.requires_grad and id(p) not in replaced]

    def factors(self):
        """The blocks' spatial and pointwise weights, stacked where they are: two lists."""
        alone = [m for m in self.network.modules() if isinstance(m, LCBlock) and len(m.between)]
        pairs = [group.stacks for group in self.groups if isinstance(group, _Blocks)]
        pairs += [(block.spatial.weight, block.pointwise.weight) for block in alone]
        return [spatial for spatial, _ in pairs], [pointwise for _, pointwise in pairs]

    def products(self):
        """The stacks of the combined filters."""
        return [group.combined() for group in self.groups if isinstance(group, _Blocks)]

    def __call__(self, images):
        """The network's output in training mode, differentiable in `learned()`."""
        weights = dict(self.given)
        with torch.autocast(images.device.type, enabled=False):
            for group in self.groups:
                weights |= group.weights(self.dtype)
        if self.counts is not None:
            self.counts += 1
        return functional_call(self.skeleton, weights, images, tie_weights=False)


class _Blocks:
    """LC-Blocks of one shape, `{name: (spatial weight, pointwise weight)}`, as two stacks."""

    def __init__(self, weights):
        self.names, pairs = list(weights), list(weights.values())
        self.parameters = [p for pair in pairs for p in pair]
        self.stacks = [_parameter(torch.stack([as_rows(p)[0] for p in alike]), alike)
                       for alike in zip(*pairs)]
        self.restore = as_rows(pairs[0][0])[1]
        for stack, alike in zip(self.stacks, zip(*pairs)):
            for p, values in zip(alike, stack.data):
                p.data = as_rows(p)[1](values)

    def combined(self):
        spatial, pointwise = self.stacks
        return torch.bmm(pointwise, spatial)

    def weights(self, dtype):
        combined = self.combined().to(dtype or self.stacks[0].dtype)
        return {name: self.restore(values) for name, values in zip(self.names, combined.unbind())}


class _Convolutions:
    """The weights of other convolutions, `{name: weight}`, in one flat tensor."""

    def __init__(self, weights):
        self.names, self.parameters = list(weights), list(weights.values())
        flat = torch.cat([as_rows(p)[0].flatten() for p in self.parameters])
        self.stacks = [_parameter(flat, self.parameters)]
        for p, restored in zip(self.parameters, self._restored(self.stacks[0].data)):
            p.data = restored

    def weights(self, dtype):
        return dict(zip(self.names, self._restored(self.stacks[0].to(dtype))))

    def _restored(self, flat):
        slices = flat.split([p.numel() for p in self.parameters])
        return [as_rows(p)[1](values.view(len(p), -1))
                for p, values in zip(self.parameters, slices)]


def as_rows(weight):
    """A weight `[out, in, k, k]` as rows `[out, in * k * k]`, and the function for the way back.

    The rows have the order of the weight's memory, so nothing is copied.
    """
    if weight.is_contiguous():
        return weight.flatten(1), lambda rows: rows.unflatten(1, weight.shape[1:])
    channels_last = weight.permute(0, 2, 3, 1)
    return (channels_last.flatten(1),
            lambda rows: rows.unflatten(1, channels_last.shape[1:]).permute(0, 3, 1, 2))


def _tensors(network):
    return [*network.named_parameters(remove_duplicate=False),
            *network.named_buffers(remove_duplicate=False)]


def _parameter(values, alike):
    return nn.Parameter(values.detach(), requires_grad=alike[0].requires_grad)
