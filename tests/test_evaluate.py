"""Accuracy by hand count, and FGSM against a plain loop over single images."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lc
from lc import evaluate
from lc.evaluate import fgsm
from lc.utils.device import arithmetic

N = 267  # more than one batch of the evaluation, and no multiple of it
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def case():
    """A network after a step, images with many pixels at 0 and 1, labels it is half right on."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
                            nn.Flatten(), nn.Linear(128, 4))
    images = (torch.rand(N, 3, 6, 6, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    model = nn.Sequential(lc.Normalize(MEAN, STD), network).double()
    model(images)
    labels = model.eval()(images).argmax(1)
    labels[::2] = torch.randint(4, labels[::2].shape)
    return model.train(), images, labels


def plain_fgsm(model, images, labels, eps):
    attacked = []
    for image, label in zip(images, labels):
        x = image[None].clone().requires_grad_()
        F.cross_entropy(model(x), label[None]).backward()
        attacked.append((image + eps * x.grad[0].sign()).clip(0, 1))
    return torch.stack(attacked)


def test_accuracy_equals_a_hand_count():
    images = torch.zeros(N, 3, 1, 1)
    images[torch.arange(N), torch.arange(N) % 3] = 1  # the model answers i % 3
    labels = torch.arange(N) % 3
    assert lc.accuracy(nn.Flatten(), images, labels) == 100
    wrong = [0, 1, 7, 49, 50, N - 1]
    labels[wrong] = (labels[wrong] + 1) % 3
    assert lc.accuracy(nn.Flatten(), images, labels) == 100 * (N - 6) / N
    assert lc.accuracy(nn.Flatten(), images, torch.zeros(N, dtype=torch.int64)) == 100 * 89 / N


def test_mini_batches_are_halved_until_they_fit(case, monkeypatch):
    model, images, labels = case
    expected, sizes = lc.fgsm_accuracy(model, images, labels), []

    def narrow(most):
        def forward(model, inputs):
            sizes.append(len(inputs[0]))
            if sizes[-1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward

    with model.register_forward_pre_hook(narrow(7)):
        assert lc.fgsm_accuracy(model, images, labels) == expected
    assert sizes[:5] == [1, evaluate.SMALL, 25, 13, 7]
    with model.register_forward_pre_hook(narrow(0)), pytest.raises(torch.OutOfMemoryError):
        evaluate.in_mini_batches(model, 4, images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fgsm_moves_pixels_in_half_precision_whatever_the_mini_batch(dtype):
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 4)).to(dtype)
    with torch.no_grad():
        network[1].weight.mul_(1e-3)  # small gradients
    images = torch.rand(500, 3, 6, 6).to(dtype)
    labels = torch.randint(4, (500,))
    attacked = fgsm(network, images, labels, 0.25)
    torch.testing.assert_close(attacked[:5], fgsm(network, images[:5], labels[:5], 0.25))
    still = (attacked == images) & (images > 0) & (images < 1)
    assert still.float().mean() < 0.01


@pytest.mark.parametrize("eps", [0, 8 / 255])
def test_fgsm_equals_a_plain_loop(case, eps):
    model, images, labels = case
    expected = plain_fgsm(copy.deepcopy(model).eval(), images, labels, eps)
    original, attacked = images.clone(), fgsm(model.eval(), images, labels, eps)
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-15)
    assert torch.equal(images, original) and not attacked.requires_grad
    right = sum(model(x[None]).argmax().item() == y.item() for x, y in zip(expected, labels))
    assert lc.fgsm_accuracy(model, images, labels, eps) == 100 * right / N
    clean = lc.accuracy(model, images, labels)
    assert 100 * right / N < clean if eps else 100 * right / N == clean


def test_fgsm_default_is_the_papers(case):
    default, *others = (lc.fgsm_accuracy(*case, *eps) for eps in ((), (1 / 255,), (4 / 255,)))
    assert default == others[0] != others[1]


@pytest.mark.parametrize("evaluate", [lc.accuracy, lc.fgsm_accuracy])
def test_evaluation_leaves_no_trace(case, evaluate):
    model, images, labels = case
    model[1][1].eval()  # a submodule that its owner keeps in evaluation mode
    model[1][0].weight.grad = torch.ones_like(model[1][0].weight)
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    first = evaluate(model, images, labels)
    assert [m.training for m in model.modules()] == modes
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert (model[1][0].weight.grad == 1).all()
    assert all(p.grad is None for p in model.parameters() if p is not model[1][0].weight)
    assert images.grad is None and not images.requires_grad and torch.is_grad_enabled()
    with pytest.raises(ValueError, match="does not take images"):
        evaluate(model, images[:, :2], labels)
    assert [m.training for m in model.modules()] == modes
    assert evaluate(model.eval(), images, labels) == first
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("evaluate", [lc.accuracy, lc.fgsm_accuracy])
def test_images_outside_the_unit_box_are_refused(case, evaluate):
    model, images, labels = case
    normalized = model[0](images)
    for wrong in (255 * images, (255 * images).to(torch.uint8), normalized, images + 0.001,
                  torch.full_like(images, float("nan"))):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            evaluate(model, wrong, labels)
    with pytest.raises(ValueError, match=r"in \[0, 1\].*normalisation into the model"):
        lc.fgsm_accuracy(model[1], normalized, labels)
    without = lc.accuracy(model[1], normalized, labels)  # such a network takes any images
    assert lc.accuracy(model, images, labels) == without


def test_evaluation_on_a_gpu_is_without_tf32(case, monkeypatch):
    """The network runs on a CPU here; what counts is the mode that a GPU would compute in."""
    def forward(x):
        modes.add((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return forward_of_model(x)

    model, images, labels = case
    modes, forward_of_model = set(), model.forward
    monkeypatch.setattr(model, "forward", forward)
    monkeypatch.setattr(evaluate, "arithmetic",
                        lambda precision, device: arithmetic(precision, torch.device("cuda")))
    before = torch.backends.cudnn.allow_tf32
    lc.accuracy(model, images, labels), lc.fgsm_accuracy(model, images, labels)
    assert modes == {(False, "highest")} and before and torch.backends.cudnn.allow_tf32


def test_evaluation_is_in_fp32_under_autocast(case):
    model, images, labels = case
    model, seen = model.float(), set()
    model[1][0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        lc.accuracy(model, images.float(), labels), lc.fgsm_accuracy(model, images.float(), labels)
    assert seen == {torch.float32}


@pytest.mark.parametrize("evaluate", [lc.accuracy, lc.fgsm_accuracy])
def test_evaluation_under_inference_mode(case, evaluate):
    model, images, labels = case
    expected = evaluate(model, images, labels)
    with torch.inference_mode():
        assert evaluate(model, images.clone(), labels.clone()) == expected
        built = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    lc.accuracy(built, images.float(), labels)
    with pytest.raises(ValueError, match="outside of torch.inference_mode"):
        lc.fgsm_accuracy(built, images.float(), labels)
