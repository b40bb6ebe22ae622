"""What a repeated step costs: time, memory, operations, bytes."""

import os
import time
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would print messages of its own
CHUNK = 16  # steps on a GPU between two looks at the clock


def seconds_of(step, device, seconds):
    """The mean seconds of a step that is repeated for about `seconds`. One step before that is not timed: it allocates memory."""
    wait, chunk = torch.get_device_module(device).synchronize, CHUNK if device.type == "cuda" else 1
    step()
    wait(device)
    steps, start = 0, time.perf_counter()
    while not steps or time.perf_counter() - start < seconds:
        for _ in range(chunk):
            step()
        wait(device)  # the host would run ahead of the clock
        steps += chunk
    return (time.perf_counter() - start) / steps


def peak_memory(step, device):
    """The bytes of tensors that a step allocates at its peak, without those that were there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))


class Operations(TorchDispatchMode):
    """Counts operations other than views, and the bytes that they read and write: an eager step's memory traffic."""

    def __init__(self):
        super().__init__()
        self.count = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        read, written = ([t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)] for tree in ((args, kwargs), out))
        storages = {t.untyped_storage().data_ptr() for t in read}
        if function._schema.is_mutable or any(t.untyped_storage().data_ptr() not in storages for t in written):  # not a view
            self.count += 1
            self.bytes += sum(t.nbytes for t in read + written)
        return out


def copy_bandwidth(device, seconds=0.5):
    """The bytes per second that a copy of a large tensor reads and writes."""
    source = torch.zeros(2**30 if device.type == "cuda" else 2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / seconds_of(lambda: target.copy_(source), device, seconds)
