"""One process or many, on one node or several, as `torchrun` starts them."""

import os
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist

from ..utils.device import resolve_device


class Process(NamedTuple):
    """This process among all: its device, its rank, and how many there are."""

    device: torch.device
    rank: int
    world: int


@contextmanager
def joined(device="auto"):
    """Yield this `Process`; under torchrun, all can talk to each other until the end of the context.

    Each process takes the GPU of its local rank; without GPUs, or told so, the CPU.

    Raises:
        ValueError: unknown device, or more processes on this node than it has GPUs.
    """
    world, rank = count(), int(os.environ.get("RANK", 0))
    if world == 1:
        yield Process(resolve_device(device), 0, 1)
        return
    device = resolve_device(device)
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ValueError(f"{os.environ['LOCAL_WORLD_SIZE']} processes on a node with {torch.cuda.device_count()} GPUs; start "
                             "torchrun with --nproc-per-node no larger than that")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", device_id=device if device.type == "cuda" else None)
    try:
        yield Process(device, rank, world)
    finally:
        dist.destroy_process_group()


def count():
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first():
    """Whether this process is the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def total(values, device):
    """The sums over all processes of some numbers, as a list."""
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums.tolist()


def gathered(value):
    """The values of all processes, by rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
