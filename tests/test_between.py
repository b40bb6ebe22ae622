"""LC-Blocks with operations between their convolutions (Table 3), against layers one by one."""

import pytest
import torch
from helpers import EXACT
from torch import nn
from torch.testing import assert_close

import lc
from lc import evaluate
from lc.blocks import unfold

BETWEEN = {"BN": ("BN",), "ReLU": ("ReLU",), "BN+ReLU": ("BN", "ReLU")}


def step(model, x):
    """A training step's output, and the gradients of the input and of all learned parameters."""
    x = x.clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    return [y.detach(), x.grad, *gradients.values()]


@pytest.mark.parametrize("options", [
    {}, dict(stride=2), dict(kernel_size=5, dilation=2), dict(kernel_size=(3, 5), stride=(2, 1)),
    dict(bias=True), dict(padding=0), dict(padding_mode="reflect"),
    dict(padding="same"), dict(padding="same", padding_mode="circular"),
], ids=str)
@pytest.mark.parametrize("frozen", [False, True], ids=["learnable", "frozen"])
@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_blocks_train_and_evaluate_as_their_layers_one_by_one(between, frozen, options):
    block = lc.LCBlock(3, 4, **dict(kernel_size=3) | options, expansion=12, between=between,
                       dtype=torch.float64)
    if between[0] == "BN":
        nn.init.uniform_(block.between[0].weight, 0.5, 2)
        nn.init.normal_(block.between[0].bias)
    if frozen:
        lc.freeze_spatial(block)
    literal = unfold(block)
    for _ in range(2):
        x = torch.randn(6, 3, 8, 9, dtype=torch.float64) + 3  # not centred, as after a ReLU
        assert_close(step(block, x), step(literal, x), rtol=1e-9, atol=1e-9)
    assert_close([*block.buffers()], [*literal.buffers()], **EXACT)
    assert_close(block.eval()(x), literal.eval()(x), **EXACT)


def trained(block):
    """The block with other running statistics than at its initialisation, and an input."""
    x = torch.randn(6, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        block(x + 1)
    return block, x


def test_relu_does_not_fold():
    for between in (("ReLU",), ("BN", "ReLU"), ("BN", "BN")):
        block, _ = trained(lc.LCBlock(4, 4, 3, 1, 12, between, dtype=torch.float64))
        assert isinstance(lc.fold(block), lc.LCBlock)
        with pytest.raises(ValueError, match="no combined filters"):
            block.combined_weight()


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("kind, options", [
    (nn.BatchNorm2d, {}), (nn.BatchNorm2d, dict(momentum=None)),
    (nn.BatchNorm2d, dict(affine=False)), (nn.SyncBatchNorm, {})])
def test_batch_norm_alone_folds_as_in_evaluation_mode(kind, options, bias):
    block, x = trained(lc.LCBlock(4, 4, 3, 1, 12, ("BN",), bias=bias, dtype=torch.float64))
    norm = kind(block.between[0].num_features, dtype=torch.float64, **options)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    for name, buffer in block.between[0].named_buffers():  # SyncBatchNorm takes no step on a CPU
        norm.get_buffer(name).copy_(buffer)
    block.between[0] = norm
    folded = lc.fold(nn.Sequential(block).eval())
    assert type(folded[0]) is nn.Conv2d and folded[0].bias is not None
    assert all(p.is_leaf and p.requires_grad for p in folded.parameters())
    assert_close(block.combined_weight(), folded[0].weight)
    z = nn.functional.batch_norm(block.spatial(x), norm.running_mean, norm.running_var,
                                 norm.weight, norm.bias, eps=norm.eps)
    assert_close(folded(x), block.pointwise(z), **EXACT)
    if kind is not nn.SyncBatchNorm:
        assert_close(folded(x), block(x), **EXACT)


def test_a_norm_without_statistics_does_not_fold():
    block = lc.LCBlock(4, 4, 3, 1, 12, ("BN",))
    block.between[0] = nn.BatchNorm2d(48, track_running_stats=False)
    assert not block.folds and isinstance(lc.fold(block), lc.LCBlock)


def test_a_norm_in_evaluation_mode_keeps_its_statistics_while_the_block_trains():
    block = lc.LCBlock(3, 4, 3, expansion=24, between=("BN",))
    block.between[0].eval()
    literal, x = unfold(block), torch.randn(6, 3, 8, 8)
    assert block.training
    assert_close(block(x), literal(x))
    assert block.between[0].num_batches_tracked == 0


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_blocks_run_under_autocast(between):
    block, reference = (lc.LCBlock(3, 4, 3, expansion=24, between=between) for _ in range(2))
    reference.load_state_dict(block.state_dict())
    x = torch.randn(6, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and all(p.grad.isfinite().all() for p in block.parameters())
    assert_close(y.float(), reference(x), rtol=0.05, atol=0.05)


def saved_bytes(model, x):
    """What a training step keeps for its backward pass, weights apart."""
    kept = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x).sum()
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("attack", [False, True], ids=["training in bf16", "attack in fp32"])
@pytest.mark.parametrize("between", ["+BN", "+ReLU", "+BN+ReLU"])
def test_table_3_fits_a_gpu_of_24_gigabytes(between, attack):
    """Counted on one image, and what a second one adds. It is the same for each image."""
    model = lc.build_model(f"ResNet-LC-20-16x64{between}").train(not attack)
    model = lc.fold(model) if attack else model
    with torch.autocast("cpu", torch.bfloat16, enabled=not attack):
        one, two = (saved_bytes(model, torch.randn(n, 3, 32, 32).requires_grad_())
                    for n in (1, 2))
    batch, size = (evaluate.SMALL, 4) if attack else (256, 2)
    widest = batch * 32 * 32 * 16 * 64 * size  # bytes of the largest layer's expanded features
    gradients = 4 * widest  # of one layer at a time
    assert one + (batch - 1) * (two - one) + gradients < 24e9


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
