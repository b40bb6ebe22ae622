"""`lc doctor` finds what is wrong with a machine, and exits with 1 then."""

from unittest import mock

import pytest
import torch

import lc
from lc.__main__ import main
from lc.fast.trainer import FastTrainer
from lc.sweep import doctor
from lc.training import Trainer


def wrong(data_dir):
    """The lines that are wrong, after all lines were made."""
    return [line for right, line in doctor.examine(data_dir) if not right]


def test_a_machine_that_is_right(tmp_path, capsys):
    main(["doctor", "--data-dir", str(tmp_path), "--results", str(tmp_path)])
    said = capsys.readouterr().out
    assert "WRONG" not in said and "results: 0 rows" in said
    assert f"not in {tmp_path}: cifar10, cifar100, svhn, fashion-mnist; a run downloads" in said
    assert f"not in {tmp_path}: imagenet, for Table 2" in said
    assert "cpu in fp32: loss" in said and "cpu in auto: loss" in said


def test_a_data_folder_that_may_not_be_entered_or_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_train", lambda *_: (2.3, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(doctor.os, "listdir", mock.Mock(side_effect=PermissionError(13, "denied")))
        assert len(wrong(tmp_path)) == 1 and "denied" in wrong(tmp_path)[0]
    with monkeypatch.context() as patch:
        patch.setattr(doctor.os, "access", lambda *_: False)
        said = [line for _, line in doctor.examine(tmp_path / "missing")]
    assert any("fashion-mnist; you may not write them there" in line for line in said)


def test_what_cannot_be_read_or_written_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_train", lambda *_: (2.3, 0.0))
    (tmp_path / "cifar10.npz").write_bytes(b"no archive")
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="lc: 2 of this machine's parts cannot be used"):
        main(["doctor", "--data-dir", str(tmp_path), "--results", str(tmp_path / "file")])
    said = capsys.readouterr().out
    assert "cifar10.npz is damaged" in said and "runs.csv cannot be read" in said


def test_a_gpu_that_pytorch_cannot_use_is_wrong_and_not_trained_on(store, tmp_path, monkeypatch):
    def refuse(device):
        raise ValueError("PyTorch cannot use this GPU")

    monkeypatch.setattr(doctor, "resolve_device", refuse)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    train = mock.Mock(return_value=(2.3, 0.0))
    monkeypatch.setattr(doctor, "_train", train)
    assert wrong(tmp_path) == ["PyTorch cannot use this GPU"]
    assert {str(call.args[0]) for call in train.call_args_list} == {"cpu"}


def learn_nothing(self, batch):
    self.count.add_(1)
    self.losses.fill_(2.35)


@pytest.mark.parametrize("broken, message", [
    (learn_nothing, "loss 2.3500, not 2.3"),
    (lambda self, batch: None, "took 0 of 10 steps"),
])
def test_a_device_that_does_not_learn_is_wrong(broken, message, store, tmp_path, monkeypatch):
    """The CPU plays the GPU: its steps with `graph` are broken."""
    train_on = doctor._train
    monkeypatch.setattr(doctor, "_train", lambda device, *how: train_on(torch.device("cpu"), *how))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor, "said_name", str)
    monkeypatch.setattr(doctor, "resolve_precision", lambda *_: "fp32")

    def train(run, device, precision, graph, progress):
        with monkeypatch.context() as patch:
            if graph:
                patch.setattr(Trainer, "step", broken)
            return lc.train(run, device="cpu", precision="fp32", progress=progress)

    monkeypatch.setattr(doctor, "train", train)
    *right, last = doctor.examine(tmp_path)
    assert all(each for each, _ in right) and len(right) == 11 and not last[0]
    assert message in last[1] and "cuda:0 in auto, as one CUDA graph" in last[1]


def test_a_fold_that_computes_something_else_is_wrong(store, tmp_path, monkeypatch):
    def fold(network):
        folded = lc.fold(network)
        folded.fc.bias.data += 0.1
        return folded

    monkeypatch.setattr(doctor, "fold", fold)
    assert len(wrong(tmp_path)) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_that_cannot_be_captured_is_wrong(store, tmp_path, monkeypatch):
    def capture(self):
        raise RuntimeError("operation not permitted")

    assert not wrong(tmp_path)
    monkeypatch.setattr(FastTrainer, "capture", capture)
    said = wrong(tmp_path)
    assert said and all("operation not permitted" in line for line in said)
