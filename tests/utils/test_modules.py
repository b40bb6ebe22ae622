"""What a module that takes the place of another one keeps of it, for each way to replace one."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import lc
from lc.blocks import unfold


class Furnished(nn.Module):
    """A convolution with all that a user may put on one, and modules that share parts of it."""

    def __init__(self, calls):
        super().__init__()
        conv = nn.Conv2d(3, 4, 3, dtype=torch.float64)
        self.conv = conv.to(memory_format=torch.channels_last)
        conv.tag, conv.weight.lr_scale, conv.bias.no_decay = ["first"], 0.1, True
        conv.register_buffer("mask", torch.ones(2), persistent=False)
        conv.gain, conv.probe = nn.Parameter(torch.ones(1)), nn.Linear(2, 2)
        conv.register_forward_hook(lambda module, inputs, y: calls.append(type(module)))
        conv.register_state_dict_post_hook(lambda module, *_: calls.append("state"))
        conv.eval().compile(backend="eager")
        self.tied = nn.Conv2d(3, 4, 3, padding=2, dilation=2, bias=False, dtype=torch.float64)
        self.tied.weight = conv.weight
        self.bias_too = nn.Linear(3, 4, dtype=torch.float64)
        self.bias_too.bias, self.bias_too.weight.lr_scale = conv.bias, 0.5
        conv.sibling = [self.tied]


def check(model, kind, weights, calls):
    """`model` is a `Furnished` whose convolutions were replaced by `kind`, which have `weights`."""
    new = model.conv
    assert type(new) is type(model.tied) is kind and not new.training and model.tied.training
    assert not any(module.training for module in new.modules())
    assert new.tag == ["first"] and new.sibling == [model.tied] and new.mask.eq(1).all()
    assert "mask" not in "".join(new.state_dict()) and calls.pop() == "state"
    assert new.gain in set(model.parameters())
    for path in weights:
        first, second = (module.get_parameter(path) for module in (new, model.tied))
        assert first is second and first.lr_scale == 0.1 and first.dtype == torch.float64
    assert new.get_parameter(weights[0]).is_contiguous(memory_format=torch.channels_last)
    bias = new.get_parameter(weights[-1].replace("weight", "bias"))
    assert bias is model.bias_too.bias and bias.no_decay and model.bias_too.weight.lr_scale == 0.5
    new(torch.rand(1, 3, 5, 5, dtype=torch.float64))
    assert calls.pop() is kind and not calls


def test_a_swap_keeps_all_but_sizes_and_values_of_weights():
    calls = []
    model = lc.convert(Furnished(calls), 2)
    probe, tag = model.conv.probe, model.conv.tag
    check(model, lc.LCBlock, ["spatial.weight", "pointwise.weight"], calls)
    folded, unfolded = lc.fold(model), unfold(model)
    check(folded, nn.Conv2d, ["weight"], calls)
    check(unfolded, nn.Sequential, ["0.weight", "2.weight"], calls)
    assert model.conv.probe is probe and model.conv.tag is tag
    assert type(folded.conv.probe) is nn.Linear and folded.conv.probe is not probe
    for copied in (folded, unfolded):
        assert copied.conv.tag is not tag and not {*copied.parameters()} & {*model.parameters()}
    meta = lc.fold(lc.convert(nn.Conv2d(3, 4, 3, dtype=torch.bfloat16, device="meta")))
    assert meta.weight.is_meta and meta.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("between", [(), ("BN",)], ids=["nothing", "BN"])
def test_a_folded_weight_is_trainable_only_if_one_of_its_halves_is(between):
    for spatial, pointwise in ((False, False), (True, False), (False, True), (True, True)):
        block = lc.LCBlock(3, 4, 3, 1, 2, between, bias=True).requires_grad_(False)
        block.spatial.requires_grad_(spatial), block.pointwise.weight.requires_grad_(pointwise)
        folded = lc.fold(block)
        assert folded.weight.requires_grad == (spatial or pointwise)
        assert not folded.bias.requires_grad
    block.bias.requires_grad_()
    assert lc.fold(block).bias.requires_grad


def test_blocks_with_one_norm_between_and_other_pointwise_weights_have_other_biases():
    blocks = nn.ModuleList(lc.LCBlock(3, 4, 3, 1, 2, ("BN",)).eval() for _ in range(2))
    nn.init.normal_(blocks[0].between[0].bias)
    blocks[1].between, blocks[1].spatial = blocks[0].between, blocks[0].spatial
    x = torch.rand(1, 3, 5, 5)
    for block, folded in zip(blocks, lc.fold(blocks)):
        torch.testing.assert_close(folded(x), block(x))


def test_a_block_whose_forward_is_its_owners_stays():
    block = lc.LCBlock(3, 4, 3)
    block.forward = lambda x: x
    assert isinstance(lc.fold(nn.Sequential(block))[0], lc.LCBlock)


def test_the_weight_of_a_block_cannot_be_set():
    block, norm = lc.LCBlock(3, 4, 3, bias=True).eval(), nn.BatchNorm2d(4).eval()
    for setting in (lambda: setattr(block, "weight", nn.Parameter(torch.ones(4, 3, 3, 3))),
                    lambda: setattr(block, "bias", None), lambda: fuse_conv_bn_eval(block, norm)):
        with pytest.raises(AttributeError, match="`spatial` and `pointwise`.*lc.fold"):
            setting()
    x = torch.rand(1, 3, 5, 5)
    fused = fuse_conv_bn_eval(lc.fold(block), norm)
    torch.testing.assert_close(fused(x), norm(block(x)))
    assert torch.equal(copy.deepcopy(block)(x), block(x))
