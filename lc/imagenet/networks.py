"""The ImageNet networks by the paper's names (Section 3, Figure 1b; Section 4.2, Table 2)."""

import re

from ..conversion import convert
from ..utils import check

NETWORKS = {  # the paper's name: timm's
    "ResNet-18": "resnet18",
    "ResNet-18d": "resnet18d",
    "ResNet-50": "resnet50",
    "ResNet-50d": "resnet50d",
    "ResNeXt-50-32x4d": "resnext50_32x4d",
    "Wide-ResNet-50x2": "wide_resnet50_2",
    "MobileNet-v2": "mobilenetv2_100",
    "MobileNet-v3-S": "mobilenetv3_small_100",
    "MobileNet-v3-L": "mobilenetv3_large_100",
}
NOTATION = re.compile(r"(?P<network>.+?)(-LCx(?P<expansion>[1-9]\d{0,4}))?")


def build_imagenet_model(name, num_classes=1000, drop_path=0.0):
    """timm's network of that name, freshly initialised: `[batch, 3, h, w]` to logits.

    With `-LCx{E}`, as in `ResNet-18d-LCx64`, `lc.convert` makes LC-Blocks of its ungrouped spatial
    convolutions. `lc.freeze_spatial` also freezes the others, depthwise and grouped. `drop_path` is
    the rate of stochastic depth at the last block, in [0, 1).

    Raises:
        ValueError: if an argument is unknown or bad.
    """
    import timm  # takes seconds

    network, expansion = parse(name)
    check.integer("num_classes", num_classes)
    check.number("drop_path", drop_path, 0, 1, "[)")
    model = timm.create_model(NETWORKS[network], num_classes=num_classes, drop_path_rate=drop_path)
    return convert(model, expansion) if expansion else model


def parse(name):
    """The network's name without LC-Blocks, and their expansion E, 0 if it has none.

    Raises ValueError if the name is unknown.
    """
    parsed = NOTATION.fullmatch(name) if isinstance(name, str) else None
    if not parsed or parsed["network"] not in NETWORKS:
        raise ValueError(f"unknown ImageNet network {name!r}; known: {', '.join(NETWORKS)}, each "
                         "also with -LCx{E}")
    return parsed["network"], int(parsed["expansion"] or 0)
