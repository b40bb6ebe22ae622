"""The energy meter, on a GPU that is not there: NVML's answers are played to it."""

import math
import sys
import types

import pytest
import torch

from lc.machine import energy_meter

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
