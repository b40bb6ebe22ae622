"""What a repeated step costs: time, memory, kernels, bytes."""

import os
import time

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler, which counts memory, talks to the terminal
CHUNK = 16  # steps on a GPU between two looks at the clock


def seconds_of(step, device, seconds):
    """Seconds of a step, repeated for about `seconds`, after one that is not timed: it takes up memory that others gave back."""
    step()
    wait(device)
    steps, start = 0, time.perf_counter()
    while not steps or time.perf_counter() - start < seconds:
        for _ in range(CHUNK if device.type == "cuda" else 1):
            step()
            steps += 1
        wait(device)  # or the host would run ahead of the clock
    return (time.perf_counter() - start) / steps


def wait(device):
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(step, device):
    """Bytes of tensors that a step allocates at its peak, beside those that were there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


def kernels(step, device):
    """Kernels, copies and fills that a step runs on a GPU."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        wait(device)
    return sum(event.device_type() == torch.autograd.DeviceType.CUDA for event in profiled.profiler.kineto_results.events())


class Operations(TorchDispatchMode):
    """Counts operations, views aside, and the bytes that they read and write: what an eager step moves through memory."""

    def __init__(self):
        super().__init__()
        self.count = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        written = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        storages = {t.untyped_storage().data_ptr() for t in read}
        is_view = not function._schema.is_mutable and all(t.untyped_storage().data_ptr() in storages for t in written)
        if not is_view:
            self.count += 1
            self.bytes += sum(t.nbytes for t in read + written)
        return out


def copy_bandwidth(device, seconds=0.5):
    """Bytes per second that a copy of a large tensor reads and writes."""
    source = torch.zeros(2**30 if device.type == "cuda" else 2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / seconds_of(lambda: target.copy_(source), device, seconds)
