"""The processes that `torchrun` starts, on one node or several."""

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist

from ..utils.device import resolve_device


def world():
    """The number of processes, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank():
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined(device="auto"):
    """Connects the processes of torchrun, and yields this one's device.

    That is the GPU of its local rank, or the CPU. Raises ValueError if it is not there.
    """
    device = resolve_device(device)
    if world() == 1:
        yield device
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        device = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def gathered(value):
    """A list of the values of all processes, by rank."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values
