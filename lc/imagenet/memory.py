"""How much memory a training step on photographs takes: counted without computing it, and measured on a GPU."""

import weakref

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..utils import check
from ..blocks import freeze_spatial
from ..utils.device import resolve_device, resolve_precision
from ..run import recipe_named
from .networks import build_model
from .run import RECIPES
from .step import Trainer
from .training import BATCH

GB = 1e9


def report(model, frozen=False, recipe="a2", batch=None, device="auto", precision="auto", num_classes=1000):
    """Print the peak memory of an optimisation step, by what takes it.

    Args:
        model, frozen, recipe: as of a `Run`.
        batch: images at a time; by default 256.

    Raises:
        ValueError: as `train`.
    """
    device = resolve_device(device)
    recipe, batch = recipe_named(recipe, RECIPES), check.integer("batch", BATCH if batch is None else batch)
    kind = "frozen" if frozen else "learnable"
    peak = counted(model, frozen, recipe, batch, num_classes)
    print(f"{model} {kind}, {batch} images of {recipe.image_size} px at a time, half precision; GB of tensors at a step's peak")
    for what, size in peak.items():
        print(f"  {what:12} {size / GB:6.2f}")
    if device.type == "cuda":
        precision = resolve_precision("fp16" if precision == "auto" else precision, device, "fp16")
        size = measured(model, frozen, recipe, batch, device, precision, num_classes)
        print(f"  {'measured':12} {size / GB:6.2f}  in {precision} on {torch.cuda.get_device_name(device)}")
    return peak


def counted(model, frozen, recipe, batch=BATCH, num_classes=1000):
    """Bytes of tensors at the peak of the second step in half precision, `{what: bytes}`, "total" the last; nothing is computed.

    Fake tensors have shapes and no memory, so that a small machine counts for a large one. What the allocator wastes and a
    library's workspaces take comes on top.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainer = _trainer(model, frozen, recipe, torch.device("cpu"), "bf16", num_classes)
        trainer.step(_batches(recipe, batch, num_classes))
        moments = [t for state in trainer.optimizer.state.values() for t in state.values()]
        weights = [*trainer.network.parameters(), *trainer.network.buffers()]
        with _Peak(weights + moments) as tracked:
            trainer.step(_batches(recipe, batch, num_classes))
        learned = [p for p in weights if p.requires_grad]
        known = {"weights": _bytes(weights), "gradients": _bytes(learned), "moments": _bytes(moments)}
        return known | {"the rest": tracked.peak - sum(known.values()), "total": tracked.peak}


class _Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that live at the same time, from some that live already."""

    def __init__(self, tensors):
        super().__init__()
        self.live = self.peak = 0
        self.storages = {}
        self._track(tensors)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self._track(t for t in tree_leaves(out) if isinstance(t, torch.Tensor))
        return out

    def _track(self, tensors):
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key not in self.storages:
                self.storages[key] = weakref.ref(storage, lambda _, key=key, size=size: self._forget(key, size))
                self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, key, size):
        del self.storages[key]
        self.live -= size


def _bytes(tensors):
    return sum(t.nbytes for t in tensors)


def measured(model, frozen, recipe, batch, device, precision, num_classes=1000):
    """Bytes of tensors at the peak of the second step on a GPU."""
    trainer = _trainer(model, frozen, recipe, device, precision, num_classes)
    trainer.step(_batches(recipe, batch, num_classes))
    torch.cuda.reset_peak_memory_stats(device)
    trainer.step(_batches(recipe, batch, num_classes))
    return torch.cuda.max_memory_allocated(device)


def _trainer(model, frozen, recipe, device, precision, num_classes):
    network = build_model(model, num_classes, recipe.drop_path)
    if frozen:
        freeze_spatial(network)
    if device.type == "cuda":
        network.to(device, memory_format=torch.channels_last)
    return Trainer(network, num_classes, recipe, 1, device, precision)


def _batches(recipe, batch, num_classes):
    yield (torch.zeros(batch, 3, recipe.image_size, recipe.image_size, dtype=torch.uint8),
           torch.zeros(batch, dtype=torch.int64), 0)
