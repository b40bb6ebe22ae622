"""A network's weights in few large tensors, so that a training step has few and large kernels: a GPU waits for small ones."""

import torch
from torch import nn
from torch.func import functional_call

from .between import no_autocast
from .blocks import LCBlock, as_rows


class Stacks:
    """A network whose LC-Blocks of one shape are folded together, by one batched product.

    The pointwise weights of such blocks become slices of one tensor, and so do the spatial ones; these tensors take the
    weights' place in the optimiser. Likewise, all other convolutions' weights are cast to the precision to convolve in
    at once, and the batches that BatchNorm layers count are counted at once. The network stays whole: its parameters
    and counters are views of these tensors. Blocks with operations between their convolutions are left alone.

    Args:
        network: on its device, all its parameters in one dtype.
        dtype: to convolve in; None for the parameters' own.
    """

    def __init__(self, network, dtype=None):
        self.network, self.dtype = network, dtype
        modules, within = dict(network.named_modules()), set()
        blocks, convolutions = {}, {}
        for name, module in modules.items():
            if isinstance(module, LCBlock):
                within.update(module.modules())
                if len(module.between) == 0:
                    weights = module.spatial.weight, module.pointwise.weight
                    shape = tuple((w.shape, w.is_contiguous(), w.requires_grad) for w in weights)
                    blocks.setdefault(shape, {})[f"{name}.combined"] = weights
            elif isinstance(module, nn.Conv2d) and module not in within and dtype:
                convolutions.setdefault(module.weight.requires_grad, {})[f"{name}.weight"] = module.weight
        self.blocks = [_Blocks(alike) for alike in blocks.values()]
        self.convolutions = [_Convolutions(alike) for alike in convolutions.values()]

        norms = {name: m for name, m in modules.items() if getattr(m, "num_batches_tracked", None) is not None}
        self.uncounted = {f"{name}.num_batches_tracked": None for name in norms}
        self.counts = torch.stack([m.num_batches_tracked for m in norms.values()]) if norms else None
        for norm, count in zip(norms.values(), [] if self.counts is None else self.counts):
            norm.num_batches_tracked = count

    def learned(self):
        """The tensors to optimise, for all parameters that have `requires_grad`."""
        stacks = [stack for group in [*self.blocks, *self.convolutions] for stack in group.stacks]
        replaced = {id(p) for group in [*self.blocks, *self.convolutions] for p in group.parameters}
        return [p for p in (*stacks, *self.network.parameters()) if p.requires_grad and id(p) not in replaced]

    def __call__(self, images):
        """The network's output in training mode, differentiable in `learned()`."""
        weights = dict(self.uncounted)
        with no_autocast(images.device.type):
            for group in [*self.blocks, *self.convolutions]:
                weights |= group.weights(self.dtype)
        if self.counts is not None:
            self.counts += 1
        return functional_call(self.network, weights, images, tie_weights=False)


class _Blocks:
    """LC-Blocks of one shape: their spatial and their pointwise weights, `[blocks, ...]` each.

    Args:
        weights: `{name of the block's combined filters: (spatial, pointwise weight)}`.
    """

    def __init__(self, weights):
        self.names, pairs = list(weights), list(weights.values())
        self.parameters = [p for pair in pairs for p in pair]
        self.stacks = [_parameter(torch.stack([as_rows(p)[0] for p in alike]), alike) for alike in zip(*pairs)]
        self.restore = as_rows(pairs[0][0])[1]
        for stack, alike in zip(self.stacks, zip(*pairs)):
            for p, values in zip(alike, stack.data):
                p.data = as_rows(p)[1](values)

    def weights(self, dtype):
        spatial, pointwise = self.stacks
        combined = torch.bmm(pointwise, spatial).to(dtype or pointwise.dtype)
        return {name: self.restore(values) for name, values in zip(self.names, combined.unbind())}


class _Convolutions:
    """The weights of other convolutions, in one flat tensor.

    Args:
        weights: `{name: weight}`.
    """

    def __init__(self, weights):
        self.names, self.parameters = list(weights), list(weights.values())
        self.stacks = [_parameter(torch.cat([as_rows(p)[0].flatten() for p in self.parameters]), self.parameters)]
        for p, restored in zip(self.parameters, self._restored(self.stacks[0].data)):
            p.data = restored

    def weights(self, dtype):
        return dict(zip(self.names, self._restored(self.stacks[0].to(dtype))))

    def _restored(self, flat):
        slices = flat.split([p.numel() for p in self.parameters])
        return [as_rows(p)[1](values.view(len(p), -1)) for p, values in zip(self.parameters, slices)]


def _parameter(values, alike):
    return nn.Parameter(values.detach(), requires_grad=alike[0].requires_grad)
