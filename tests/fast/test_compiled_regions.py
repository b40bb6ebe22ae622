"""Compiled regions: the same function and gradients, compiled once for all expansions."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from functorch.compile import make_boxed_func
from helpers import CPU, short_run, trainer_of
from torch._dynamo.backends.common import aot_autograd

import lc
from lc.fast import FastTrainer, compiled_regions
from lc.models import BasicBlock
from lc.utils.device import arithmetic

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()


def forget():
    compiled_regions.compiled.cache_clear()
    compiled_regions.require_compiler.cache_clear()


@pytest.fixture
def graphs(monkeypatch):
    """Those of the forward passes, at which the compiler stops, so that it takes no time."""
    kept = []

    def keep(graph, inputs):
        kept.append(graph)
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=lambda graph, _: make_boxed_func(graph))
    monkeypatch.setattr(compiled_regions, "BACKEND", backend)
    forget()
    with arithmetic("fp32", CPU):  # as a step leaves PyTorch's state, which compiled code guards
        pass
    yield kept
    forget()
    torch._dynamo.reset()


def test_outputs_gradients_and_statistics_are_the_networks_own(graphs):
    network = lc.build_model("ResNet-LC-14-8x3").double().train()
    other = copy.deepcopy(network)
    blocks = [m for m in network.modules() if isinstance(m, BasicBlock)]
    assert compiled_regions.compile_regions(other) == 1 + len(blocks)
    assert compiled_regions.compile_regions(network.blocks[0].conv1) == 0  # of any other kind
    for _ in range(2):
        outputs = [network(IMAGES), other(IMAGES)]
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
        for output in outputs:
            output.square().sum().backward()
    gradients = [[p.grad for p in each.parameters()] for each in (other, network)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close([*other.buffers()], [*network.buffers()])
    assert graphs
    torch.testing.assert_close(other.eval()(IMAGES), network.eval()(IMAGES), rtol=1e-9, atol=1e-9)
    assert torch.equal(copy.deepcopy(other)(IMAGES), other(IMAGES))


def test_networks_of_all_expansions_share_what_is_compiled(graphs):
    def graphs_after(model, frozen):
        trainer_of(short_run(model, frozen), precision="bf16", kind=FastTrainer, fuse=True).step(24)
        return len(graphs)

    first = graphs_after("ResNet-LC-8-8x1", True)
    # the augmentation; of each stage's shape a region with a shortcut and one without
    assert first == 1 + 3 * 2
    for model, frozen in (("ResNet-LC-8-8x4", False), ("ResNet-14-8", False)):
        assert graphs_after(model, frozen) == first
    assert graphs_after("ResNet-8-16", False) > first


def test_a_run_can_be_trained_compiled_but_not_the_reference_in_fp32(graphs):
    options = dict(device="cpu", precision="fp32", progress=False)
    run = short_run("ResNet-8-24", train_images=48)
    plain = lc.train(replace(run, recipe=replace(run.recipe, precision="fp32")), fuse=True,
                     **options)
    assert not graphs
    compiled = lc.train(run, fuse=True, **options)
    assert len(graphs) > 1  # the first only shows that there is a compiler
    assert compiled.train_loss == pytest.approx(plain.train_loss, rel=1e-3)


def test_a_machine_without_a_compiler_is_told_before_any_training(monkeypatch):
    def backend(graph, inputs):
        raise OSError("no compiler")

    monkeypatch.setattr(compiled_regions, "BACKEND", backend)
    monkeypatch.setattr(lc.training, "load_data", None)
    forget()
    message = "nothing can be compiled on this machine .*no compiler.*; leave out fuse"
    with pytest.raises(ValueError, match=message):
        lc.train(short_run(), device="cpu", fuse=True)
    forget()


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available() and not shutil.which("g++"),
                    reason="needs a compiler")
def test_the_compiled_code_computes_the_same():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    block = lc.build_model("ResNet-8-8").blocks[0].to(device, memory_format=torch.channels_last)
    other, results = copy.deepcopy(block), []
    assert compiled_regions.compile_regions(other) == 1
    x = torch.randn(8, 8, 8, 8, device=device).contiguous(memory_format=torch.channels_last)
    for each in (block, other):
        y = x.clone().requires_grad_()
        output = each(y)
        output.square().sum().backward()
        results.append([output, y.grad, *(p.grad for p in each.parameters()), *each.buffers()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
