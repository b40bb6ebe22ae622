"""The processes that `torchrun` starts, on one node or several."""

import os
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist

from ..utils.device import resolve_device


class Process(NamedTuple):
    """This process: its device, its rank among all processes, and how many there are."""

    device: torch.device
    rank: int
    world: int


@contextmanager
def joined(device="auto"):
    """Yields this `Process`. Under torchrun, the processes can exchange values until the context ends.

    Each process takes the GPU of its local rank, or the CPU.

    Raises:
        ValueError: if the device is unknown, or this node has more processes than GPUs.
    """
    device = resolve_device(device)
    if count() == 1:
        yield Process(device, 0, 1)
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"{os.environ['LOCAL_WORLD_SIZE']} processes on a node with {torch.cuda.device_count()} GPUs; start "
                             "torchrun with --nproc-per-node no larger than that")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    try:
        yield Process(device, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def count():
    """The number of processes that torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first():
    """Whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def gathered(value):
    """A list of the values of all processes, by rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
