"""The paper's networks: their size, depth and shapes, counted by formula, and their names."""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers import counts
from torch import nn

import lc
from lc import imagenet
from lc.blocks import is_spatial
from lc.names import canonical_name, combines


def on_meta(name, **options):
    """A network whose shapes alone count: it has no values, and so costs no time."""
    with torch.device("meta"):
        return lc.build_model(name, **options)


def formula(depth, width, expansion=None, kernel=3, classes=10, channels=3, norm=False):
    """The same of a CIFAR-ResNet, by arithmetic; `expansion=None` is the plain network."""
    blocks = (depth - 2) // 6
    convolutions = [(channels, width)] + [(width, width)] * 2 * blocks
    for w in (2 * width, 4 * width):
        convolutions += [(w // 2, w)] + [(w, w)] * (2 * blocks - 1)
    spatial = sum(i * o * (expansion or 1) for i, o in convolutions) * kernel ** 2
    pointwise = sum(o * expansion * o for _, o in convolutions) if expansion else 0
    between = sum(2 * o * expansion for _, o in convolutions) if norm else 0
    batch_norm = 2 * sum(o for _, o in convolutions)
    shortcuts = sum(w // 2 * w + 2 * w for w in (2 * width, 4 * width))
    learned = pointwise + between + batch_norm + shortcuts + 4 * width * classes + classes
    return spatial + learned, learned


RESNET = ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"]
# all parameters, which are those that torchvision publishes less what a stem and classes take, and
# those that are learned when the network is frozen random
OFF_THE_SHELF = {
    "ResNet-14": (2_777_674, 48_010), "ResNet-18": (11_173_962, 186_762),
    "ResNet-34": (21_282_122, 194_186), "ResNet-50": (23_520_842, 12_201_866),
    "ResNet-101": (42_512_970, 21_166_986), "Wide-ResNet-50x2": (66_847_050, 21_576_330),
    "MobileNet-v2": (2_236_682, 2_171_594)}


def test_classes_and_channels():
    network = lc.freeze_spatial(on_meta("ResNet-8-4", num_classes=100, in_channels=1))
    assert counts(network) == formula(8, 4, classes=100, channels=1)


@pytest.mark.parametrize("name, expected", [
    ("ResNet-20-64", formula(20, 64)),
    ("ResNet-20", (272_474, 272_474 - 267_696)),  # He et al. (2016) give 0.27M
    ("ResNet-20-16-k9", formula(20, 16, kernel=9)),
    ("ResNet-LC-20-16x128", formula(20, 16, 128)), ("ResNet-LC-260-16x1", formula(260, 16, 1)),
    ("ResNet-LC-20-16x8-k7", formula(20, 16, 8, kernel=7)),
    ("ResNet-LC-20-16x64+ReLU", formula(20, 16, 64)),
    ("ResNet-LC-20-16x64+BN+ReLU", formula(20, 16, 64, norm=True)), *OFF_THE_SHELF.items(),
])
def test_parameters(name, expected):
    """All, and those that are learned when the network is frozen random."""
    assert counts(lc.freeze_spatial(on_meta(name))) == expected


def shapes(model, layers):
    """Output `(channels, height)` of each layer, for grey images of 32x32 pixels, and of all."""
    seen = []
    for name in layers:
        model.get_submodule(name).register_forward_hook(
            lambda module, x, y: seen.append((y.shape[1], y.shape[2])))
    logits = model.eval()(torch.empty(2, 1, 32, 32, device="meta"))
    return [*seen, logits.shape]


@pytest.mark.parametrize("name, kernel, between", [
    ("ResNet-20-16", 3, []), ("ResNet-LC-20-16x2-k7", 7, []),
    ("ResNet-LC-20-16x2+BN+ReLU", 3, [nn.BatchNorm2d, nn.ReLU])])
def test_cifar_resnet_shapes(name, kernel, between):
    model = on_meta(name, num_classes=7, in_channels=1)
    layers = ["conv1", *(f"blocks.{i}" for i in range(9))]
    assert shapes(model, layers) == [(16, 32)] * 4 + [(32, 16)] * 3 + [(64, 8)] * 3 + [(2, 7)]
    strides = [2 if b in (3, 6) and c == 1 else 1 for b in range(9) for c in (1, 2)]
    spatial = [m for m in model.modules() if is_spatial(m)]
    assert [m.stride for m in spatial] == [(s, s) for s in [1, *strides]]
    for block in (m for m in model.modules() if isinstance(m, lc.LCBlock)):
        assert [type(m) for m in block.between] == between
    for m in spatial:
        assert (m.kernel_size, m.padding) == ((kernel, kernel), (kernel // 2, kernel // 2))
        assert m.bias is None
    plain = [isinstance(block.shortcut, nn.Identity) for block in model.blocks]
    assert [i for i, identity in enumerate(plain) if not identity] == [3, 6]


@pytest.mark.parametrize("name", ["ResNet-14-8", "ResNet-LC-14-8x2"])
def test_cifar_resnet_forward_written_out(name):
    model = lc.build_model(name).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    y = torch.relu(model.bn1(model.conv1(x)))
    for block in model.blocks:
        residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(y)))))
        if isinstance(block.shortcut, nn.Sequential):
            _, conv, norm = block.shortcut
            y = norm(F.conv2d(y, conv.weight, stride=2))
        y = torch.relu(residual + y)
    pooled = torch.stack([channel.mean() for image in y for channel in image]).view(4, 32)
    expected = pooled @ model.fc.weight.T + model.fc.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["ResNet-LC-8-1x2", "ResNet-8-4"])
def test_networks_narrower_than_a_vector_register_train(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # with one, nothing goes wrong
    model = lc.build_model(name).train()
    for _ in range(4):
        x = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        model(x).logsumexp(1).sum().backward()
    torch.set_num_threads(threads)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name, layers, expected", [
    ("ResNet-14", RESNET[:-1], [(64, 32), (64, 16), (64, 16), (128, 8), (256, 4)]),
    ("ResNet-18", RESNET, [(64, 32), (64, 16), (64, 16), (128, 8), (256, 4), (512, 2)]),
    ("ResNet-50", RESNET, [(64, 32), (64, 16), (256, 16), (512, 8), (1024, 4), (2048, 2)]),
    ("MobileNet-v2", [f"features.{i}" for i in (0, 1, 3, 6, 10, 13, 16, 17, 18)],
     [(32, 32), (16, 32), (24, 32), (32, 16), (64, 8), (96, 8), (160, 4), (320, 4), (1280, 4)]),
])
def test_off_the_shelf_shapes(name, layers, expected):
    model = on_meta(name, num_classes=100, in_channels=1)
    assert shapes(model, layers) == [*expected, (2, 100)]


def test_mobilenet_has_torchvisions_initialisation():
    deviation = lc.build_model("MobileNet-v2").features[0][0].weight.std().item()
    assert deviation == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["ResNet-14", "ResNet-20"])
def test_resnets_have_default_initialisation(name):
    for module in lc.build_model(name).modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight.detach()
            bound = weight[0].numel() ** -0.5
            assert 0.95 * bound < weight.abs().max() <= bound  # torchvision's own has no bound
            assert weight.var().item() == pytest.approx(bound ** 2 / 3, rel=0.15)
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()


@pytest.mark.parametrize("name, canonical", [
    ("ResNet-20", "ResNet-20-16"), ("ResNet-20-16-k3", "ResNet-20-16"),
    ("ResNet-LC-20-16", "ResNet-LC-20-16x1"), ("ResNet-LC-20-16-k3", "ResNet-LC-20-16x1"),
    ("ResNet-LC-8-16-k3+BN~gauss", "ResNet-LC-8-16x1+BN~gauss"),
    ("ResNet-LC-8-16~identity", "ResNet-LC-8-16x1~identity"),
    *((name, name) for name in ("ResNet-LC-20-16x64-k5+BN+ReLU", "ResNet-8-16-k9~covariance",
                                *OFF_THE_SHELF)),
])
def test_canonical_name(name, canonical):
    assert canonical_name(name) == canonical == canonical_name(canonical)


@pytest.mark.parametrize("name", [
    "resnet-18", "", "ResNet-LC-18", "ResNet-20-16x4", "ResNet-20-16+BN", "ResNet-LC-20-16x4+GELU",
    "ResNet-LC-20-16x4+BN-k9", "ResNet-LC-20-16x4 ", "ResNet-LC-20-16x1.5", "ResNet-20-16~",
    "ResNet-18~gauss",
])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ValueError, match=re.escape(repr(name))) as error:
        lc.build_model(name)
    for known in ("ResNet-{D}-{W}", "ResNet-LC-{D}-{W}x{E}", "-k{K}", "+BN+ReLU", "~gauss",
                  "ResNet-20", *OFF_THE_SHELF):
        assert known in str(error.value)


@pytest.mark.parametrize("name, message", [
    ("ResNet-LC-20-16x0", "expansion must be at least 1"), ("ResNet-20-0", "width.*at least 1"),
    ("ResNet-LC-20-16x2-k4", "kernel size must be odd.*not 4"),
    ("ResNet-20-16-k1", "kernel size.*at least 3, not 1"), ("ResNet-18-16", r"6n \+ 2.*not 18"),
    ("ResNet-LC-2-16x2", r"6n \+ 2.*not 2"), ("ResNet-20-16~identity", "~identity is for LC"),
    ("ResNet-LC-20-16x2+BN~identity", "~identity is for LC networks"),
])
def test_names_that_describe_no_network(name, message):
    with pytest.raises(ValueError, match=message):
        lc.build_model(name)


def test_a_twin_starts_as_the_same_function_as_the_plain_network():
    torch.manual_seed(0)
    plain = lc.build_model("ResNet-8-8-k5")
    torch.manual_seed(0)
    twin = lc.build_model("ResNet-LC-8-8x3-k5~identity")
    assert counts(twin) == counts(on_meta("ResNet-LC-8-8x3-k5"))
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(twin(images), plain(images), rtol=0, atol=1e-6)


def test_the_divider_of_figure_1():
    names = {"ResNet-20-16", "ResNet-LC-20-16x1", *OFF_THE_SHELF, *imagenet.networks.NETWORKS}
    assert {name for name in names if not combines(name)} == {
        "ResNet-20-16", "ResNet-14", "ResNet-18", "ResNet-18d", "ResNet-34"}
    assert combines("ResNet-18d-LCx8")
