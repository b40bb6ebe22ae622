"""LC-Blocks against their literal definition: two convolutions, one after the other."""

import copy
import io

import pytest
import torch
from helpers import EXACT
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_fx
from torch.nn.utils import parametrizations, prune
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

import lc
from lc.blocks import unfold


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
    return {"output": y, "input": x.grad, "spatial": spatial.weight.grad,
            "pointwise": pointwise.weight.grad, "bias": pointwise.bias.grad}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("frozen", [False, True], ids=["learnable", "frozen"])
@pytest.mark.parametrize("expansion", [1, 2, 8])
@pytest.mark.parametrize("kernel", [3, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_block_equals_its_two_convolutions(stride, kernel, expansion, frozen, memory_format):
    block = lc.LCBlock(3, 4, kernel, stride, expansion, bias=True, dtype=torch.float64)
    block.to(memory_format=memory_format)
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
    block = lc.LCBlock(3, 4, kernel, dilation=dilation)
    assert block(torch.randn(2, 3, 13, 12)).shape == (2, 4, 13, 12)


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


def test_a_block_has_the_attributes_of_its_convolution():
    conv = nn.Conv2d(3, 4, (3, 5), (2, 1), (1, 2), (2, 1), padding_mode="reflect")
    block = lc.convert(copy.deepcopy(conv), 2)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation",
                 "groups", "padding_mode", "transposed", "output_padding"):
        assert getattr(block, name) == getattr(conv, name)
        with pytest.raises(AttributeError):
            setattr(block, name, getattr(conv, name))
    assert block.bias is block.pointwise.bias and lc.LCBlock(3, 4, 3).bias is None
    assert torch.equal(block.weight, block.combined_weight())
    assert block.weight.shape == conv.weight.shape
    assert not hasattr(lc.LCBlock(3, 4, 3, between=("ReLU",)), "weight")


HOOKED = {
    "prune": lambda half: prune.l1_unstructured(half, "weight", 0.5),
    "spectral_norm, old": nn.utils.spectral_norm,
    "weight_norm, old": nn.utils.weight_norm, "weight_norm": parametrizations.weight_norm,
    "forward hook": lambda half: half.register_forward_hook(lambda module, inputs, y: 2 * y),
    "forward": lambda half: setattr(half, "forward", lambda x: 2 * type(half).forward(half, x)),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("half", ["spatial", "pointwise"])
@pytest.mark.parametrize("hooked", HOOKED)
def test_what_computes_a_weight_of_a_layer_counts(hooked, half):
    block = lc.LCBlock(3, 4, 3, expansion=2, bias=True)
    HOOKED[hooked](block.get_submodule(half))
    literal, x = nn.Sequential(block.spatial, block.pointwise), torch.randn(2, 3, 6, 6)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(3):
        block(x).square().mean().backward()
        optimizer.step()
    y = literal.eval()(x)
    assert_close(block.eval()(x), y)
    assert_close(lc.fold(nn.Sequential(block, nn.Identity()))(x), y)
    if hooked == "prune" or "old" in hooked or hooked == "forward":
        with pytest.raises(ValueError, match="a hook.* computes a weight of the block"):
            lc.combined_filters(block)


def test_networks_with_blocks_are_traced():
    model, x = lc.convert(resnet18(num_classes=10), 2).eval(), torch.rand(2, 3, 32, 32)
    y, first = model(x), model.maxpool(model.relu(model.bn1(model.conv1(x))))
    traced = torch.fx.symbolic_trace(model)
    buffer = io.BytesIO()
    torch.save(traced, buffer)
    buffer.seek(0)
    prepared = prepare_fx(model, get_default_qconfig_mapping(), (x,))
    exported = torch.export.export(model, (x,)).module()
    for same in (traced, torch.load(buffer, weights_only=False), prepared, exported):
        assert_close(same(x), y)
    features = create_feature_extractor(model, ["layer1.0.conv1"])(x)
    assert_close(features["layer1.0.conv1"], model.layer1[0].conv1(first))
    for between in ((), ("BN",), ("BN", "ReLU")):
        block = lc.LCBlock(3, 4, 3, between=between, padding_mode="reflect").eval()
        assert_close(torch.fx.symbolic_trace(block)(x), block(x))
