"""The machine that a run runs on: its device, the precision it computes natively, and what to record of it."""

import math
import os
import platform
import re
import subprocess
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from .run import ROOT


def resolve_device(device="auto"):
    """The `torch.device` of a name.

    Raises:
        ValueError: if it is unknown or not on this machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch("cpu|cuda(:[0-9]+)?", str(device)):
        raise ValueError(f"unknown device {device!r}; known: auto, cpu, cuda, cuda:0, ...")
    kind, _, index = str(device).partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not on this machine; use auto or cpu")
    return torch.device(device)


def resolve_precision(precision, device, *others):
    """The precision that "auto" means on a device: bf16 where it is computed natively.

    Args:
        others: known ones beside fp32 and bf16.

    Raises:
        ValueError: if it is unknown.
    """
    known = ("auto", "fp32", "bf16", *others)
    if precision not in known:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(known)}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


@contextmanager
def arithmetic(precision, device):
    """How a GPU computes what is in fp32: exactly where `precision` is "fp32", else in TF32, whose inputs have 10 bits.

    Beside bf16, with 7, these are the products that combine filters (Equation 4).
    """
    if device.type != "cuda":
        yield
        return
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def out_of_memory(error):
    """Whether a RuntimeError of PyTorch says that a tensor does not fit, into this memory or into any."""
    return (isinstance(error, torch.OutOfMemoryError)
            or any(text in str(error) for text in ("can't allocate memory", "calculation overflowed")))


def device_name(device):
    """The hardware's name, as in the `device` column."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model} CPU, {torch.get_num_threads()} threads"


def energy_meter(device):
    """A function that gives the energy in watt hours that a device has used so far; nan where it keeps no count.

    The count is NVML's, of the whole GPU: runs that share one share its energy.
    """
    if device.type == "cuda":
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 3.6e6  # of millijoules
        except Exception:  # no NVML, or a GPU, or a part of one, that is not counted: the energy is left out
            pass
    return lambda: math.nan


@cache
def git_version():
    """The commit of the code that runs, with "-dirty" if the package differs from it; $LC_GIT where there is no history."""
    def git(*arguments):
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        if head.returncode == 0:
            return head.stdout.strip() + ("-dirty" if git("status", "--porcelain", "lc").stdout else "")
    except OSError:
        pass
    return os.environ.get("LC_GIT", "unknown")
