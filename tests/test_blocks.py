"""LC-Blocks against their literal definition: two convolutions, one after the other."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import lc
from lc.blocks import unfold

EXACT = {"rtol": 1e-9, "atol": 1e-11}  # a different order of summation in float64, and nothing else


def explicit_sum(block):
    """Equation 4 as it is printed."""
    p, s = block.pointwise.weight.detach(), block.spatial.weight.detach()
    combined = torch.zeros(len(p), *s.shape[1:], dtype=s.dtype)
    for i in range(len(p)):
        for j in range(len(s)):
            combined[i] += p[i, j, 0, 0] * s[j]
    return combined


def outputs_and_gradients(model, x, spatial, pointwise):
    x = x.clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return {"output": y, "input": x.grad, "spatial": spatial.weight.grad, "pointwise": pointwise.weight.grad,
            "bias": pointwise.bias.grad}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("frozen", [False, True], ids=["learnable", "frozen"])
@pytest.mark.parametrize("expansion", [1, 2, 8])
@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_block_equals_its_two_convolutions(stride, kernel, expansion, frozen, memory_format):
    block = lc.LCBlock(3, 4, kernel, stride, expansion, bias=True, dtype=torch.float64).to(memory_format=memory_format)
    if frozen:
        lc.freeze_spatial(block)
    literal, folded = unfold(block), lc.fold(block)
    x = torch.randn(2, 3, 11, 10, dtype=torch.float64).to(memory_format=memory_format)
    expected = outputs_and_gradients(literal, x, literal[0], literal[2])
    actual = outputs_and_gradients(block, x, block.spatial, block.pointwise)
    assert (actual["spatial"] is None) == frozen
    assert actual["output"].shape == (2, 4, -(-11 // stride), -(-10 // stride))
    for what in expected:
        assert_close(actual[what], expected[what], **EXACT, msg=lambda text: f"{what}: {text}")
    assert_close(folded(x), expected["output"], **EXACT)
    assert_close(block.combined_weight().detach(), explicit_sum(block), **EXACT)
    assert_close(folded.weight.detach(), explicit_sum(block), **EXACT)


def test_block_never_computes_the_expanded_features():
    block = lc.LCBlock(3, 4, 3, expansion=64)
    with FlopCounterMode(display=False) as counter:
        block(torch.randn(2, 3, 8, 8))
    convolution, combination = 2 * 2 * 8 * 8 * 4 * 3 * 9, 2 * 4 * (4 * 64) * 3 * 9
    assert counter.get_total_flops() == convolution + combination


def test_combined_weight_keeps_its_precision_under_autocast():
    block = lc.LCBlock(3, 4, 3, expansion=2)
    expected = block.combined_weight()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(block.combined_weight(), expected, rtol=0, atol=0)
        assert block(torch.randn(1, 3, 5, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize("kernel, dilation", [(3, 1), (3, 2), (5, 3), ((3, 7), (2, 1))])
def test_default_padding_keeps_the_image_size(kernel, dilation):
    assert lc.LCBlock(3, 4, kernel, dilation=dilation)(torch.randn(2, 3, 13, 12)).shape == (2, 4, 13, 12)


def test_block_infers_shapes_on_the_meta_device():
    block = lc.convert(nn.Conv2d(3, 4, 5, 2, padding=2, device="meta"))
    assert all(p.is_meta for p in block.parameters())
    assert block(torch.empty(2, 3, 9, 8, device="meta")).shape == (2, 4, 5, 4)


@pytest.mark.parametrize("kernel, expansion", [(3, 8), (5, 2), ((3, 7), 2)])
def test_initialisation_is_uniform(kernel, expansion):
    block = lc.LCBlock(16, 64, kernel, expansion=expansion)
    for conv in (block.spatial, block.pointwise):
        weight = conv.weight.detach()
        bound = weight[0].numel() ** -0.5
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.var().item() == pytest.approx(bound ** 2 / 3, rel=0.05)
        assert (weight.abs() < bound / 2).float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("arguments, message", [
    (dict(expansion=0), "expansion.*at least 1, not 0"), (dict(expansion=1.5), "expansion.*integer.*1.5"),
    (dict(kernel_size=4), "kernel_size must be odd, not 4"), (dict(kernel_size=(3, 2)), r"kernel_size must be odd, not \(3, 2\)"),
    (dict(kernel_size=-3), "kernel_size.*at least 1, not -3"), (dict(kernel_size=0), "kernel_size.*at least 1, not 0"),
    (dict(between=("BN", "GELU")), "'GELU'; known: BN, ReLU"), (dict(out_channels=0), "out_channels.*not 0"),
    (dict(stride=0), "stride.*not 0"),
], ids=str)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        lc.LCBlock(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3} | arguments)
