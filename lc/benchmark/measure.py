"""What a repeated step costs: time and memory."""

import os
import time
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would print messages of its own
CHUNK = 16  # steps on a GPU between two looks at the clock


def seconds_of(step, device, seconds):
    """The mean seconds of a step that is repeated for about `seconds`.

    One step before that is not timed: it allocates memory.
    """
    wait = torch.get_device_module(device).synchronize
    chunk = CHUNK if device.type == "cuda" else 1
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
    """The bytes of tensors that a step allocates at its peak, besides those that were there."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = sorted((event for event in profiled.profiler.kineto_results.events()
                     if event.name() == "[memory]"), key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))
