"""The ImageNet networks by the paper's names (Section 3, Figure 1b; Section 4.2, Table 2)."""

import re

from ..utils import check
from ..blocks import convert

# the paper's name: timm's. Left of Figure 1b's divider come those without pointwise convolutions after spatial ones.
UNCOMBINED = {"ResNet-18": "resnet18", "ResNet-18d": "resnet18d"}
NETWORKS = UNCOMBINED | {
    "ResNet-50": "resnet50", "ResNet-50d": "resnet50d", "ResNeXt-50-32x4d": "resnext50_32x4d",
    "Wide-ResNet-50x2": "wide_resnet50_2", "MobileNet-v2": "mobilenetv2_100",
    "MobileNet-v3-S": "mobilenetv3_small_100", "MobileNet-v3-L": "mobilenetv3_large_100",
}
NOTATION = re.compile(r"(?P<network>.+?)(-LCx(?P<expansion>[1-9]\d{0,4}))?")


def build_model(name, num_classes=1000, drop_path=0.0):
    """A network for photographs, freshly initialised; input `[batch, 3, height, width]`, output logits.

    timm's network of that name, without pretrained weights; after `-LCx{E}`, such as `ResNet-18d-LCx64`, every ungrouped spatial
    convolution is an LC-Block with expansion E (`lc.convert`), initialised as PyTorch does by default. Depthwise and grouped
    convolutions stay; `lc.freeze_spatial` freezes them, too.

    Args:
        drop_path: rate of stochastic depth at the last block.

    Raises:
        ValueError: for an unknown name, listing what is known, less than one class, or a rate outside [0, 1).
    """
    import timm  # here, since it takes seconds

    name = canonical_name(name)
    check.integer("num_classes", num_classes)
    check.number("drop_path", drop_path, 0, 1, "[)")
    parsed = NOTATION.fullmatch(name)
    model = timm.create_model(NETWORKS[parsed["network"]], num_classes=num_classes, drop_path_rate=drop_path)
    return convert(model, int(parsed["expansion"])) if parsed["expansion"] else model


def canonical_name(name):
    """The name, if `build_model` knows it.

    Raises:
        ValueError: if it does not.
    """
    parsed = NOTATION.fullmatch(name) if isinstance(name, str) else None
    if not parsed or parsed["network"] not in NETWORKS:
        raise ValueError(f"unknown ImageNet network {name!r}; known: {', '.join(NETWORKS)}, each also with -LCx{{E}}")
    return name


def expansion(name):
    """E of a network's canonical name, 0 without LC-Blocks."""
    return int(NOTATION.fullmatch(name)["expansion"] or 0)


def combines(name):
    """Whether pointwise convolutions follow the spatial ones: right of the divider in Figure 1b."""
    return name not in UNCOMBINED


def plain_name(name):
    """The name of the network without LC-Blocks."""
    return NOTATION.fullmatch(name)["network"]
