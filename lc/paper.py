"""The paper's published numbers (Gavrikov and Keuper, 2023, arXiv 2301.11360), each with its place.
"""

from typing import NamedTuple

import pandas as pd

SEEDS = 4  # of every mean with a spread, but for Table 3, which does not say its number
PUBLISHED = "the paper"  # the profile of published rows in tables


class Published(NamedTuple):
    """A published mean in percent and its spread over runs."""

    mean: float
    spread: float

    def __str__(self):
        return f"{self.mean:.2f} ± {self.spread:.2f}"


# Table 1: validation accuracy of ResNet-20-16 and ResNet-LC-20-16x128, 4 runs
ROLES_1 = "Plain", "LC, learnable", "LC, frozen random"
TABLE_1 = {
    "cifar10": (Published(91.60, 0.23), Published(91.39, 0.29), Published(91.89, 0.10)),
    "cifar100": (Published(60.84, 0.52), Published(59.44, 0.55), Published(61.31, 0.74)),
    "fashion-mnist": (Published(93.65, 0.18), Published(93.44, 0.18), Published(93.65, 0.06)),
    "svhn": (Published(96.36, 0.04), Published(96.31, 0.08), Published(96.34, 0.11)),
}

# Table 2: networks on ImageNet, frozen or not, one run each: top-1 and top-5 accuracy. The
# learnable network with x128 did not fit into memory.
TABLE_2 = {
    ("ResNet-18d", True): (37.85, 61.37), ("ResNet-18d", False): (72.60, 90.69),
    ("ResNet-18d-LCx1", True): (61.28, 83.11), ("ResNet-18d-LCx1", False): (71.82, 90.44),
    ("ResNet-18d-LCx8", True): (71.30, 90.03), ("ResNet-18d-LCx8", False): (71.88, 90.40),
    ("ResNet-18d-LCx64", True): (72.46, 90.57), ("ResNet-18d-LCx64", False): (71.94, 90.41),
    ("ResNet-18d-LCx128", True): (72.31, 90.64),
}

# Table 3: operations between the convolutions of ResNet-LC-20-16x64, CIFAR-10: (frozen, learnable)
TABLE_3 = {
    "": (Published(91.71, 0.08), Published(91.18, 0.10)),
    "+ReLU": (Published(92.78, 0.31), Published(93.38, 0.15)),
    "+BN": (Published(91.50, 0.15), Published(91.06, 0.23)),
    "+BN+ReLU": (Published(93.26, 0.18), Published(94.72, 0.16)),
}

# Table 4: cumulative GPU hours on NVIDIA A100-SXM4-40GB
TABLE_4 = {
    "Baseline ImageNet": 870.0, "Baseline CIFAR-10": 183.0, "LC CIFAR-10": 787.3,
    "LC CIFAR-100": 2.8, "LC SVHN": 3.9, "LC Fashion-MNIST": 3.0, "LC ImageNet": 869.2,
    "Adversarial evaluation": 1.3, "Ablation": 20.2, "Abandoned experiments": 160.9,
    "Total": 2901.6,
}

# Section 3 and Figure 1a: points that frozen random networks lose on CIFAR-10
CIFAR10_GAP_COMBINED = (1.6, 1.9)  # ResNet-50/101, Wide-ResNet-50x2, MobileNet v2
CIFAR10_GAP_UNCOMBINED = 16.0  # at least; the other networks
# Section 3 and Figure 1b: the same on ImageNet
IMAGENET_GAP = (3.21, 8.19)  # all but ResNet-18
IMAGENET_GAP_RESNET18 = 35.34

# Section 4.1 and Figure 4: the least expansion at which frozen random networks pass ...
PASSES_LEARNABLE_AT = 8  # ... the learnable LC networks
PASSES_BASELINE_AT = 128  # ... the plain network; slightly declining beyond
# Section 4.1: the expansions at which they are more diverse than the plain network, yet less robust
DIVERSE_BUT_LESS_ROBUST_AT = (16, 32)
# Section 4.1 and Figure 6: break-even of frozen random and learnable ResNet-LC at E = 1
BREAK_EVEN_WIDTH = 128
BREAK_EVEN_DEPTH = 260
# Section 4.3: every kernel size breaks even in the end. By which E is our reading: the largest one
# with larger kernels (Figure 10).
BREAKS_EVEN_BY = 128


def table_1():
    """Table 1 with the columns of rows: `row` (a data set), `role`, `accuracy` and its spread."""
    return _rows(TABLE_1, ROLES_1, SEEDS)


def table_3():
    """Table 3 as `table_1`, where a row is what stands between the convolutions, and n is nan."""
    return _rows(TABLE_3, ("Frozen random", "Learnable"), float("nan"))


def _rows(table, roles, seeds):
    rows = [(row, role, *value, seeds, PUBLISHED)
            for row, values in table.items() for role, value in zip(roles, values)]
    return pd.DataFrame(rows, columns=["row", "role", "accuracy", "accuracy_std", "n", "profile"])
