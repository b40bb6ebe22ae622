"""Claims 1 to 6: off-the-shelf networks (Section 3, Figure 1)."""

from functools import partial
from itertools import permutations

from .. import paper, study
from ..effects import average
from ..names import combines
from .cells import PLAIN, PLAIN_FROZEN, at
from .verdict import MARGIN, RECIPE, Part, claim

BOTH = PLAIN, PLAIN_FROZEN
# Section 3 calls the learned networks "approximately similar". It prints no accuracies, so the
# margin is ours: less than a third of the smallest loss that it calls heavy.
SIMILAR = 5.0  # points
DEEPER, WIDER, STEM = (("ResNet-18", "ResNet-34"), ("ResNet-50", "Wide-ResNet-50x2"),
                       ("ResNet-50", "ResNet-50d"))
on_cifar = partial(claim, notebook="01", where="Section 3, Figure 1a", runs=study.figure1a)
on_imagenet = partial(claim, notebook="02", where="Section 3, Figure 1b", runs=study.figure1b,
                      needs=BOTH)


def losses(cells):
    """What freezing costs each network."""
    return cells.gap(PLAIN, PLAIN_FROZEN, x="model")


@on_cifar("1", title="combining networks lose little", needs=BOTH, profiles=RECIPE)
def combining_networks_lose_little(cells):
    """On CIFAR-10, networks with pointwise convolutions after the spatial ones lose 1.6 to 1.9
    points if their spatial filters stay random.

    Learnable minus frozen, mean over these networks. A miss by half a point still counts, a margin
    of ours.
    """
    mean = average(loss for name, loss in losses(cells).items() if combines(name))
    return [Part("mean loss", mean, expected=paper.CIFAR10_GAP_COMBINED, margin=MARGIN)]


@on_cifar("2", title="the other networks lose much", needs=BOTH, profiles=RECIPE)
def other_networks_lose_much(cells):
    """On CIFAR-10, all other networks lose at least 16 points.

    Learnable minus frozen, of each network.
    """
    expected = paper.CIFAR10_GAP_UNCOMBINED, float("inf")
    return [Part(f"loss of {name}", loss, expected=expected)
            for name, loss in losses(cells).items() if not combines(name)]


@on_cifar("3", title="learned, all networks are alike", needs=(PLAIN,))
def learned_networks_are_alike(cells):
    """If everything is learned, all these networks are about as accurate as each other.

    The differences between every two learnable networks. They are alike if all are below 5 points,
    a margin of ours: the paper prints the accuracy of ResNet-20 alone (Table 1).
    """
    networks, expected = cells.curve(PLAIN, x="model"), (float("-inf"), SIMILAR)
    return [Part(f"{a} minus {b}", networks[a] - networks[b], expected=expected)
            for a, b in permutations(networks, 2)]


@on_imagenet("4", title="ImageNet: most networks lose little", profiles=RECIPE)
def most_imagenet_networks_lose_little(cells):
    """On ImageNet, all networks but ResNet-18 lose only 3.21 to 8.19 points.

    Learnable minus frozen, of each of these networks. A miss by half a point still counts, a margin
    of ours.
    """
    return [Part(f"loss of {name}", loss, expected=paper.IMAGENET_GAP, margin=MARGIN)
            for name, loss in losses(cells).items() if combines(name)]


@on_imagenet("5", title="ImageNet: ResNet-18 loses most", profiles=RECIPE)
def resnet18_loses_most_on_imagenet(cells):
    """On ImageNet, ResNet-18 is the exception: it loses far more than any other network.

    The loss of ResNet-18 minus that of each other network.
    """
    loss = losses(cells)
    return [Part(f"loss of ResNet-18 minus that of {name}", at(loss, "ResNet-18", "") - other)
            for name, other in loss.items() if name != "ResNet-18"]


@claim("6", "02", "Section 3, Figure 1", "depth, width and a small stem help", needs=BOTH,
       profiles=RECIPE,
       runs=lambda profile: (study.figure1a(profile, DEEPER)
                             + study.figure1b(profile, [*WIDER, "ResNet-50d"])))
def depth_width_and_a_small_stem_help(cells):
    """Freezing costs less in deeper networks (ResNet-34 against 18), in wider ones
    (Wide-ResNet-50x2 against ResNet-50) and with smaller kernels in the stem (ResNet-50d against
    50).

    Loss before minus loss after each change: of depth on CIFAR-10, of the others on ImageNet.
    """
    loss = losses(cells)
    return [Part(f"{before} minus {after}", at(loss, before, "") - at(loss, after, ""))
            for before, after in (DEEPER, WIDER, STEM)]
