"""The device of a run: its name, precision and randomness, and what a run costs on it."""

import os
import platform
import re
import subprocess
import time
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .files import ROOT, is_project


def resolve_device(device="auto"):
    """The `torch.device` of that name. "auto" is a GPU if there is one.

    Raises:
        ValueError: if it is unknown or not on this machine, or PyTorch cannot use the GPU there.
    """
    device = str(device)
    if device.startswith("mps"):
        raise ValueError("an Apple GPU (mps) is not used yet; choose the device cpu")
    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", device):
        raise ValueError(f"unknown device {device!r}; known: auto, cpu, cuda, cuda:0, ...")
    usable = torch.cuda.is_available()
    if device != "cpu" and not usable and (gpu := seen_by_driver()):
        raise ValueError(f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}) cannot use "
                         f"{gpu}; install what docs/gpu_server.md names, or choose the device cpu")
    if device == "auto":
        device = "cuda" if usable else "cpu"
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not on this machine; use auto or cpu")
    return torch.device(device)


def check_defaults():
    """Raises ValueError if PyTorch's own defaults, which training needs, were changed."""
    own = torch.get_default_dtype() == torch.float32 and torch.get_default_device().type == "cpu"
    if not own or not torch.is_grad_enabled():
        raise ValueError("training needs PyTorch's own defaults: torch.set_default_dtype("
                         "torch.float32), torch.set_default_device('cpu') with device=, and "
                         "torch.set_grad_enabled(True)")


def seen_by_driver():
    """The first NVIDIA GPU that the driver lets this process use, with driver and CUDA, or None.

    Raises ValueError if the driver changed while it was in use.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # of the import, or of NVML
        if "version mismatch" in str(error):
            raise ValueError("the NVIDIA driver was updated while in use; restart this machine, or "
                             "choose the device cpu") from None
        return None
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed in ("", "-1", "NoDevFiles"):  # these hide all GPUs; the last is Slurm's
        return None
    for i in range(pynvml.nvmlDeviceGetCount()):
        with suppress(pynvml.NVMLError):  # a scheduler may keep this GPU from the process
            name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))
            driver = pynvml.nvmlSystemGetDriverVersion()
            cuda = pynvml.nvmlSystemGetCudaDriverVersion()
            return (f"{name} with driver {driver} (CUDA {cuda // 1000}.{cuda % 1000 // 10})"
                    + (f" and CUDA_VISIBLE_DEVICES={listed}" if listed else ""))


def resolve_precision(precision, device, *others):
    """The precision of that name. "auto" is bf16 if the device computes it natively, else fp32.

    Raises ValueError if it is unknown, to the caller in `others` too, or if this PyTorch has no
    code for the device.
    """
    known = ("auto", "fp32", "bf16", *others)
    if precision not in known:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(known)}")
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        built = re.findall(r"\bsm_(\d+)", " ".join(torch.cuda.get_arch_list()))
        oldest = min(map(int, built), default=0)
        if 10 * major + minor < oldest:
            raise ValueError(f"{device_name(device)} has compute capability {major}.{minor}, and "
                             f"PyTorch {torch.__version__} needs {oldest / 10}; install a build "
                             "that docs/gpu_server.md names, or choose the device cpu")
        native = major >= 8
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    if precision != "auto":
        return precision
    return "bf16" if native else "fp32"


@contextmanager
def arithmetic(precision, device):
    """Computes products of fp32 tensors exactly for "fp32", otherwise as fast as the device can.

    With "bf16", only the products that combine filters are of fp32 tensors (Equation 4). A GPU
    computes them in TF32 (10 bits of mantissa), a CPU by oneDNN, in bf16 (7 bits) if it has AMX.
    """
    on_cpu = precision == "bf16" and device.type == "cpu"
    with _products(precision == "fp32", device.type == "cuda"):
        with StridedDepthwiseInFP32() if on_cpu else nullcontext():
            yield


@contextmanager
def _products(exact, gpu):
    """Sets how products of fp32 tensors are computed, exactly or fast, and restores it."""
    cudnn, set_products = torch.backends.cudnn, torch.set_float32_matmul_precision
    try:
        before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller set them in PyTorch's newer way, which excludes the older
        with _products_newer(exact, gpu):
            yield
        return
    if gpu:
        cudnn.allow_tf32 = not exact
    set_products("highest" if exact else "high" if gpu else "medium")
    try:
        yield
    finally:
        cudnn.allow_tf32 = before[0]
        set_products(before[1])


@contextmanager
def _products_newer(exact, gpu):
    """The same by the settings of each backend, which PyTorch does not mix with the older ones."""
    backends = torch.backends
    settings = [backends.cuda.matmul, backends.cudnn.conv] if gpu else [backends.mkldnn.matmul]
    before = [each.fp32_precision for each in settings]
    for each in settings:
        each.fp32_precision = "ieee" if exact else "tf32" if gpu else "bf16"
    try:
        yield
    finally:
        for each, value in zip(settings, before):
            each.fp32_precision = value


class StridedDepthwiseInFP32(TorchFunctionMode):
    """Keeps autocast from strided depthwise convolutions, as MobileNet v2 has them.

    PyTorch 2.15 has no fast code for their backward pass in bf16 on a CPU: with it, a training step
    of MobileNet v2 takes 1.5 times as long.
    """

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function is F.conv2d and is_strided_depthwise(*arguments, **options):
            arguments = [a.float() if isinstance(a, torch.Tensor) else a for a in arguments]
            with torch.autocast("cpu", enabled=False):
                return function(*arguments, **options)
        return function(*arguments, **options)


def is_strided_depthwise(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Whether a convolution that has these arguments is depthwise, and has a stride."""
    return groups == input.shape[1] > 1 and stride not in (1, (1, 1))


def index_of(gpu):
    """The number of a GPU; "cuda" is the current one."""
    return torch.cuda.current_device() if gpu.index is None else gpu.index


def to_device(network, device):
    """Moves a network, in channels_last to a GPU only: a CPU's fused SGD would copy it."""
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return network.to(device, memory_format=layout)


@contextmanager
def own_randomness(seed, device):
    """Seeds PyTorch's generators for initialisation and dropout, and restores them at the end."""
    cuda = [index_of(device)] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for i in cuda:
            torch.cuda.default_generators[i].manual_seed(seed)
        yield


def out_of_memory(error):
    """Whether an exception says that something did not fit into a device's memory."""
    texts = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "can't allocate memory",
             "calculation overflowed")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def device_name(device):
    """The name of the hardware, as in the results."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = info.exists() and re.search(r"^model name\s*:(.*)", info.read_text(), re.MULTILINE)
    model = found[1].strip() if found else platform.machine()
    return f"{model} CPU, {torch.get_num_threads()} threads"


def said_name(device):
    """The name for a sentence. Rows keep "1 threads", as older ones have it."""
    return device_name(device).replace(" 1 threads", " 1 thread")


class Meter:
    """Counts the seconds of a run, of its set-up and of its training."""

    def __init__(self):
        self.spent = {"seconds": 0.0, "setup": 0.0, "training": 0.0}
        self.last = time.monotonic()

    def lap(self, part=None):
        """Adds the time since the last lap to the whole, and to a part: "setup" or "training"."""
        before, self.last = self.last, time.monotonic()
        self.spent["seconds"] += self.last - before
        if part:
            self.spent[part] += self.last - before

    def add(self, spent):
        """Adds what was spent before an interruption, as a checkpoint has it."""
        for name in self.spent:
            self.spent[name] += spent[name]


@cache
def git_version():
    """The commit of this code, with "-dirty" if `lc` was changed since, or "unknown".

    $LC_GIT names it where there is no repository, as in a container. No other repository counts,
    around this project or named by git's variables.
    """
    if given := os.environ.get("LC_GIT"):
        return given
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments):
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True,
                              check=True, env=environment).stdout.strip()

    try:
        if not is_project() or Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return "unknown"
        changed = git("status", "--porcelain", "lc")
        return git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
