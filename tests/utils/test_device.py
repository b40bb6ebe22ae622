"""What is known of a GPU that is not there: its energy meter, for which NVML's answers are played, and its arithmetic."""

import math
import sys
import types

import pytest
import torch

from lc.utils.device import arithmetic, energy_meter, out_of_memory

GPU = torch.device("cuda", 1)


class NVML(types.ModuleType):
    used = 7.2e6  # millijoules

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        assert handle == "GPU-abc"
        return self.used


@pytest.fixture
def nvml(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="abc"))
    monkeypatch.setitem(sys.modules, "pynvml", NVML("pynvml"))
    return sys.modules["pynvml"]


def test_energy_is_counted_in_watt_hours(nvml):
    used = energy_meter(GPU)
    before = used()
    nvml.used += 3.6e6  # 3600 J
    assert used() - before == pytest.approx(1)


def test_energy_is_left_out_where_nothing_counts_it(nvml, monkeypatch):
    assert math.isnan(energy_meter(torch.device("cpu"))())

    def fail(self, handle):
        raise RuntimeError("Not Supported")  # as on a part of a GPU

    monkeypatch.setattr(NVML, "nvmlDeviceGetTotalEnergyConsumption", fail)
    assert math.isnan(energy_meter(GPU)())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert math.isnan(energy_meter(GPU)())


@pytest.mark.parametrize("precision, products, convolutions", [("fp32", "highest", False), ("bf16", "high", True)])
def test_fp32_is_exact_on_a_gpu_and_tf32_stands_beside_bf16(precision, products, convolutions):
    def modes():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = modes()
    with pytest.raises(KeyError), arithmetic(precision, torch.device("cuda")):
        assert modes() == (products, convolutions)
        raise KeyError
    with arithmetic(precision, torch.device("cpu")):
        assert modes() == before
    assert modes() == before


@pytest.mark.parametrize("error, expected", [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
    (torch.AcceleratorError("CUDA error: out of memory"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("Storage size calculation overflowed with sizes=[99999999999, 99999999999]"), True),
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
    (ValueError("out of memory"), False),
])
def test_memory_that_runs_out_is_told_from_other_errors(error, expected):
    assert out_of_memory(error) is expected
