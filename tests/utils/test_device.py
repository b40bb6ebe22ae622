"""A GPU that is not there, for which NVML's answers are played, and the version of the code."""

import shutil
import subprocess
import sys
import types

import pytest
import torch

from lc.utils import device as device_module
from lc.utils import files
from lc.utils.device import arithmetic, out_of_memory, resolve_device, resolve_precision

GPU = torch.device("cuda", 1)


def fail(*_, why="Not Supported"):
    raise LookupError(why)


# The driver of two GPUs, of which a scheduler lets this process use the second
NVML = types.SimpleNamespace(
    NVMLError=LookupError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 2,
    nvmlSystemGetDriverVersion=lambda: "535.104.05", nvmlSystemGetCudaDriverVersion=lambda: 12020,
    nvmlDeviceGetHandleByIndex=lambda i: "NVIDIA A100" if i else fail(), nvmlDeviceGetName=str)


@pytest.mark.parametrize("precision, device, products, convolutions", [
    ("fp32", "cuda", "highest", False), ("bf16", "cuda", "high", True),
    ("fp32", "cpu", "highest", True), ("bf16", "cpu", "medium", True),
])
def test_fp32_is_exact_and_bf16_fast(precision, device, products, convolutions):
    def modes():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = modes()
    with pytest.raises(KeyError), arithmetic(precision, torch.device(device)):
        assert modes() == (products, convolutions)
        raise KeyError
    assert modes() == before


@pytest.mark.parametrize("precision, device, products, convolutions", [
    ("fp32", "cuda", "ieee", "ieee"), ("bf16", "cuda", "tf32", "tf32"),
    ("fp32", "cpu", "ieee", None), ("bf16", "cpu", "bf16", None)])
def test_it_is_so_too_where_the_caller_says_precisions_in_the_newer_way(
        precision, device, products, convolutions):
    backends = torch.backends
    kind = backends.cuda if device == "cuda" else backends.mkldnn
    before = backends.cuda.matmul.fp32_precision
    backends.cuda.matmul.fp32_precision = "tf32"
    try:
        theirs = kind.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
        with arithmetic(precision, torch.device(device)):
            assert kind.matmul.fp32_precision == products
            assert backends.cudnn.conv.fp32_precision == convolutions or device == "cpu"
        assert (kind.matmul.fp32_precision, backends.cudnn.conv.fp32_precision) == theirs
    finally:
        backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize("groups, stride, expected", [
    (4, 2, torch.float32), (4, 1, torch.bfloat16), (2, 2, torch.bfloat16), (1, 2, torch.bfloat16)])
def test_strided_depthwise_convolutions_are_in_fp32_on_a_cpu(groups, stride, expected):
    convolution = torch.nn.Conv2d(4, 4, 3, stride, groups=groups)
    images, cpu = torch.rand(1, 4, 8, 8), torch.device("cpu")
    with arithmetic("bf16", cpu), torch.autocast("cpu", torch.bfloat16):
        output = convolution(images.bfloat16())
    assert output.dtype == expected
    torch.testing.assert_close(output.float(), convolution(images), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("error, expected", [
    (torch.AcceleratorError("CUDA error: out of memory"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("Storage size calculation overflowed with sizes=[99999999999, 99999]"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
    (ValueError("out of memory"), False)])
def test_memory_that_runs_out_is_told_from_other_errors(error, expected):
    assert out_of_memory(error) is expected


@pytest.fixture
def unusable(monkeypatch):
    """A machine with a GPU that PyTorch cannot use."""
    monkeypatch.setitem(sys.modules, "pynvml", NVML)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize("device", ["auto", "cuda:1"])
def test_a_gpu_that_pytorch_cannot_use_is_said(device, unusable, monkeypatch):
    gpu = r"NVIDIA A100 with driver 535.104.05 \(CUDA 12.2\)"
    with pytest.raises(ValueError, match=rf"CUDA \S+ cannot use {gpu}; .* docs/gpu_server.md"):
        resolve_device(device)
    assert resolve_device("cpu").type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(ValueError, match="and CUDA_VISIBLE_DEVICES=7;"):
        resolve_device(device)
    monkeypatch.setattr(NVML, "nvmlInit", lambda: fail(why="Driver/library version mismatch"))
    with pytest.raises(ValueError, match="restart this machine, or choose the device cpu"):
        resolve_device(device)


def test_hidden_or_absent_gpus_leave_the_cpu(unusable, monkeypatch):
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert resolve_device("auto").type == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    # a scheduler keeps all GPUs from this process; there is no driver
    for name in ("nvmlDeviceGetHandleByIndex", "nvmlInit"):
        with monkeypatch.context() as patch:
            patch.setattr(NVML, name, fail)
            assert resolve_device("auto").type == "cpu"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert resolve_device("auto").type == "cpu"


@pytest.mark.parametrize("capability, auto", [((7, 5), "fp32"), ((8, 9), "bf16"), ((7, 0), None)])
def test_a_gpu_for_which_pytorch_has_no_code_is_refused(capability, auto, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "compute_120"])
    if auto:
        assert resolve_precision("auto", GPU) == auto
        return
    for precision in ("auto", "fp32"):
        with pytest.raises(ValueError, match="Tesla V100 .* 7.0, and PyTorch .* needs 7.5; .*"):
            resolve_precision(precision, GPU)


def test_only_the_repository_of_the_project_itself_gives_the_commit(tmp_path, monkeypatch):
    def version(folder):
        for module in (device_module, files):
            monkeypatch.setattr(module, "ROOT", folder)
        return device_module.git_version.__wrapped__()

    monkeypatch.delenv("LC_GIT", raising=False)
    project = tmp_path / "project"
    inner = project / "venv" / "site-packages"
    (inner / "lc").mkdir(parents=True)
    (project / "lc").mkdir()
    (project / "lc" / "code.py").write_text("1")
    shutil.copy(files.ROOT / "pyproject.toml", project)
    for line in ("init -q", "add .", "-c user.name=a -c user.email=a@b.c commit -qm first",
                 "rev-parse HEAD"):
        head = subprocess.check_output(["git", *line.split()], cwd=project, text=True)[:10]
    assert version(project) == head and version(inner) == version(tmp_path) == "unknown"
    shutil.copy(project / "pyproject.toml", inner)  # a project in the repository of another one
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(inner))
    assert version(project) == head and version(inner) == "unknown"
    (project / "lc" / "code.py").write_text("2")
    assert version(project) == f"{head}-dirty"
    (project / "pyproject.toml").write_text("[project]")  # another project holds a copy of lc
    assert version(project) == "unknown"
    monkeypatch.setenv("LC_GIT", "0123456789")
    assert version(project) == version(inner) == "0123456789"
