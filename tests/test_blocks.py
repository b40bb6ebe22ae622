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
from torchvision.models.feature_extraction import create_feature_extractor

import lc
from lc import evaluate
from lc.blocks import unfold


def explicit_sum(block):
    """Equation 4 as it is printed."""
    p, s = block.pointwise.weight.detach(), block.spatial.weight.detach()
    combined = torch.zeros(len(p), *s.shape[1:], dtype=s.dtype)
    for i in range(len(p)):
        for j in range(len(s)):
            combined[i] += p[i, j, 0, 0] * s[j]
    return combined


def step(model, x):
    """A training step's output, and the gradients of the input and of all learned parameters."""
    x = x.clone().requires_grad_()
    y = model(x)
    learned = [x, *(p for p in model.parameters() if p.requires_grad)]
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad(y, learned, weights)]


def float64(*arguments, **options):
    """An LC-Block in float64, with another affine map and statistics in a BatchNorm between."""
    block = lc.LCBlock(*arguments, **options, dtype=torch.float64)
    for norm in block.between:
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            block(torch.randn(6, block.in_channels, 8, 8, dtype=torch.float64) + 1)
    return block


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("frozen", [False, True], ids=["learnable", "frozen"])
@pytest.mark.parametrize("options", [
    dict(kernel_size=3), dict(kernel_size=3, stride=2, expansion=8, bias=True),
    dict(kernel_size=9, expansion=2), dict(kernel_size=(3, 5), stride=(2, 1), dilation=(1, 2)),
    dict(kernel_size=3, between=("BN",)), dict(kernel_size=3, between=("ReLU",)),
    dict(kernel_size=3, between=("BN", "ReLU"), expansion=3, stride=2, bias=True)], ids=str)
def test_blocks_train_and_evaluate_as_their_layers_one_by_one(options, frozen, memory_format):
    block = float64(3, 4, **options).to(memory_format=memory_format)
    if frozen:
        lc.freeze_spatial(block)
    literal = unfold(block)
    x = torch.randn(6, 3, 11, 10, dtype=torch.float64).to(memory_format=memory_format) + 3
    expected = step(literal, x)
    assert_close(step(block, x), expected, **EXACT)
    assert len(expected) == 1 + len([p for p in (x, *block.parameters()) if p.requires_grad]) + 1
    assert_close([*block.buffers()], [*literal.buffers()], **EXACT)
    y = block.eval()(x)
    assert_close(y, literal.eval()(x), **EXACT)
    if not block.between:
        assert_close(block.combined_weight().detach(), explicit_sum(block), **EXACT)
        folded = lc.fold(block)
        assert_close(folded(x), y, **EXACT)
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


def test_a_block_computes_the_same_with_its_weights_where_dataparallel_and_fsdp_put_them():
    block, x = lc.LCBlock(3, 4, 3, expansion=2), torch.randn(2, 3, 6, 6)
    y = block(x)
    for conv in (block.spatial, block.pointwise):
        vars(conv)["weight"] = conv._parameters.pop("weight").detach()
    assert_close(block(x), y)


def test_frozen_filters_may_be_in_half_precision():
    block, x = lc.freeze_spatial(lc.LCBlock(3, 4, 3, expansion=2)), torch.randn(2, 3, 6, 6)
    y = block(x)
    block.spatial.to(torch.bfloat16)
    assert_close(block(x), y, rtol=0.02, atol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        block(x).sum().backward()
    assert block.pointwise.weight.grad.dtype == block.combined_weight().dtype == torch.float32


@pytest.mark.parametrize("kernel, dilation", [(3, 1), (5, 3), ((3, 7), (2, 1))])
def test_default_padding_keeps_the_image_size(kernel, dilation):
    block = lc.LCBlock(3, 4, kernel, dilation=dilation)
    assert block(torch.randn(2, 3, 13, 12)).shape == (2, 4, 13, 12)


@pytest.mark.parametrize("kernel, expansion", [(3, 8), ((3, 7), 2)])
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
    assert not hasattr(lc.LCBlock(3, 4, 3, between=("ReLU",)), "weight")


HOOKED = {
    "prune": lambda half: prune.l1_unstructured(half, "weight", 0.5),
    "spectral_norm, old": nn.utils.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "forward hook": lambda half: half.register_forward_hook(lambda module, inputs, y: 2 * y),
    "forward": lambda half: setattr(half, "forward", lambda x: 2 * type(half).forward(half, x)),
}


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
    if hooked in ("prune", "spectral_norm, old", "forward"):
        with pytest.raises(ValueError, match="a hook.* computes a weight of the block"):
            lc.combined_filters(block)


def test_networks_with_blocks_are_traced():
    model, x = lc.build_model("ResNet-LC-8-4x2").eval(), torch.rand(2, 3, 16, 16)
    y, traced = model(x), torch.fx.symbolic_trace(model)
    buffer = io.BytesIO()
    torch.save(traced, buffer)
    buffer.seek(0)
    prepared = prepare_fx(model, get_default_qconfig_mapping(), (x,))
    exported = torch.export.export(model, (x,)).module()
    for same in (traced, torch.load(buffer, weights_only=False), prepared, exported):
        assert_close(same(x), y)
    assert_close(create_feature_extractor(model, ["conv1"])(x)["conv1"], model.conv1(x))
    for between in ((), ("BN",), ("BN", "ReLU")):
        block = lc.LCBlock(3, 4, 3, between=between, padding_mode="reflect").eval()
        traced = torch.fx.symbolic_trace(block)
        assert_close(traced(x), block(x))
        for change in (lc.fold, lc.convert, lc.freeze_spatial, lc.combined_filters):
            with pytest.raises(ValueError, match="traced model .*torch.fx what lc.fold returns"):
                change(nn.Sequential(traced))
    with pytest.raises(ValueError, match="traced model"):
        lc.fold(exported)
    plain = torch.fx.symbolic_trace(lc.fold(model))
    assert_close(lc.fold(plain)(x), y)
    own = nn.Sequential()
    own.spatial, own.pointwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
    assert lc.freeze_spatial(torch.fx.symbolic_trace(nn.Sequential(own)))


@pytest.mark.parametrize("between", [(), ("BN",)])
def test_a_bias_on_a_spatial_layer_of_ones_own_counts(between):
    block, x = lc.LCBlock(3, 4, 3, 1, 2, between, padding=1).eval(), torch.rand(2, 3, 6, 6)
    block.spatial = nn.Conv2d(3, 8, 3, padding=1)
    expected = block.pointwise(block.between(block.spatial(x)))
    for same in (block, lc.fold(block), lc.blocks.unfold(block)):
        assert_close(same(x), expected)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("kind, options", [
    (nn.BatchNorm2d, {}), (nn.BatchNorm2d, dict(affine=False)), (nn.SyncBatchNorm, {})])
def test_batch_norm_alone_folds_as_in_evaluation_mode(kind, options, bias):
    block = float64(4, 4, 3, 1, 12, ("BN",), bias=bias)
    norm = kind(48, dtype=torch.float64, **options)
    norm.load_state_dict(block.between[0].state_dict(), strict=norm.affine)
    block.between[0] = norm
    folded = lc.fold(nn.Sequential(block).eval())
    assert type(folded[0]) is nn.Conv2d and folded[0].bias is not None
    assert all(p.is_leaf and p.requires_grad for p in folded.parameters())
    assert_close(block.combined_weight(), folded[0].weight)
    x = torch.randn(6, 4, 8, 8, dtype=torch.float64)
    z = nn.functional.batch_norm(block.spatial(x), norm.running_mean, norm.running_var,
                                 norm.weight, norm.bias, eps=norm.eps)
    assert_close(folded(x), block.pointwise(z), **EXACT)


@pytest.mark.parametrize("between", [
    [nn.ReLU()], [nn.BatchNorm2d(8), nn.ReLU()], [nn.BatchNorm2d(8), nn.BatchNorm2d(8)],
    [nn.BatchNorm2d(8, track_running_stats=False)]], ids=str)
def test_other_operations_do_not_fold(between):
    block = lc.LCBlock(4, 4, 3, 1, 2)
    block.between = nn.Sequential(*between)
    assert isinstance(lc.fold(block), lc.LCBlock)
    with pytest.raises(ValueError, match="no combined filters"):
        block.combined_weight()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name, most", [
    ("ResNet-LC-8-4x2+BN+ReLU", evaluate.SMALL), ("ResNet-LC-8-4x2", evaluate.LARGE)])
def test_networks_that_compute_expanded_features_are_evaluated_a_few_images_at_a_time(name, most):
    sizes, model = [], lc.build_model(name).cuda()
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    images = torch.rand(600, 3, 8, 8, device="cuda")
    lc.accuracy(model, images, torch.zeros(600, dtype=torch.int64, device="cuda"))
    assert max(sizes) == most
