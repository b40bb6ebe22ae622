"""The memory of a training step on images: counted without computing the step, and measured on a GPU."""

import torch
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from ..blocks import freeze_spatial
from ..run import recipe_named
from ..utils import check
from ..utils.device import resolve_device, resolve_precision
from .networks import build_model
from .run import RECIPES
from .step import Trainer
from .training import BATCH

GB = 1e9


def report(model, frozen=False, recipe="a2", batch=None, device="auto", precision="auto", num_classes=1000):
    """Prints the peak memory of an optimisation step in GB, by what takes it, and on a GPU also measures it.

    Args:
        model, frozen, recipe: as of a `Run`.
        batch: images at a time, by default 256.

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
    """Counts the bytes of the tensors at the peak of the second step in half precision: `{what: bytes}`, last "total".

    Fake tensors have shapes but no memory, so a small machine can count for a large one. The allocator's waste and the
    workspaces of libraries are not counted.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainer, batches = _after_one_step(model, frozen, recipe, batch, torch.device("cpu"), "bf16", num_classes)
        weights = [*trainer.network.parameters(), *trainer.network.buffers()]
        moments = [moment for state in trainer.optimizer.state.values() for moment in state.values()]
        tensors = {"weights": weights, "gradients": [p for p in weights if p.requires_grad], "moments": moments}
        known = {what: sum(t.nbytes for t in some) for what, some in tensors.items()}
        _frozen_as_buffers(trainer.network)
        tracker = MemTracker()
        tracker.track_external(trainer.network, trainer.optimizer)
        with tracker:
            trainer.step(batches)
        total = tracker.get_tracker_snapshot("peak")[trainer.device]["Total"]
        return known | {"the rest": total - sum(known.values()), "total": total}


def _frozen_as_buffers(network):
    """Turns frozen parameters into buffers. MemTracker (PyTorch 2.11 to 2.15) raises an error for a frozen parameter."""
    for module in network.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter)


def measured(model, frozen, recipe, batch, device, precision, num_classes=1000):
    """Measures the bytes of the tensors at the peak of the second step on a GPU."""
    trainer, batches = _after_one_step(model, frozen, recipe, batch, device, precision, num_classes)
    torch.cuda.reset_peak_memory_stats(device)
    trainer.step(batches)
    return torch.cuda.max_memory_allocated(device)


def _after_one_step(model, frozen, recipe, batch, device, precision, num_classes):
    """A trainer after its first step, which allocates LAMB's moments, and mini-batches for further steps."""
    network = build_model(model, num_classes, recipe.drop_path)
    if frozen:
        freeze_spatial(network)
    if device.type == "cuda":
        network.to(device, memory_format=torch.channels_last)
    trainer, batches = Trainer(network, num_classes, recipe, 1, device, precision), _zeros(batch, recipe.image_size)
    trainer.step(batches)
    return trainer, batches


def _zeros(batch, size):
    while True:
        yield torch.zeros(batch, 3, size, size, dtype=torch.uint8), torch.zeros(batch, dtype=torch.int64), 0
