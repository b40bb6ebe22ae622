"""The paper's names of its low-resolution networks, and what they say of a network."""

import re
from typing import NamedTuple

from .utils import check

ABLATIONS = "envelope", "correlation", "shuffled", "covariance"  # parts of the last, and the last
KINDS = *ABLATIONS, "gauss"  # of spatial initialisation: see `initial.init_spatial`
# (?(lc)...) matches in the names of LC networks only
NOTATION = re.compile(r"ResNet(?P<lc>-LC)?-(?P<depth>\d+)-(?P<width>\d+)"
                      r"(?(lc)(x(?P<expansion>\d+))?)(-k(?P<kernel>\d+))?"
                      r"(?P<between>(?(lc)(\+(BN|ReLU))*))"
                      fr"(~(?P<initial>{'|'.join(KINDS)}|identity))?")
OFF_THE_SHELF = ("ResNet-14", "ResNet-18", "ResNet-34", "ResNet-50", "ResNet-101",
                 "Wide-ResNet-50x2", "MobileNet-v2")
# their blocks are two spatial convolutions
TWO_SPATIAL = "ResNet-14", "ResNet-18", "ResNet-18d", "ResNet-34"


class Architecture(NamedTuple):
    """The parts of a network's name, for figures to draw against."""

    depth: int  # 0 for an off-the-shelf network
    width: int  # 0 for an off-the-shelf network
    expansion: int  # 0 without LC-Blocks
    kernel_size: int
    between: str = ""  # or for example "+BN+ReLU"
    initial: str = ""  # or a kind of `init_spatial`, or "identity"


def architecture(name):
    """The `Architecture` of a network's name."""
    parsed = NOTATION.fullmatch(name)
    if not parsed:  # off the shelf, or on ImageNet
        return Architecture(0, 0, int(name.partition("-LCx")[2] or 0), 3)
    expansion = int(parsed["expansion"] or 1) if parsed["lc"] else 0
    return Architecture(int(parsed["depth"]), int(parsed["width"]), expansion,
                        int(parsed["kernel"] or 3), parsed["between"], parsed["initial"] or "")


def combines(name):
    """Whether pointwise convolutions follow the spatial ones (above Figure 1's dotted line)."""
    shape = architecture(name)
    return shape.expansion > 0 if shape.depth else name not in TWO_SPATIAL


def canonical_name(name):
    """The spelling of a network's name in the results: `ResNet-LC-8-16-k3` is `ResNet-LC-8-16x1`.

    Raises ValueError if no network has the name.
    """
    check.kind("a model's name", name, str, "text such as 'ResNet-20-16'")
    if name == "ResNet-20":
        return "ResNet-20-16"
    if name in OFF_THE_SHELF:
        return name
    parsed = NOTATION.fullmatch(name)
    if not parsed:
        raise ValueError(f"unknown model {name!r}; known: ResNet-{{D}}-{{W}}, "
                         "ResNet-LC-{D}-{W}x{E} (each with -k{K} for the kernel size and "
                         f"~{' or ~'.join(KINDS)} for the initialisation; LC also with ~identity, "
                         "or with +BN, +ReLU or +BN+ReLU), ResNet-20, "
                         f"{', '.join(OFF_THE_SHELF)}")
    depth, width, expansion, kernel, between, initial = architecture(name)
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"{name}: depth must be 6n + 2 (8, 14, 20, ...), not {depth}")
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"{name}: the kernel size must be odd and at least 3, not {kernel}")
    if width < 1 or parsed["lc"] and expansion < 1:
        raise ValueError(f"{name}: width and expansion must be at least 1")
    if initial == "identity" and (not expansion or between):
        raise ValueError(f"{name}: ~identity is for LC networks without operations between the "
                         "convolutions")
    if max(depth, width, kernel, expansion) > 10 ** 5:
        raise ValueError(f"{name}: no number in a model's name may be above {10 ** 5}")
    network = f"ResNet-LC-{depth}-{width}x{expansion}" if expansion else f"ResNet-{depth}-{width}"
    return "".join([network, f"-k{kernel}" if kernel != 3 else "", between,
                    f"~{initial}" if initial else ""])
