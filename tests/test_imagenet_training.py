"""Training on photographs: the same on one process and on two, in one go and after a kill; what is recorded, and what is refused."""

import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_checkpoint import After
from test_imagenet import counts
from test_photos import TINY, write_photos
from torch import nn

import lc
from lc import evaluate, results
from lc.__main__ import main
from lc.checkpoint import CheckpointError
from lc.data import DataError
from lc.imagenet import RECIPES, Run, build_model, memory, photos
from lc.imagenet.trainer import MEAN, STD
from lc.imagenet.training import best_path, train
from lc.run import ROOT
from lc.training import Stopped

RUN = Run("MobileNet-v3-S-LCx2", "flowers", True, 0, TINY)  # six steps, each of four batches
SHORT = replace(TINY, profile="short-tiny", epochs=1, warmup_epochs=0, batch_size=4)


def go(run, folder, checkpoint=None, batch=4, **options):
    return train(run, **{"data": folder, "device": "cpu", "precision": "fp32", "progress": False} | options, batch=batch,
                 checkpoint=checkpoint)


def state(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state"]


def flat(value, at=""):
    """Everything in nested dictionaries and lists, by where it is."""
    if isinstance(value, (dict, list, tuple)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, part in pairs for name, leaf in flat(part, f"{at}/{key}").items()}
    return {at: value}


def same_bits(checkpoint, reference):
    ours, theirs = (flat({k: v for k, v in state(path).items() if k != "spent"}) for path in (checkpoint, reference))
    assert ours.keys() == theirs.keys() and len(ours) > 500
    for at, value in ours.items():
        assert torch.equal(value, theirs[at]) if isinstance(value, torch.Tensor) else value == theirs[at], at


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("data") / "flowers")


@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory):
    """The run in one go: its result, what it logged, and its checkpoint."""
    path, lines = tmp_path_factory.mktemp("reference") / "run.pt", []
    return go(RUN, folder, path, log=lines.append), lines, path


def test_two_processes_train_what_one_does(folder, reference, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import shutil, sys\nfrom lc import results\nfrom lc.__main__ import main\nfrom lc.imagenet import RECIPES\n"
        "from test_photos import TINY\nRECIPES['tiny'] = TINY\nappend = results.append\n"
        "def keep(result, store):\n    shutil.copy(results.checkpoint_path(result.id, store), sys.argv[1])\n"
        "    append(result, store)\nresults.append = keep\nmain(sys.argv[2:])\n")
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), script,
               tmp_path / "two.pt", "imagenet", RUN.model, "--frozen", "--recipe", "tiny", "--data", folder, "--batch", "4",
               "--device", "cpu", "--precision", "fp32", "--results", tmp_path / "store"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 3/3") == done.stdout.count("best network") == 1  # the first process alone speaks
    row, = results.read(tmp_path / "store").values()
    assert row["id"] == RUN.id and row["device"].startswith("2 x ") and row["train_images"] == 32
    assert row["train_loss"] == pytest.approx(reference[0].train_loss, rel=1e-4)
    two, one = state(tmp_path / "two.pt")["trainer"], state(reference[2])["trainer"]
    compared = {name for name, value in one["network"].items() if "running" not in name and "num_batches" not in name}
    start = build_model(RUN.model, 4).state_dict()
    assert len(compared) == len(list(build_model(RUN.model, 4).parameters())) and two["updates"] == one["updates"] == 6
    for name in compared:
        torch.testing.assert_close(two["network"][name], one["network"][name], rtol=0, atol=1e-5, msg=name)
    assert max((one["network"][name] - start[name]).abs().max() for name in compared) > 1e-3


def test_a_training_that_was_stopped_goes_on_with_the_same_bits(folder, reference, tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(Stopped, match=re.escape(RUN.id)):
        go(RUN, folder, path, stop=After(3))  # the first step of the second epoch
    assert state(path)["epochs"] == 1
    torch.rand(7)
    with pytest.raises(Stopped):
        go(RUN, folder, path, stop=After(4), workers=1)
    assert state(path)["epochs"] == 2
    result = go(RUN, folder, path)
    same_bits(path, reference[2])
    assert result.row() == result.row() | {k: v for k, v in reference[0].row().items()
                                           if k not in ("seconds", "images_per_second", "energy")}
    assert result.robust_accuracy == reference[0].robust_accuracy and result.seconds > state(path)["spent"]["seconds"]


def kill_in_the_second_epoch(folder, path):
    torch.set_num_threads(1)
    step = After(4)
    go(RUN, folder, path, workers=1, stop=lambda: step() and os.kill(os.getpid(), signal.SIGKILL))


def test_a_training_that_was_killed_goes_on_with_the_same_bits(folder, reference, tmp_path):
    child = multiprocessing.get_context("spawn").Process(target=kill_in_the_second_epoch, args=(folder, tmp_path / "run.pt"))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and state(tmp_path / "run.pt")["epochs"] == 1
    go(RUN, folder, tmp_path / "run.pt", workers=1)
    same_bits(tmp_path / "run.pt", reference[2])


def test_a_training_that_had_ended_is_evaluated_again(folder, reference, tmp_path):
    shutil.copy(reference[2], tmp_path / "run.pt")
    result = go(RUN, folder, tmp_path / "run.pt", stop=lambda: pytest.fail("it trains"))
    assert (result.accuracy, result.robust_accuracy) == (reference[0].accuracy, reference[0].robust_accuracy)


def test_the_best_epoch_counts_and_its_plain_network_is_kept(folder, reference):
    result, lines, path = reference
    top1 = [float(re.search(r"top-1 ([\d.]+)", line)[1]) for line in lines]
    assert len(lines) == 3 and lines[0].startswith("epoch 1/3: loss ") and f"{result.accuracy:.2f}" == f"{max(top1):.2f}"
    best = state(path)["best"]
    assert best["epoch"] == 1 + top1.index(max(top1)) and (best["accuracy"], best["accuracy_top5"]) == (
        result.accuracy, result.accuracy_top5)
    network, weights = build_model("MobileNet-v3-S", 4), load_file(best_path(path))
    network.load_state_dict(weights)
    for name, value in result.network.state_dict().items():
        assert torch.equal(value, weights[name]) and torch.equal(value, best["network"][name]), name
    images, labels = map(torch.cat, zip(*photos.validation_loader(photos.open_folder(folder), TINY, 4)))
    attacked = nn.Sequential(evaluate.Normalize(MEAN, STD), network)
    assert evaluate.accuracy(attacked, images / 255, labels) == pytest.approx(result.accuracy)
    assert evaluate.fgsm_accuracy(attacked, images / 255, labels) == pytest.approx(result.robust_accuracy)


def test_the_weights_that_were_trained_are_evaluated_without_an_average(folder, tmp_path):
    run = Run("ResNet-18d-LCx1", "flowers", False, 0, SHORT)
    result = go(run, folder, tmp_path / "run.pt")
    trained = build_model(run.model, 4)
    trained.load_state_dict(state(tmp_path / "run.pt")["trainer"]["network"])
    for (name, value), ours in zip(lc.fold(trained).state_dict().items(), result.network.state_dict().values(), strict=True):
        assert torch.equal(value, ours), name


def test_the_row_says_what_was_trained(reference):
    row = reference[0].row()
    total, learnable = counts(lc.freeze_spatial(build_model(RUN.model, 4)))
    assert (row["total_parameters"], row["learnable_parameters"]) == (total, learnable) and learnable < total
    assert (row["id"], row["dataset"], row["model"], row["frozen"], row["profile"], row["seed"]) == (
        RUN.id, "flowers", RUN.model, True, "tiny", 0)
    assert (row["train_images"], row["epochs"], row["precision"], row["accuracy_top5"]) == (32, 3, "fp32", 100)
    assert 0 <= row["robust_accuracy"] <= row["accuracy"] <= 100 and 0 < row["train_loss"] < 2 and "CPU" in row["device"]


def test_frozen_filters_stay_through_a_training(reference):
    with torch.random.fork_rng():
        torch.manual_seed(RUN.seed)
        start = build_model(RUN.model, 4, TINY.drop_path)
    trained = state(reference[2])["trainer"]["network"]
    for name, parameter in lc.freeze_spatial(start).named_parameters():
        assert torch.equal(trained[name], parameter) == (not parameter.requires_grad), name


def test_the_callers_random_numbers_are_left_alone(folder):
    def drawn():
        return random.getstate(), torch.get_rng_state().tolist(), [str(part) for part in np.random.get_state()]

    before = drawn()
    with pytest.raises(Stopped):
        go(RUN, folder, stop=After(1))
    assert drawn() == before


def test_a_loss_that_is_not_finite_ends_a_training_and_nothing_is_recorded(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "smoke", replace(SHORT, profile="smoke", epochs=2, learning_rate=1e30, warmup_epochs=0))
    with pytest.raises(SystemExit, match=r"lc: flowers/ResNet-18/learnable/smoke/seed0: the loss was not finite in epoch 1; "):
        main(command(folder, tmp_path))
    assert not results.read(tmp_path) and not list(tmp_path.rglob("*.pt"))


def test_a_gradient_scaler_finds_its_way_in_half_precision(folder):
    result = go(Run("MobileNet-v3-S", "flowers", False, 0, SHORT), folder, precision="fp16")
    assert result.precision == "fp16" and 0 < result.train_loss < 2


@pytest.mark.parametrize("faults, message", [
    (["train/b/1.JPEG"], r"^\S+train/b/1.JPEG cannot be read as an image \([^\n]+\); replace or delete it$"),
    ([f"train/c/{i}.JPEG" for i in range(5)], "c/0.JPEG.*; .*c/2.JPEG [^;]*; replace or delete it; and 2 more$"),
])
def test_images_that_cannot_be_read_are_said_before_any_training(faults, message, folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "flowers")
    for name in faults:
        (copied / name).write_bytes((copied / name).read_bytes()[:-500])
    with pytest.raises(DataError, match=message):
        go(RUN, copied, tmp_path / "run.pt", log=pytest.fail)
    assert not (tmp_path / "run.pt").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_damaged_later_is_told_in_one_line(workers, folder, reference, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "flowers")
    with pytest.raises(Stopped):
        go(RUN, copied, tmp_path / "run.pt", stop=After(3))
    for path in copied.glob("train/*/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"^\S+.JPEG cannot be read as an image \([^\n]+\); replace or delete it$"):
        go(RUN, copied, tmp_path / "run.pt", workers=workers)


def test_a_checkpoint_that_does_not_fit_is_refused(folder, reference, tmp_path):
    path = shutil.copy(reference[2], tmp_path / "run.pt")
    three = write_photos(tmp_path / "three" / "flowers", 3)
    with pytest.raises(CheckpointError, match=f"{path}: checkpoint of 4 classes, but {three} has 3; delete it"):
        go(RUN, three, path)
    with pytest.raises(CheckpointError, match="of another training .*batches of 4, fp32, cpu"):
        go(RUN, folder, path, batch=8)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=f"{path}: damaged checkpoint .*; delete it"):
        go(RUN, folder, path)


def test_a_disk_that_takes_no_checkpoint_does_not_stop_the_training(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="no checkpoint could be written"):
        go(Run("MobileNet-v3-S", "flowers", False, 0, SHORT), folder, tmp_path / "file" / "run.pt")


@pytest.mark.parametrize("run, options, message", [
    (lc.Run("ResNet-8-8", "digits", False, 0, "smoke"), {}, "train takes an lc.imagenet.Run, such as"),
    ("ResNet-18", {}, "train takes an lc.imagenet.Run, such as"),
    (RUN, {"batch": 5}, "1 process with batches of 5 cannot make the recipe's batch of 16: it must be a multiple of 1 x 5"),
    (RUN, {"batch": 32}, "cannot make the recipe's batch of 16"), (RUN, {"batch": 0}, "batch must be a whole number"),
    (RUN, {"batch": 1}, "batches of 1 cannot be mixed in pairs"), (RUN, {"workers": -1}, "workers must be a whole number"),
    (RUN, {"precision": "fp8"}, "unknown precision 'fp8'"), (RUN, {"device": "tpu"}, "unknown device 'tpu'"),
    (RUN, {"data": "/nowhere"}, "/nowhere is no folder"),
    (replace(RUN, recipe=replace(SHORT, classes=5)), {}, "the recipe takes 5 classes, but there are 4"),
    (replace(RUN, recipe=replace(SHORT, batch_size=64)), {}, "32 training images are fewer than the 64 of a step"),
])
def test_a_training_that_cannot_be_is_refused(run, options, message, folder, tmp_path):
    with pytest.raises(ValueError, match=message):
        go(run, folder, tmp_path / "run.pt", **options)
    assert not list(tmp_path.iterdir())


def command(folder, store, model="ResNet-18"):
    return ["imagenet", model, "--data", str(folder), "--recipe", "smoke", "--device", "cpu", "--precision", "fp32", "--batch", "4",
            "--results", str(store)]


def test_the_command_line_trains_records_and_prints(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "smoke", replace(SHORT, profile="smoke"))
    main(command(folder, tmp_path))
    said = capsys.readouterr().out
    row = results.read(tmp_path)["flowers/ResNet-18/learnable/smoke/seed0"]
    assert f"epoch 1/1: loss {row['train_loss']:.4f}" in said and f"\naccuracy {row['accuracy']:>15g}"[:9] in said
    best = best_path(results.checkpoint_path(row["id"], tmp_path))
    assert said.endswith(f"best network: {best}\n") and "fc.weight" in load_file(best)
    with pytest.raises(SystemExit, match="lc: .*smoke/seed0 is in the results already; --again trains it anew"):
        main(command(folder, tmp_path))
    main([*command(folder, tmp_path), "--again"])
    again, = results.read(tmp_path).values()
    assert again["train_loss"] == row["train_loss"] and again["accuracy"] == row["accuracy"]


def test_the_command_line_counts_memory_and_trains_nothing(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(memory, "counted", lambda *arguments: asked.append(arguments) or {"weights": 5e9, "total": 29e9})
    main(["imagenet", "ResNet-18d-LCx128", "--memory", "--frozen", "--device", "cpu", "--results", str(tmp_path)])
    assert asked == [("ResNet-18d-LCx128", True, RECIPES["a2"], 256, 1000)] and not list(tmp_path.iterdir())
    assert capsys.readouterr().out.splitlines()[1:] == ["  weights        5.00", "  total         29.00"]


@pytest.mark.parametrize("change, message", [
    (["ResNet-19"], "unknown ImageNet network 'ResNet-19'; known: "), (["ResNet-18", "--batch", "5"], "1 process with batches of 5"),
    (["ResNet-18", "--data", "/nowhere"], "/nowhere is no folder; name the one that holds train/ and val/"),
    (["ResNet-18", "--dataset", "a/b"], "'a/b' cannot be part of a run's id"), (["ResNet-18", "--seed", "-1"], "seed must be"),
])
def test_mistakes_on_the_command_line_are_told_in_one_line(change, message, folder, tmp_path):
    with pytest.raises(SystemExit) as told:
        main([*command(folder, tmp_path, change[0]), *change[1:]])
    assert str(told.value).startswith(f"lc: {message}") and "\n" not in str(told.value)
    assert not results.read(tmp_path)
