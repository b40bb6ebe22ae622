"""Checkpoints: a training that is cut off anywhere ends with the bits of one that was not."""

import functools
import itertools
import os
import signal
import types

import pytest
import torch
from helpers import MODELS, After, same_bits, short_run

import lc
from lc import results, study, training
from lc.utils import checkpoint
from lc.utils.checkpoint import CheckpointError
from lc.utils.fresh_process import stop_on_signals

nine_steps = functools.partial(short_run, frozen=False, epochs=3)


def train(run, **arguments):
    return lc.train(run, device="cpu", progress=False, **arguments)


@functools.cache
def whole(run):
    return train(run)


def cut_off(run, path, steps=1):
    with pytest.raises(training.Stopped):
        train(run, checkpoint=path, stop=After(steps))


@pytest.mark.parametrize("model, own", [
    (MODELS[0], dict(frozen=True)), (MODELS[1], dict(frozen=False)),
    (MODELS[0], dict(frozen=False, profile="mine", decayed="spatial"))])
def test_a_training_cut_off_at_every_kind_of_step_ends_with_the_same_bits(model, own, tmp_path):
    run, path = nine_steps(model, **own), tmp_path / "run.pt"
    for steps in (1, 2, 4, 1):  # in the first epoch, at its end, in the middle, before the end
        torch.rand(7)  # what else the process draws does not matter
        cut_off(run, path, steps)
    same_bits(train(run, checkpoint=path), whole(run))
    assert path.exists()  # until the result is recorded


def test_dropout_goes_on_from_a_checkpoint(tmp_path):
    run = short_run("MobileNet-v2", epochs=1, batch_size=8, train_images=16, test_images=8)
    cut_off(run, tmp_path / "run.pt")
    torch.rand(7)
    same_bits(train(run, checkpoint=tmp_path / "run.pt"), train(run))


def test_checkpoints_are_written_as_time_passes(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint.Checkpoint, "save",
                        lambda self, state: saved.append(state["trainer"]["done"]))
    train(nine_steps(), checkpoint=tmp_path / "run.pt")
    assert saved == []  # a short run leaves none
    monkeypatch.setattr(checkpoint, "INTERVAL", -1.0)
    train(nine_steps(), checkpoint=tmp_path / "run.pt")
    assert saved == [(epoch, step) for epoch in range(3) for step in (1, 2, 3)]


def test_the_row_names_each_commit_that_trained_it(tmp_path, monkeypatch):
    run, path = nine_steps(), tmp_path / "run.pt"
    for commit in ("1+local", "newer", "newer"):
        monkeypatch.setattr(checkpoint, "git_version", lambda: commit)
        cut_off(run, path)
    assert train(run, checkpoint=path).git == "1+local+newer"
    saved = torch.load(path, weights_only=True)
    del saved["commits"]  # as earlier versions wrote it
    torch.save(saved, path)
    assert train(run, checkpoint=path).git == "unknown+newer"


def test_time_before_the_cut_counts(tmp_path):
    run, path = nine_steps(), tmp_path / "run.pt"
    cut_off(run, path, 8)
    state = torch.load(path, weights_only=True)
    state["state"]["spent"] = {"seconds": 1000.0, "setup": 50.0, "training": 900.0, "energy": 5.0}
    torch.save(state, path)
    result = train(run, checkpoint=path)
    assert 1000 < result.seconds < 1100 and 50 < result.setup_seconds < 150
    assert 64 * 3 / 1000 < result.images_per_second < 64 * 3 / 900


def test_the_text_that_identifies_a_training_stays_so_that_newer_code_continues_it():
    assert repr(lc.Run("ResNet-20", "cifar10", True, 0)) == (
        "Run(model='ResNet-20-16', dataset='cifar10', frozen=True, seed=0, "
        "recipe=Recipe(profile='paper', epochs=75, batch_size=256, learning_rate=0.01, "
        "momentum=0.9, weight_decay=0.01, label_smoothing=0.1, train_images=None, "
        "test_images=None, precision='auto'))")


@pytest.mark.parametrize("part, at", [("tensors", -4), ("momentum", 0)])
def test_a_checkpoint_of_another_recipe_or_of_other_data_or_weights_is_refused(part, at, tmp_path):
    path = tmp_path / "run.pt"
    cut_off(nine_steps(), path)
    with pytest.raises(CheckpointError, match=r"of another training \(epochs=3\); delete it"):
        train(short_run(frozen=False, epochs=4), checkpoint=path)
    saved = torch.load(path, weights_only=True)
    tensors = saved["state"]["trainer"][part]
    tensors[at] = tensors[at][:-1]  # of the plan of an epoch: of one image less
    torch.save(saved, path)
    why = "checkpoint of another network, data set or choice of --fuse"
    with pytest.raises(CheckpointError, match=f"{path}: {why}"):
        train(nine_steps(), checkpoint=path)


def test_a_sweep_stops_at_its_time_limit_and_goes_on_from_there(store, monkeypatch):
    runs, ticks = [nine_steps(frozen=frozen) for frozen in (False, True)], itertools.count()
    clock = types.SimpleNamespace(monotonic=lambda: next(ticks))  # a second at each question
    with monkeypatch.context() as patch:
        patch.setattr(study, "time", clock)
        assert study.train_missing(runs, device="cpu", time_limit=5 / 60) == []
    path = results.checkpoint_path(runs[0].id)
    done = torch.load(path, weights_only=True)["state"]["trainer"]["done"]
    assert done == (1, 2)  # of three steps an epoch, the fifth
    assert not results.load_rows() and not results.checkpoint_path(runs[1].id).exists()
    ids = [run.id for run in runs]
    assert study.train_missing(runs, device="cpu", time_limit=60) == ids
    loss = results.load_rows()[ids[0]]["train_loss"]
    assert loss == float(f"{whole(runs[0]).train_loss:.6g}")  # as rows have it


def test_a_damaged_checkpoint_does_not_keep_the_other_runs_of_a_sweep(store):
    runs = [nine_steps(frozen=frozen) for frozen in (False, True)]
    kept = results.checkpoint_path(runs[0].id)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"no checkpoint")
    with pytest.raises(lc.TrainingError, match="damaged checkpoint"):
        study.train_missing(runs, device="cpu")
    assert list(results.load_rows()) == [runs[1].id]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_signals_ask_to_stop_once(number):
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and signal.getsignal(number) is signal.SIG_DFL
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_closed_terminal_stops_nothing_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)
