"""`convert`, `fold`, `freeze_spatial` and `combined_filters` on all kinds of models."""

import copy
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from helpers import EXACT
from torch import nn
from torch.testing import assert_close

import lc
from lc.blocks import unfold


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("arguments", [
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=(3, 5), padding=(1, 2), stride=(2, 1), bias=False),
    dict(kernel_size=2, stride=2),
    dict(kernel_size=4, padding="same"),
    dict(kernel_size=5, padding="same", dilation=2, padding_mode="reflect"),
    dict(kernel_size=(3, 5), padding=(3, 4), dilation=(2, 1), stride=2, padding_mode="replicate"),
], ids=str)
def test_convert_keeps_the_geometry_of_a_convolution(arguments):
    conv = nn.Conv2d(3, 4, **arguments, dtype=torch.float64).eval()
    block = lc.convert(copy.deepcopy(conv), 3)
    assert isinstance(block, lc.LCBlock) and not block.training
    assert block.spatial.weight.shape == (12, 3, *conv.kernel_size)
    assert_close(block.bias, conv.bias, rtol=0, atol=0)
    conv.weight.data = block.combined_weight().detach()
    x = torch.randn(2, 3, 13, 12, dtype=torch.float64)
    for same in (block, lc.fold(block), unfold(block)):
        assert_close(same(x), conv(x), **EXACT)


NETWORKS = {
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.5),
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), num_init_features=8, num_classes=10),
    "convnext": lambda: timm.create_model("test_convnext", num_classes=10),
    "tf_": lambda: timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=10),
}


@pytest.mark.filterwarnings(r"ignore:convert leaves conv_stem \(Conv2dSame\) alone")
@pytest.mark.parametrize("name", NETWORKS)
def test_convert_networks_of_others(name):
    model = NETWORKS[name]()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    shape = model.double().eval()(x).shape
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    replaced = {n for n, m in convolutions.items()
                if type(m) is nn.Conv2d and m.groups == 1 and max(m.kernel_size) > 1}
    assert lc.convert(model, 2) is model and (replaced or name == "tf_")
    modules = dict(model.named_modules())
    assert {n for n, m in modules.items() if isinstance(m, lc.LCBlock)} == replaced
    assert all(modules[n] is m for n, m in convolutions.items() if n not in replaced)
    for module in model.modules():  # of this batch, lest all images have the same output
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()(x)
    y = model.eval()(x)
    assert y.shape == shape and y.isfinite().all() and (y[0] - y[1]).abs().max() > 1e-4
    for same in (lc.fold(model), unfold(model)):
        assert not any(isinstance(m, lc.LCBlock) for m in same.modules())
        assert_close(same(x), y, **EXACT)


@pytest.mark.parametrize("expansion", [1, 3])
def test_convert_can_keep_what_a_trained_model_computes(expansion):
    model = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.Conv2d(5, 4, (1, 5), bias=False))
    model.double()[0].weight.requires_grad_(False)
    x = torch.rand(2, 3, 15, 15, dtype=torch.float64)
    y, weights = model(x), [conv.weight.detach().clone() for conv in model]
    assert_close(lc.convert(model, expansion, keep_function=True)(x), y, **EXACT)
    for block, weight in zip(model, weights):
        assert torch.equal(block.spatial.weight[:len(weight)], weight)
        assert torch.equal(block.weight, weight)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "0.spatial.weight"]


class Renamed(nn.Conv2d):
    """Computes what `nn.Conv2d` computes."""


class Squared(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight.square(), bias)


@pytest.mark.parametrize("normed", [nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_convolutions_with_a_computed_weight(normed):
    conv = normed(nn.Conv2d(3, 4, 3, bias=False))
    parameters = list(conv.parameters())
    with pytest.warns(UserWarning, match="alone"):
        assert lc.convert(nn.Sequential(conv))[0] is conv
    lc.freeze_spatial(conv)
    assert not any(p.requires_grad for p in parameters)


class Held(nn.Module):
    """Calls a convolution twice, and others from lists, tuples, dictionaries and an alias."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.again = nn.ModuleDict({"first": nn.Sequential(self.a, nn.ReLU())})
        self.layers, self.named, self.pair = [self.a], {"b": [self.b]}, (1, {"c": self.c})
        self.__dict__["alias"] = self.d
        self.layers.append(self.layers)  # a list that holds itself
        self.missing = None

    def forward(self, x):
        x = self.named["b"][0](self.layers[0](self.again["first"](x)))
        return self.alias(self.pair[1]["c"](x))


def test_convolutions_that_are_shared_or_in_lists_and_dictionaries_are_followed():
    model, x = lc.convert(Held().double(), 2), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    folded = lc.fold(model)
    for same, kind in ((model, lc.LCBlock), (folded, nn.Conv2d)):
        assert type(same.a) is type(same.alias) is kind and same.alias is same.d
        assert same.again["first"][0] is same.layers[0] is same.a is not same.b
        assert same.pair[1]["c"] is same.c
    assert folded.a is not model.a
    assert_close(folded(x), model(x), **EXACT)


def test_networks_that_keep_activations_are_folded():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.acts, self.list = lc.LCBlock(3, 4, 3, expansion=2), {}, []
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            y = self.conv(x)
            self.acts["nested"] = {"conv": y}
            self.list.append((y, "conv"))
            self.mean = 0.9 * self.mean + y.mean((0, 2, 3))
            return y

    x, network = torch.rand(2, 3, 5, 5), Keeps()
    expected = network(x)
    folded = lc.fold(network)
    assert isinstance(folded.conv, nn.Conv2d)
    for kept in (folded.acts["nested"]["conv"], folded.list[0][0], folded(x)):
        assert torch.allclose(kept, expected, atol=1e-6)


def test_convert_is_idempotent():
    model = lc.convert(Held(), 2)
    modules, parameters = list(model.modules()), list(model.parameters())
    with pytest.warns(UserWarning, match="convert leaves everything alone"):
        lc.convert(model, 8)
    assert list(model.modules()) == modules
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))


def test_spatial_layers_are_frozen_and_their_filters_are_combined():
    model = nn.Sequential(OrderedDict(
        plain=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(8), depthwise=nn.Conv2d(8, 8, 5, groups=8),
        one=nn.Conv2d(8, 4, 1), block=lc.LCBlock(4, 6, 7, expansion=2, bias=True),
        between=lc.LCBlock(6, 5, 3, 1, 3, ("BN", "ReLU")), row=nn.Conv2d(5, 5, (1, 3)),
        up=nn.ConvTranspose2d(5, 2, 2), fc=nn.Linear(2, 2)))
    assert lc.freeze_spatial(model) is model
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        "plain.weight", "depthwise.weight", "block.spatial.weight", "between.spatial.weight",
        "row.weight", "up.weight"}
    filters = lc.combined_filters(model)
    assert [(name, *w.shape) for name, w in filters.items()] == [
        ("plain", 8, 3, 3, 3), ("depthwise", 8, 1, 5, 5), ("block", 6, 4, 7, 7),
        ("between", 15, 6, 3, 3), ("row", 5, 5, 1, 3), ("up", 5, 2, 2, 2)]
    assert not any(w.requires_grad for w in filters.values())
    assert torch.equal(filters["block"], model.block.combined_weight())
    assert torch.equal(filters["plain"], model.plain.weight)
    assert torch.equal(filters["between"], model.between.spatial.weight)


@pytest.mark.parametrize("expansion", [0, 10 ** 9])
def test_an_error_leaves_the_model_as_it_was(expansion):
    model = Held()
    with pytest.raises(ValueError, match="expansion"):
        lc.convert(model, expansion)
    assert not any(isinstance(m, lc.LCBlock) for m in model.modules())


def test_a_weight_that_is_no_longer_shared_is_named():
    model = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3), "up": nn.ConvTranspose2d(4, 4, 3)})
    model["up"].weight = model["conv"].weight
    with pytest.warns(UserWarning, match="up.weight no longer shares the weight of a convolution"):
        lc.convert(model)


class Flat(nn.Module):
    """As timm's CondConv2d: weights of a convolution, of a class and a shape of its own."""

    kernel_size = (3, 3)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 36))


@pytest.mark.parametrize("layer, frozen", [
    (nn.Conv1d(3, 4, 3), False), (nn.Conv3d(3, 4, 3), False), (nn.ConvTranspose2d(3, 4, 3), True),
    (torchvision.ops.DeformConv2d(3, 4, 3), False), (Flat(), False), (Squared(3, 4, 3), True)],
    ids=lambda value: type(value).__name__)
def test_what_is_left_alone_is_named(layer, frozen):
    others = Renamed(3, 4, 3), Squared(4, 4, 1), Squared(4, 4, 3, groups=2)
    for model in (nn.Sequential(layer), nn.Sequential(layer, *others)):
        left = rf"leaves 0 \({type(layer).__name__}\)"
        with pytest.warns(UserWarning, match=f"^convert {left} alone") as caught:
            assert lc.convert(model) is model
        assert model[0] is layer and len(caught) == 1
        converted = [isinstance(m, lc.LCBlock) for m in model]
        assert converted == [False, True, False, False][:len(model)]
        if not frozen:
            with pytest.warns(UserWarning, match=f"^freeze_spatial {left} as it is"):
                lc.freeze_spatial(model)
        else:
            lc.freeze_spatial(model)
        assert layer.weight.requires_grad != frozen
    for function in (lc.convert, lc.freeze_spatial):
        with pytest.warns(UserWarning, match=f"^{function.__name__} leaves everything"):
            function(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(3, 4, 1)))


class Composed(nn.Conv2d):
    """A convolution that has other layers inside, as some detection networks do."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.norm, self.mix = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)


@pytest.mark.parametrize("normed", [lambda layer: layer, nn.utils.parametrizations.weight_norm])
def test_layers_inside_a_convolution_stay_learned(normed):
    layer = normed(Composed(3, 4, 3))
    lc.freeze_spatial(nn.Sequential(layer))
    frozen = {name for name, p in layer.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in layer.named_parameters()
                      if name == "weight" or name.startswith("parametrizations")}
    assert layer.norm.weight.requires_grad and layer.mix.weight.requires_grad and frozen


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_freezing_in_mid_training_ends_all_change(optimizer):
    model = lc.convert(Held(), 2)
    optimizer = optimizer(model.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(4):
        if step == 2:  # gradients of the last step are still there
            before = copy.deepcopy(dict(lc.freeze_spatial(model).named_parameters()))
        model(torch.randn(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        if step != 1:
            optimizer.zero_grad(set_to_none=False)
    unchanged = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert unchanged == {f"{name}.spatial.weight" for name in "abcd"}
    assert model.a.spatial.weight.grad is None
