"""Training on images: with one process and two, interrupted, what is kept, and what goes wrong."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import CPU, IMAGENET_TINY as TINY, After, counts, torchrun
from torch import nn

import lc
from lc import evaluate, results
from lc.__main__ import main
from lc.data import DataError
from lc.imagenet import RECIPES, ImageNetRun, build_imagenet_model, images
from lc.imagenet.step import ImageNetTrainer
from lc.imagenet.training import MEAN, STD, train_imagenet
from lc.run import Stopped
from lc.utils.checkpoint import CheckpointError

# six steps, each of four batches
RUN = ImageNetRun("MobileNet-v3-S-LCx2", "flowers", True, 0, TINY)
# only reading its images is random
RESIDUAL = ImageNetRun("ResNet-18d-LCx1", "flowers", True, 0, replace(
    TINY, profile="smoke-tiny", epochs=1, warmup_epochs=0, drop_path=0.0, mixup=0.0, cutmix=0.0))
SHORT = replace(TINY, profile="short-tiny", epochs=1, warmup_epochs=0, batch_size=4)


def go(run, folder, checkpoint=None, **options):
    default = dict(data=folder, device="cpu", precision="fp32", batch=4, progress=False)
    return train_imagenet(run, checkpoint=checkpoint, **default | options)


def command(folder, store, model="MobileNet-v3-S"):
    return ["imagenet", model, "--data", str(folder), "--recipe", "smoke", "--device", "cpu",
            "--precision", "fp32", "--batch", "4", "--results", str(store)]


def state(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state"]


def same_bits(checkpoint, reference):
    ours, theirs = state(checkpoint), state(reference)
    assert ours.pop("spent") and theirs.pop("spent") and len(ours["trainer"]["network"]) > 200
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def untrained(run):
    """The network that the run begins with."""
    torch.manual_seed(run.seed)
    network = build_imagenet_model(run.model, 4, run.recipe.drop_path)
    return lc.freeze_spatial(network) if run.frozen else network


@pytest.fixture(scope="module")
def reference(flowers, tmp_path_factory):
    """The uninterrupted run: its result, the lines that it logged, and its checkpoint."""
    path, lines = tmp_path_factory.mktemp("reference") / "run.pt", []
    return go(RUN, flowers, path, log=lines.append), lines, path


@pytest.mark.slow
def test_two_processes_take_the_steps_of_all_their_batches(flowers, tmp_path, monkeypatch):
    script = tmp_path / "script.py"  # each process keeps its state
    script.write_text(f"""
import sys, torch
from lc.__main__ import main
from lc.imagenet import RECIPES, processes, step
from test_imagenet_training import RESIDUAL

def keep(self, state=step.ImageNetTrainer.state):
    torch.save(state(self), {str(tmp_path)!r} + f"/{{processes.rank()}}.pt")
    return state(self)

RECIPES["smoke"], step.ImageNetTrainer.state = RESIDUAL.recipe, keep
main(sys.argv[1:])
""")
    said = torchrun(script, *command(flowers, tmp_path / "store", RESIDUAL.model), "--frozen")
    # only the first process prints
    assert said.count("epoch 1/1: loss ") == said.count("network: ") == 1
    row, = results.load_rows(tmp_path / "store").values()
    assert row["id"] == RESIDUAL.id and row["device"].startswith("2 x ")
    assert row["train_images"] == 32
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in first["network"].items():
        assert torch.equal(value, second["network"][name]), name

    shares = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    train, _ = images.open_folder(flowers, RESIDUAL.recipe)
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(list(images.training_batches(train, RESIDUAL.recipe, 0, 0, 4, CPU)))
    network = untrained(RESIDUAL).to(memory_format=torch.channels_last)
    trainer = ImageNetTrainer(network, 4, RESIDUAL.recipe, 2, CPU, "fp32", accumulate=4)
    batches = iter([batch for at in (0, 2) for share in shares for batch in share[at:at + 2]])
    losses = [trainer.step(batches).item() for _ in range(2)]
    assert row["train_loss"] == pytest.approx(sum(losses) / 2, rel=1e-4) and first["updates"] == 2
    for (name, p), before in zip(network.named_parameters(), untrained(RESIDUAL).parameters()):
        torch.testing.assert_close(first["network"][name], p.data, rtol=0, atol=1e-5, msg=name)
        assert torch.equal(p, before) == (not p.requires_grad), name


def test_a_training_that_was_stopped_goes_on_with_the_same_bits(flowers, reference, tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(Stopped, match=re.escape(RUN.id)):
        go(RUN, flowers, path, stop=After(3))  # the first step of the second epoch
    assert state(path)["epochs"] == 1
    torch.rand(7)
    with pytest.raises(Stopped):
        go(RUN, flowers, path, stop=After(4))
    assert state(path)["epochs"] == 2
    result = go(RUN, flowers, path)
    same_bits(path, reference[2])
    row, expected = result.row(), reference[0].row()
    for column in ("accuracy", "accuracy_top5", "robust_accuracy", "train_loss", "fve_first",
                   "fve_last"):
        assert row[column] == expected[column]
    spent = state(path)["spent"]
    assert result.seconds > spent["seconds"] > 0 and result.setup_seconds == spent["setup"] > 0
    # one that had ended is evaluated again
    again = go(RUN, flowers, path, stop=lambda: pytest.fail("it trains"))
    assert again.robust_accuracy == result.robust_accuracy


def test_a_checkpoint_that_does_not_fit_is_refused(flowers, copied, reference, tmp_path):
    for split in ("train", "val"):
        shutil.rmtree(copied / split / "d")
    path = shutil.copy(reference[2], tmp_path)
    other = rf"{path}: checkpoint of another training \({{}}\);"
    with pytest.raises(CheckpointError, match=other.format("4 classes")):
        go(RUN, copied, path)
    with pytest.raises(CheckpointError, match=other.format("batches of 4")):
        go(RUN, flowers, path, batch=8)


def test_the_best_epoch_counts_and_its_plain_network_is_kept(flowers, reference, tmp_path):
    result, lines, path = reference
    top1 = [float(re.search(r"top-1 ([\d.]+)", line)[1]) for line in lines]
    assert len(lines) == 3 and lines[0].startswith("epoch 1/3: loss ")
    best = state(path)["best"]
    assert best["epoch"] == 1 + top1.index(max(top1))
    assert best["accuracy"] == result.accuracy == pytest.approx(max(top1), abs=0.005)
    assert best["accuracy_top5"] == result.accuracy_top5
    network = build_imagenet_model("MobileNet-v3-S", 4)
    network.load_state_dict(best["network"])
    for name, value in result.network.state_dict().items():
        assert torch.equal(value, best["network"][name]), name
    _, val = images.open_folder(flowers, TINY)
    x, y = map(torch.cat, zip(*images.validation_batches(val, 4, CPU)))
    attacked = nn.Sequential(evaluate.Normalize(MEAN, STD), network)
    assert evaluate.accuracy(attacked, x, y) == pytest.approx(result.accuracy)
    assert evaluate.fgsm_accuracy(attacked, x, y) == pytest.approx(result.robust_accuracy)
    assert np.array_equal(result.arrays["right"], np.packbits(evaluate.right(attacked, x, y)))
    robust = evaluate.right(attacked, x, y, eps=1 / 255)
    assert np.array_equal(result.arrays["robust"], np.packbits(robust))
    lc.save_network(result, tmp_path / "n.safetensors")
    loaded = lc.load_network(tmp_path / "n.safetensors")
    torch.testing.assert_close(loaded(x / 255), attacked.eval()(x / 255))
    assert loaded.classes == tuple("abcd")


def test_the_row_says_what_was_trained(reference):
    row = reference[0].row()
    total, learnable = counts(lc.freeze_spatial(build_imagenet_model(RUN.model, 4)))
    assert learnable < total
    assert row | dict(
        id=RUN.id, dataset="flowers", model=RUN.model, frozen=True, profile="tiny", seed=0,
        total_parameters=total, learnable_parameters=learnable, train_images=32, epochs=3,
        precision="fp32", accuracy_top5=100) == row
    assert 0 <= row["robust_accuracy"] <= row["accuracy"] <= 100
    assert 0 < row["train_loss"] < 2 and "CPU" in row["device"]


def test_half_precision_trains_and_its_weights_are_evaluated_without_an_average(flowers, tmp_path):
    run = replace(RUN, recipe=SHORT)
    result = go(run, flowers, tmp_path / "run.pt", precision="fp16")
    assert result.precision == "fp16" and 0 < result.train_loss < 2
    trained = untrained(run)
    trained.load_state_dict(state(tmp_path / "run.pt")["trainer"]["network"])
    ours = result.network.state_dict().values()
    for (name, value), mine in zip(lc.fold(trained).state_dict().items(), ours, strict=True):
        assert torch.equal(value, mine), name


def test_the_command_line_trains_records_and_prints(flowers, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "smoke", replace(SHORT, profile="smoke"))
    main(command(flowers, tmp_path))
    said = capsys.readouterr().out
    row = results.load_rows(tmp_path)["flowers/MobileNet-v3-S/learnable/smoke/seed0"]
    loss = float(re.search(r"epoch 1/1: loss ([\d.]+)", said)[1])
    assert loss == pytest.approx(row["train_loss"], abs=1e-4)
    assert f"\n{'accuracy':22} {row['accuracy']:.6g}\n" in said
    path = said.rpartition("\nnetwork: ")[2].strip()
    assert path.endswith(f"{row['id']}.safetensors")
    assert lc.load_network(path).row["accuracy"] == row["accuracy"]
    with pytest.raises(SystemExit, match="smoke/seed0 is in the results already; --again trains"):
        main(command(flowers, tmp_path))


def test_a_loss_that_is_not_finite_ends_a_training_unrecorded(flowers, tmp_path, monkeypatch):
    recipe = replace(SHORT, profile="smoke", epochs=2, learning_rate=1e30, warmup_epochs=0)
    monkeypatch.setitem(RECIPES, "smoke", recipe)
    with pytest.raises(SystemExit, match="smoke/seed0: the loss was not finite in epoch 1"):
        main(command(flowers, tmp_path))
    assert not results.load_rows(tmp_path) and not list(tmp_path.rglob("*.pt"))


def test_memory_that_runs_out_is_said_with_the_way_out(flowers, monkeypatch):
    def step(self, batches):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ImageNetTrainer, "step", step)
    with pytest.raises(lc.TrainingError, match="out of memory on cpu; .* Use a smaller --batch"):
        go(RUN, flowers)


def test_an_attack_that_needs_more_memory_than_a_step_takes_fewer_images(flowers, monkeypatch):
    run, fgsm = replace(RUN, recipe=SHORT), evaluate.fgsm
    expected = go(run, flowers).robust_accuracy

    def narrow(model, images, *more):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fgsm(model, images, *more)

    monkeypatch.setattr(evaluate, "fgsm", narrow)
    assert go(run, flowers).robust_accuracy == expected


@pytest.mark.parametrize("workers, kept", [(0, -500), (1, 0)], ids=["cut off", "empty"])
def test_an_image_that_cannot_be_read_is_reported_in_one_line(workers, kept, copied):
    for path in copied.glob("train/[b-d]/*"):
        path.write_bytes(path.read_bytes()[:kept])
    message = r"^\S+.JPEG cannot be read as an image \([^\n]+\); replace or delete it$"
    with pytest.raises(DataError, match=message):
        go(RUN, copied, workers=workers)


@pytest.mark.parametrize("run, options, message", [
    (lc.Run("ResNet-8-8", "digits", False, 0, "smoke"), {}, "takes an lc.imagenet.ImageNetRun"),
    (RUN, {"batch": 5}, "the recipe's batch of 16 is no multiple of 1 x 5"),
    (RUN, {"batch": 0}, "batch must be an integer"),
    (RUN, {"batch": 1}, "batches of 1 cannot be mixed in pairs"),
    (RUN, {"workers": -1}, "workers must be an integer"),
    (RUN, {"precision": "fp8"}, "unknown precision 'fp8'"),
    (RUN, {"device": "tpu"}, "unknown device 'tpu'"),
    (RUN, {"data": "/nowhere"}, "/nowhere must hold train/ and val/"),
    (replace(RUN, recipe=replace(SHORT, batch_size=64)), {},
     "flowers/train: 32 images are fewer than the 64 of a step"),
])
def test_a_training_that_is_not_possible_is_refused(run, options, message, flowers, tmp_path):
    with pytest.raises(ValueError, match=message):
        go(run, flowers, tmp_path / "run.pt", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision, recorded, tolerance", [
    ("auto", "fp16", 0.05), ("bf16", "bf16", 0.05), ("fp32", "fp32", 1e-3)])
def test_a_gpu_trains_what_a_cpu_does(precision, recorded, tolerance, flowers, tmp_path):
    loss = go(RESIDUAL, flowers).train_loss
    options = dict(checkpoint=tmp_path / "run.pt", device="cuda", precision=precision)
    result = go(RESIDUAL, flowers, **options)
    assert result.precision == recorded
    assert result.train_loss == pytest.approx(loss, rel=tolerance)
    assert go(RESIDUAL, flowers, **options).accuracy == result.accuracy
