"""Weights in few large tensors: the network's own function and gradients, in fewer kernels."""

import copy

import pytest
import torch
from fast_helpers import Operations
from torch import nn

import lc
from lc.fast.stacked_weights import StackedWeights

MODELS = ["ResNet-14-8", "ResNet-LC-14-8x3", "ResNet-LC-14-8x2+BN+ReLU"]
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
KINDS = [(CONTIGUOUS, None), (CONTIGUOUS, torch.float64), (CHANNELS_LAST, torch.float64)]
IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network_of(name, frozen=False, layout=CONTIGUOUS, dtype=torch.float64):
    torch.manual_seed(0)
    network = lc.build_model(name).to(dtype, memory_format=layout).train()
    return lc.freeze_spatial(network) if frozen else network


def gradient(stacks, p):
    """Of a parameter that is a view of a stack, or is optimised itself."""
    for stack in stacks.learned():
        if stack is p:
            return p.grad
        if stack.untyped_storage().data_ptr() == p.untyped_storage().data_ptr():
            assert stack.is_contiguous()
            return stack.grad.as_strided(p.size(), p.stride(), p.storage_offset())


@pytest.mark.parametrize("model, frozen, layout, dtype", [
    *((model, frozen, *kind) for model in MODELS for frozen in (False, True) for kind in KINDS),
    ("MobileNet-v2", False, CHANNELS_LAST, torch.float64)], ids=str)
def test_outputs_gradients_and_statistics_are_the_networks_own(model, frozen, layout, dtype):
    network = network_of(model, frozen, layout)
    stacks = StackedWeights(copy.deepcopy(network), dtype)
    images = IMAGES.double().contiguous(memory_format=layout)
    outputs = []
    for function in (network, stacks):
        torch.manual_seed(1)  # of dropout
        outputs.append(function(images))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    scale = max(p.grad.abs().max() for p in network.parameters() if p.grad is not None)
    parameters = dict(stacks.network.named_parameters())
    for name, p in network.named_parameters():
        mine = parameters[name]
        assert mine.requires_grad == p.requires_grad and torch.equal(mine, p)
        if p.requires_grad:
            torch.testing.assert_close(
                gradient(stacks, mine), p.grad, rtol=1e-7, atol=1e-9 * scale, msg=name)
    for buffer, mine in zip(network.buffers(), stacks.network.buffers()):
        torch.testing.assert_close(mine, buffer, rtol=1e-9, atol=1e-12)
    # the network stays whole: its parameters are what is optimised
    assert list(stacks.network.state_dict()) == list(network.state_dict())
    with torch.no_grad():
        for p in stacks.learned():
            p.mul_(2)
    for name, p in network.named_parameters():
        assert torch.equal(parameters[name], 2 * p if p.requires_grad else p), name


def test_blocks_of_one_shape_fold_by_one_product():
    network = network_of("ResNet-LC-20-16x4")  # the stem, 6 of 16 channels, 1 + 5 of 32 and of 64
    with Operations() as alone:
        network(IMAGES.double())
    stacks = StackedWeights(network)
    with Operations() as together:
        stacks(IMAGES.double())
    assert (alone.count["mm"], together.count["mm"], together.count["bmm"]) == (19, 0, 6)
    assert alone.count["add_"] >= 21 and together.count["add_"] == 1  # BatchNorm's counters
    # of the blocks, BatchNorm, the shortcuts and the classifier
    assert len(stacks.learned()) == 2 * 6 + 2 * 21 + 2 + 2


@pytest.mark.parametrize("model, casts", [
    ("ResNet-20-16", 1), ("ResNet-LC-20-16x4", 6 + 1), ("ResNet-LC-8-8x2+BN+ReLU", 2 * 7 + 1)])
def test_weights_are_cast_together_and_it_follows_autocast(model, casts):
    network = network_of(model, dtype=torch.float32)
    stacks = StackedWeights(copy.deepcopy(network), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        with Operations() as operations:
            logits = stacks(IMAGES)
        torch.testing.assert_close(logits, network(IMAGES), rtol=0.05, atol=0.05)
    # also the images, and the classifier's weight and bias
    assert operations.count["_to_copy"] == casts + 3
    assert all(p.dtype == torch.float32 for p in stacks.learned())


def test_a_network_without_convolutions_or_counters():
    stacks = StackedWeights(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)))
    assert stacks(IMAGES).shape == (4, 2) and len(stacks.learned()) == 2
