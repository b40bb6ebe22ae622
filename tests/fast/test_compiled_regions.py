"""Compiled regions: the same function, gradients and statistics, compiled once for all expansions."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from functorch.compile import make_boxed_func
from helpers import SHORT, epochs, short_run, trainer_of
from torch._dynamo.backends.common import aot_autograd

import lc
from lc.fast import FastTrainer, compiled_regions

MODELS = ["ResNet-14-8", "ResNet-LC-14-8x3", "ResNet-LC-8-8x2+BN+ReLU"]
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()


def forget():
    compiled_regions.compiled.cache_clear(), compiled_regions.require_compiler.cache_clear()


@pytest.fixture
def graphs(monkeypatch):
    """Lets the compiler stop at the graphs, which takes no time, and keeps those of the forward passes."""
    kept = []

    def keep(graph, inputs):
        kept.append(graph)
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=lambda graph, _: make_boxed_func(graph))
    monkeypatch.setattr(compiled_regions, "BACKEND", backend)
    forget()
    yield kept
    forget()
    torch._dynamo.reset()


@pytest.mark.parametrize("model", MODELS)
def test_outputs_gradients_and_statistics_are_the_networks_own(model, graphs):
    torch.manual_seed(0)
    network = lc.build_model(model).double().train()
    other = copy.deepcopy(network)
    assert compiled_regions.compile_regions(other) == 1 + sum(hasattr(module, "conv2") for module in network.modules())
    for _ in range(2):
        expected, output = network(IMAGES), other(IMAGES)
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
        expected.square().sum().backward(), output.square().sum().backward()
    for p, mine in zip(network.parameters(), other.parameters()):
        torch.testing.assert_close(mine.grad, p.grad, rtol=1e-7, atol=1e-7)
    for buffer, mine in zip(network.buffers(), other.buffers()):
        torch.testing.assert_close(mine, buffer)
    assert graphs
    torch.testing.assert_close(other.eval()(IMAGES), network.eval()(IMAGES), rtol=1e-9, atol=1e-9)
    assert torch.equal(copy.deepcopy(other)(IMAGES), other(IMAGES))


def test_networks_of_all_expansions_share_what_is_compiled(graphs):
    def graphs_after(model, frozen):
        trainer_of(short_run(model, frozen), kind=FastTrainer, fuse=True).step(24)
        return len(graphs)

    first = graphs_after("ResNet-LC-8-8x1", True)
    assert first == 1 + 3 * 2  # the augmentation; of each stage's shape a region with a shortcut and one without
    assert graphs_after("ResNet-LC-8-8x4", True) == graphs_after("ResNet-LC-8-8x2", False) == first
    assert graphs_after("ResNet-8-8", False) == graphs_after("ResNet-14-8", False) == first
    assert graphs_after("ResNet-8-16", False) > first


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_training_follows_one_that_is_not(precision, graphs):
    dtype, tolerance = (torch.float64, 1e-6) if precision == "fp32" else (torch.float32, 0.05)
    plain = trainer_of(short_run(), precision=precision, dtype=dtype)
    other = trainer_of(short_run(), precision=precision, dtype=dtype, kind=FastTrainer, fuse=True)
    epochs(plain), epochs(other)
    assert graphs
    torch.testing.assert_close(other.losses, plain.losses, rtol=0, atol=tolerance)


def test_a_run_can_be_trained_compiled(graphs):
    plain, other = (lc.train(short_run(), device="cpu", precision="fp32", fuse=fuse, progress=False) for fuse in (False, True))
    assert graphs and other.train_loss == pytest.approx(plain.train_loss, rel=1e-3)
    kept = len(graphs)
    lc.train(lc.Run("ResNet-8-24", "digits", True, 0, replace(SHORT, precision="fp32")), device="cpu", fuse=True, progress=False)
    assert len(graphs) == kept  # the reference in fp32 is never compiled


def test_a_machine_without_a_compiler_is_told_before_any_training(monkeypatch):
    def backend(graph, inputs):
        raise OSError("no compiler")

    monkeypatch.setattr(compiled_regions, "BACKEND", backend)
    monkeypatch.setattr(lc.training, "load_data", None)
    forget()
    with pytest.raises(ValueError, match="nothing can be compiled on this machine .*no compiler.*; leave out fuse"):
        lc.train(short_run(), device="cpu", fuse=True)
    forget()


def test_other_networks_have_nothing_to_compile():
    assert compiled_regions.compile_regions(lc.build_model("MobileNet-v2")) == 0


def plain_normalize_relu(norm, x, shortcut=0):
    return torch.relu(norm(x) + shortcut)


@pytest.mark.slow
@pytest.mark.skipif(not (torch.cuda.is_available() or shutil.which("g++")), reason="needs a compiler")
@pytest.mark.parametrize("shortcut", [False, True])
def test_the_compiled_code_computes_the_same(shortcut):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = (torch.randn(8, 16, 8, 8, device=device).contiguous(memory_format=torch.channels_last) for _ in range(2))
    results = []
    for function in (plain_normalize_relu, compiled_regions.normalize_relu):
        torch.manual_seed(0)
        norm = torch.nn.BatchNorm2d(16).to(device)
        inputs = [t.clone().requires_grad_() for t in ((x, y) if shortcut else (x,))]
        output = function(norm, *inputs)
        output.square().sum().backward()
        results.append([output, *(t.grad for t in (*inputs, *norm.parameters())), *norm.buffers()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
