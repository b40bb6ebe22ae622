"""Training: the paper's recipe step for step, frozen weights, seeds, and what stops a run."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import MODELS, counts, epochs, same_bits, short_run, trainer_of

import lc
from lc.data import draw_epoch
from lc.fast import FastTrainer
from lc.training import Trainer


def test_the_default_recipe_is_the_papers():
    assert lc.Recipe() == lc.Recipe(
        profile="paper", epochs=75, batch_size=256, learning_rate=1e-2, momentum=0.9,
        weight_decay=1e-2, label_smoothing=0.1, train_images=None, test_images=None)


def test_numpys_numbers_are_taken_as_pythons():
    runs = [lc.Run("ResNet-8-8", "digits", False, integer(3), lc.Recipe(
        "mine", epochs=integer(1), batch_size=integer(8), learning_rate=real(0.1)))
        for integer, real in ((int, float), (np.int64, np.float64))]
    assert repr(runs[0]) == repr(runs[1])


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learnable"])
@pytest.mark.parametrize("model", ["ResNet-8-8", *MODELS])
def test_the_step_is_that_of_a_plain_pytorch_loop_on_a_cpu_and_for_a_gpu(model, frozen):
    run = short_run(model, frozen)
    trainers = [trainer_of(run, dtype=torch.float64, kind=kind) for kind in (Trainer, FastTrainer)]
    data = lc.load_data("digits")
    torch.manual_seed(run.seed)
    network = lc.build_model(run.model, 10, 1).double()
    if frozen:
        lc.freeze_spatial(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2 * 3)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    generator = torch.Generator().manual_seed(run.seed)
    images = F.pad(data.x_train[:64], (0, 0, 4, 4, 4, 4)).double() / 255
    losses = []
    for _ in range(2):
        plan = draw_epoch(64, True, generator)
        for batch in plan.split(24):
            crops = [images[i, top:top + 32, left:left + 32].flip([1] * flip)
                     for i, top, left, flip in batch.tolist()]
            x = torch.stack(crops).permute(0, 3, 1, 2)
            x = (x - data.mean[0]) / data.std[0]
            loss = criterion(network(x), data.y_train[batch[:, 0]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
    for trainer in trainers:
        epochs(trainer)
        assert trainer.batches == [24, 24, 16]
        torch.testing.assert_close(trainer.losses, torch.tensor(losses), rtol=1e-6, atol=1e-6)
        trained = trainer.network.state_dict()
        assert list(trained) == list(before)
        for name, plain in network.state_dict().items():
            update = (plain - before[name]).double().norm()  # zero where frozen
            assert (trained[name] - plain).double().norm() <= 1e-6 * update, name
        for name, p in trainer.network.named_parameters():
            spatial = p.ndim == 4 and p.shape[-1] > 1
            assert torch.equal(p, before[name]) == (frozen and spatial), name


def test_a_seed_gives_the_same_bits_and_another_seed_does_not():
    before = torch.get_rng_state()
    first, again, other = (lc.train(short_run(seed=seed), device="cpu", progress=False)
                           for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)  # the caller's
    same_bits(first, again)
    assert first.robust_accuracy == again.robust_accuracy
    a, b = first.network.state_dict(), other.network.state_dict()
    assert not any(torch.equal(a[name], b[name]) for name in a if "num_batches" not in name)


@pytest.mark.parametrize("model", MODELS)
def test_bf16_follows_fp32(model):
    fp32, bf16 = (trainer_of(short_run(model), precision=precision)
                  for precision in ("fp32", "bf16"))
    epochs(fp32), epochs(bf16)
    assert all(p.dtype == torch.float32 for p in bf16.network.parameters())
    assert not torch.equal(fp32.losses, bf16.losses)
    torch.testing.assert_close(bf16.losses, fp32.losses, rtol=0, atol=0.05)


def test_a_result_says_what_was_trained():
    result = lc.train(short_run(), device="cpu", precision="fp32", progress=False)
    network = result.network.eval()
    assert result.id == "digits/ResNet-LC-8-8x2/frozen/tests/seed0"
    assert lc.Run("ResNet-20-16", "cifar10", False, 2).id == (
        "cifar10/ResNet-20-16/learnable/paper/seed2")
    assert (result.total_parameters, result.learnable_parameters) == counts(network)
    assert (result.epochs, result.train_images, result.precision) == (2, 64, "fp32")
    assert result.torch == torch.__version__ and "CPU" in result.device
    assert result.seconds > 0 and result.images_per_second > 0
    first, *_, last = lc.combined_filters(network).values()
    assert result.fve_first == pytest.approx(lc.variance_entropy(first))
    normalized = lc.variance_entropy(last, normalize=True)
    assert result.fve_last_normalized == pytest.approx(normalized)
    data = lc.load_data("digits")
    images = (data.x_test[:40].permute(0, 3, 1, 2).float() / 255 - data.mean[0]) / data.std[0]
    assert result.accuracy == pytest.approx(lc.accuracy(network, images, data.y_test[:40]))
    right = network(images).argmax(1) == data.y_test[:40]
    assert np.unpackbits(result.arrays["right"]).tolist() == right.int().tolist()
    robust = np.unpackbits(result.arrays["robust"]).mean()
    assert 100 * robust == pytest.approx(result.robust_accuracy) and robust <= right.float().mean()


@pytest.mark.parametrize("change, other, own", [
    (torch.set_default_dtype, torch.float64, torch.float32),
    (torch.set_default_device, "meta", None), (torch.set_grad_enabled, False, True)])
def test_other_defaults_of_pytorch_are_refused_before_any_training(change, other, own):
    change(other)
    try:
        with pytest.raises(ValueError, match="PyTorch's own defaults"):
            lc.train(lc.Run("ResNet-8-8", "digits", True, 0, "smoke"), device="cpu")
    finally:
        change(own)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step():
    with pytest.raises(lc.TrainingError, match=r"LC-8-8x2/learnable/tests/seed0: .* step \d+ of 6"):
        lc.train(short_run(frozen=False, learning_rate=1e30), device="cpu", progress=False)


@pytest.mark.parametrize("error, message", [
    (None, "cpu took 0 of 3 steps; nothing was recorded"),
    (torch.OutOfMemoryError("CUDA out of memory"), "out of memory on cpu")])
def test_a_device_that_takes_no_steps_stops_the_run_and_its_name_is_said(
        error, message, monkeypatch):
    monkeypatch.setattr(Trainer, "step", Mock(side_effect=error))
    with pytest.raises(lc.TrainingError, match=f"^{short_run().id}: {message}"):
        lc.train(short_run(), device="cpu", progress=False)
