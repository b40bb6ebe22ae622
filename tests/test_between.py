"""LC-Blocks with BatchNorm and ReLU between (Table 3) against their two convolutions and PyTorch's own layers."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import lc
from lc import evaluate
from lc.blocks import unfold

EXACT = {"rtol": 1e-9, "atol": 1e-11}  # a different order of summation in float64, and nothing else
BETWEEN = {"BN": ("BN",), "ReLU": ("ReLU",), "BN+ReLU": ("BN", "ReLU")}


def step(model, x):
    """A training step's output, the input's gradient and the gradients of all parameters."""
    x = x.clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("options", [
    {}, dict(stride=2), dict(kernel_size=5, dilation=2), dict(kernel_size=(3, 5), stride=(2, 1)), dict(bias=True),
    dict(padding=0), dict(padding_mode="reflect"), dict(padding="same", padding_mode="circular"), dict(padding="same"),
], ids=str)
@pytest.mark.parametrize("frozen", [False, True], ids=["learnable", "frozen"])
@pytest.mark.parametrize("expansion", [2, 24])  # fewer and more expanded channels than a patch has values
@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_blocks_train_and_evaluate_as_their_layers_one_by_one(between, expansion, frozen, options):
    block = lc.LCBlock(**dict(in_channels=3, out_channels=4, kernel_size=3, expansion=expansion, between=between,
                              dtype=torch.float64) | options)
    if between[0] == "BN":
        nn.init.uniform_(block.between[0].weight, 0.5, 2), nn.init.normal_(block.between[0].bias)
    if frozen:
        lc.freeze_spatial(block)
    literal = unfold(block)
    for _ in range(2):
        x = torch.randn(6, 3, 8, 9, dtype=torch.float64) + 3  # not centred, as after a ReLU
        for actual, expected in zip(step(block, x), step(literal, x), strict=True):
            assert (actual is None) == (expected is None)
            if actual is not None:
                assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    for actual, expected in zip(block.buffers(), literal.buffers(), strict=True):
        assert_close(actual, expected, **EXACT)
    assert_close(block.eval()(x), literal.eval()(x), **EXACT)


def test_batch_norm_alone_folds_and_relu_does_not():
    model = nn.Sequential(*(lc.LCBlock(4, 4, 3, 1, 12, between) for between in BETWEEN.values())).double()
    x = torch.randn(6, 4, 8, 8, dtype=torch.float64)
    model(x)  # running statistics that are not those of initialisation
    folded = lc.fold(model.eval())
    assert [type(layer) for layer in folded] == [nn.Conv2d, lc.LCBlock, lc.LCBlock]
    assert all(p.is_leaf and p.requires_grad for p in folded.parameters())
    assert_close(folded(x), model(x), **EXACT)
    assert_close(model[0].combined_weight(), folded[0].weight)
    for block in model[1:]:
        with pytest.raises(ValueError, match="no combined filters"):
            block.combined_weight()


def test_batch_norm_alone_never_computes_wide_expanded_features(monkeypatch):
    block = lc.LCBlock(3, 4, 3, expansion=8, between=("BN",))
    monkeypatch.setattr(block.spatial, "forward", lambda x: pytest.fail("the expanded features were computed"))
    block(torch.randn(2, 3, 8, 8)).sum().backward()
    block.eval()(torch.randn(2, 3, 8, 8))


def saved_bytes(model, x):
    """What a training step keeps for its backward pass, weights apart."""
    kept = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x).sum()
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("between, tensors", [(("BN",), 0), (("ReLU",), 1), (("BN", "ReLU"), 1)], ids=BETWEEN)
def test_the_expanded_features_are_kept_once_at_most(between, tensors):
    block = lc.LCBlock(16, 16, 3, expansion=64, between=between)
    x = torch.randn(32, 16, 16, 16)
    small = 4 * x.nbytes  # input, output; statistics and weights do not grow with the batch
    assert saved_bytes(block, x) < 64 * x.nbytes * tensors + small


@pytest.mark.parametrize("evaluation", [False, True], ids=["training", "attack"])
@pytest.mark.parametrize("between", ["+BN", "+ReLU", "+BN+ReLU"])
def test_table_3_fits_a_gpu_of_24_gigabytes(between, evaluation):
    """Counted on a few images and multiplied, in fp32: bf16 features take half of it."""
    model, images = lc.build_model(f"ResNet-LC-20-16x64{between}").train(not evaluation), 2
    batch = evaluate.BATCH["cuda"] if evaluation else 256
    kept = batch / images * saved_bytes(lc.fold(model) if evaluation else model, torch.randn(images, 3, 32, 32).requires_grad_())
    widest = batch * 32 * 32 * 16 * 64 * 4  # bytes of the largest layer's expanded features
    assert kept + 4 * widest < 24e9  # recomputed features and their gradients, of one layer at a time


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_blocks_run_under_autocast_with_exact_statistics(between):
    block, reference = (lc.LCBlock(3, 4, 3, expansion=24, between=between) for _ in range(2))
    reference.load_state_dict(block.state_dict())
    x = torch.randn(6, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and all(p.grad.isfinite().all() for p in block.parameters())
    assert_close(y.float(), reference(x), rtol=0.05, atol=0.05)
    if between == ("BN",):
        for actual, expected in zip(block.buffers(), reference.buffers(), strict=True):
            assert_close(actual, expected, rtol=0, atol=0)


def test_a_norm_with_statistics_of_its_own_kind_is_left_to_itself():
    block = lc.LCBlock(3, 4, 3, expansion=24, between=("BN",))
    block.between[0] = nn.BatchNorm2d(96, momentum=None)
    literal = unfold(block)
    x = torch.randn(6, 3, 8, 8)
    assert_close(block(x), literal(x), rtol=0, atol=0)
    assert not block.folds and isinstance(lc.fold(block), lc.LCBlock)


@pytest.mark.parametrize("between", [("BN",), ("BN", "ReLU")], ids=["BN", "BN+ReLU"])
def test_a_norm_in_evaluation_mode_keeps_its_statistics_while_the_block_trains(between):
    block = lc.LCBlock(3, 4, 3, expansion=24, between=between)
    block.between[0].eval()
    literal, x = unfold(block), torch.randn(6, 3, 8, 8)
    assert block.training
    assert_close(block(x), literal(x))
    assert block.between[0].num_batches_tracked == 0


def test_wide_statistics_are_kept_in_single_precision():
    block = lc.LCBlock(3, 4, 3, expansion=24, between=("BN",)).bfloat16()
    x = 300 * torch.randn(6, 3, 8, 8)
    literal = unfold(block)
    assert_close(block(x.bfloat16()), literal(x.bfloat16()), rtol=0.05, atol=0.05)


def test_a_single_value_per_channel_is_an_error_as_in_pytorch():
    for expansion in (2, 24):
        with pytest.raises(ValueError, match="more than (one|1) value per channel"):
            lc.LCBlock(3, 4, 3, expansion=expansion, between=("BN",))(torch.randn(1, 3, 1, 1))
