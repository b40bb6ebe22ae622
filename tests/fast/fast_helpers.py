"""Counts what PyTorch computes, for several test files."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts operations by name, and the convolutions' gradients of weights."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.count[name] += 1
        if name == "convolution_backward":
            _, of_weight, _ = args[-1]
            self.count["weight gradient"] += of_weight
        return function(*args, **(kwargs or {}))
