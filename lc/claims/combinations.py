"""Claims 7 to 19: linear combinations on CIFAR-10 (Sections 4.1 and 6, Figures 4 to 6)."""

from functools import partial

from .. import paper, study
from ..effects import Crossing, slope
from .cells import ALL, FROZEN, LC, LEARNABLE, PLAIN, PublishedCells, at, ends
from .verdict import BELOW, RECIPE, Part, at_each, claim

AT = paper.PASSES_BASELINE_AT
HALF_A_STEP = 0.5  # of doublings, the margin of a place on their grid
UNIT = "normalised FVE"
on_figure_4a = partial(claim, notebook="03", where="Section 4.1, Figure 4a", runs=study.figure4)
on_figure_4c = partial(on_figure_4a, where="Section 4.1, Figure 4c")
on_figure_5 = partial(claim, notebook="04", runs=study.figure4)
on_width = partial(claim, notebook="05", where="Section 4.1, Figure 6a", runs=study.figure6a,
                   needs=LC)
on_depth = partial(claim, notebook="06", where="Section 4.1, Figure 6b", runs=study.figure6b,
                   needs=LC)


CIFAR_10 = PublishedCells(dict(zip(zip(ALL, (0, AT, AT)), paper.TABLE_1["cifar10"])))


@on_figure_4a("7", title="learnable LC stays below plain", needs=(PLAIN, LEARNABLE),
              published=CIFAR_10)
def learnable_stays_below_plain(cells):
    """Networks with learnable LC-Blocks stay below the plain network at every E.

    Plain minus learnable LC at each E.
    """
    return at_each("plain minus learnable LC at E", cells.below_plain(LEARNABLE))


@on_figure_4a("8", title="learnable LC gains with E", needs=(LEARNABLE,))
def learnable_gains_with_e(cells):
    """Learnable LC networks come closer to the plain network as E grows.

    The slope of their accuracy per doubling of E. The plain network has no E.
    """
    return [Part("per doubling of E", slope(cells.curve(LEARNABLE)))]


@on_figure_4a("9", title="the gap falls with E", needs=LC)
def gap_falls_with_e(cells):
    """What freezing costs an LC network falls as E grows.

    The slope of learnable minus frozen LC per doubling of E.
    """
    return [Part("per doubling of E", slope(cells.gap()), expected=BELOW)]


@on_figure_4a("10", needs=LC, profiles=RECIPE,
              title=f"frozen passes learnable LC at E = {paper.PASSES_LEARNABLE_AT}")
def frozen_passes_learnable(cells):
    """Frozen random LC networks pass the learnable ones at E = 8.

    The E at which learnable minus frozen LC falls to zero, interpolated against log E. In the
    paper's grid it lies between 4 and 8. A miss by half a doubling still counts, a margin of ours.
    """
    e = paper.PASSES_LEARNABLE_AT
    return [Part("gap closes at", Crossing(cells.gap()), "E", (e / 2, e), HALF_A_STEP)]


@on_figure_4a("11", title=f"frozen passes plain at E = {AT}", needs=(PLAIN, FROZEN),
              profiles=RECIPE, published=CIFAR_10)
def frozen_passes_plain(cells):
    """Frozen random LC networks pass the plain, learnable network at E = 128.

    The E at which plain minus frozen LC falls to zero, interpolated against log E. In the paper's
    grid it lies between 64 and 128. A miss by half a doubling still counts, a margin of ours.
    """
    below = cells.below_plain(FROZEN)
    if cells is CIFAR_10:  # without a grid
        return [Part(f"frozen LC minus plain at E = {AT}", below[AT] * -1)]
    return [Part("gap closes at", Crossing(below), "E", (AT / 2, AT), HALF_A_STEP)]


@on_figure_4a("12", title="a slight decline beyond", needs=LC)
def frozen_declines_beyond(cells):
    """Beyond E = 128 frozen random networks lose a little again, but stay above the learnable LC
    ones.

    Frozen at E = 128 minus frozen at 256, and frozen minus learnable LC at 256.
    """
    frozen, learnable = cells.curve(FROZEN), cells.curve(LEARNABLE)
    return [Part("decline of frozen LC", at(frozen, AT) - at(frozen, 2 * AT)),
            Part(f"frozen minus learnable LC at E = {2 * AT}",
                 at(frozen, 2 * AT) - at(learnable, 2 * AT))]


@on_figure_4c("13a", title="robustness rises with E", needs=(FROZEN,))
def robustness_rises(cells):
    """Robust accuracy of frozen random networks rises with E.

    The slope of frozen LC per doubling of E.
    """
    return [Part("per doubling of E", slope(cells.curve(FROZEN, "robust_accuracy")))]


@on_figure_4c("13b", title="robustness passes learnable LC", needs=LC)
def robustness_passes_learnable(cells):
    """Frozen random networks end more robust than the learnable LC ones.

    Robust accuracy of frozen minus learnable LC at the largest E.
    """
    gap = cells.gap(FROZEN, LEARNABLE, "robust_accuracy")
    return [Part(f"at E = {max(gap)}", gap[max(gap)])]


@on_figure_4c("13c", title="robustness passes plain", needs=(PLAIN, FROZEN))
def robustness_passes_plain(cells):
    """Frozen random networks end more robust than the plain network.

    Robust accuracy of frozen LC at the largest E minus that of the plain network.
    """
    below = cells.below_plain(FROZEN, "robust_accuracy")
    return [Part(f"at E = {max(below)}", below[max(below)] * -1)]


@on_figure_4c("13d", title="robustness has not levelled off", needs=(FROZEN,))
def robustness_has_not_levelled_off(cells):
    """The robust accuracy of frozen random networks has not levelled off at the largest E.

    Its gain in the last step of E.
    """
    (before, second), (last, first) = list(cells.curve(FROZEN, "robust_accuracy").items())[-2:]
    return [Part(f"from E = {before} to {last}", first - second)]


@on_figure_4a("13e", where="Section 6", title="learnable LC is less robust than plain",
              needs=(PLAIN, LEARNABLE))
def learnable_is_less_robust(cells):
    """Learnable pointwise convolutions directly after spatial ones lower the robustness.

    Robust accuracy of plain minus learnable LC at each E.
    """
    below = cells.below_plain(LEARNABLE, "robust_accuracy")
    return at_each("plain minus learnable LC at E", below)


@on_figure_5("14", where="Section 4.1", title="more diverse, yet less robust",
             needs=(PLAIN, FROZEN))
def more_diverse_yet_less_robust(cells):
    """Diversity explains robustness only in part: at E = 16 and 32 frozen random networks are more
    diverse than the plain one and about as accurate, and yet slightly less robust.

    At each of these E that the grid has, frozen minus plain FVE, and plain minus frozen robust
    accuracy. The paper names no layer: that it is the last one is our reading.
    """
    diverse, robust = (cells.below_plain(FROZEN, column)
                       for column in ("fve_last", "robust_accuracy"))
    known = [e for e in paper.DIVERSE_BUT_LESS_ROBUST_AT if e in diverse]
    if not known:
        raise LookupError("no E = 16 or 32")
    return [part for e in known for part in (
        Part(f"frozen minus plain FVE at E = {e}", diverse[e] * -1, "FVE"),
        Part(f"plain minus frozen robust accuracy at E = {e}", robust[e]))]


@on_figure_5("15a", where="Section 4.1, Figure 5a", title="diversity of the first layer", needs=ALL)
def diversity_of_the_first_layer(cells):
    """In the first layer, the diversity of frozen random networks falls with E, to end slightly
    below the plain network and well above the learnable LC ones.

    Of normalised FVE, frozen LC at the smallest E minus at the largest, and at the largest, plain
    minus frozen LC and frozen minus learnable LC.
    """
    fve = "fve_first_normalized"
    (first, last), (_, learnable) = (ends(cells.curve(role, fve)) for role in (FROZEN, LEARNABLE))
    return [Part("fall of frozen LC", first - last, UNIT),
            Part("plain minus frozen LC", cells.plain(fve) - last, UNIT),
            Part("frozen minus learnable LC", last - learnable, UNIT)]


@on_figure_5("15b", where="Section 4.1, Figure 5a", title="E hardly changes learnable LC", needs=LC)
def e_hardly_changes_learnable(cells):
    """In the first layer, the diversity of learnable LC networks is relatively stable as E grows.

    Of normalised FVE, the fall of frozen LC from the smallest to the largest E, minus the fall and
    minus the rise of learnable LC. Stable means that it changes less than frozen LC, a reading of
    ours.
    """
    (first, last), (low, high) = (ends(cells.curve(role, "fve_first_normalized"))
                                  for role in (FROZEN, LEARNABLE))
    frozen, learnable = first - last, low - high
    return [Part("fall of frozen LC minus fall of learnable LC", frozen - learnable, UNIT),
            Part("fall of frozen LC minus rise of learnable LC", frozen + learnable, UNIT)]


@on_figure_5("16", where="Section 4.1, Figure 5b", title="diversity of the last layer", needs=ALL)
def diversity_of_the_last_layer(cells):
    """In the last layer, learnable LC networks are less diverse than the plain one at every E,
    though they gain with E. Frozen random ones lose diversity with E, but stay above both.

    Of normalised FVE, the fall of frozen and the gain of learnable LC from the smallest to the
    largest E, frozen LC at the largest E minus plain, and plain minus learnable LC at each E.
    """
    fve = "fve_last_normalized"
    (frozen, least), (low, high) = (ends(cells.curve(role, fve)) for role in (FROZEN, LEARNABLE))
    return [Part("fall of frozen LC", frozen - least, UNIT),
            Part("gain of learnable LC", high - low, UNIT),
            Part("frozen LC at the largest E minus plain", least - cells.plain(fve), UNIT),
            *at_each("plain minus learnable LC at E", cells.below_plain(LEARNABLE, fve), UNIT)]


@on_figure_4a("17", where="Sections 4.1 and 6", title="freezing regularises", needs=ALL)
def freezing_regularises(cells):
    """Freezing regularises: frozen random networks overfit less than the plain network and than the
    learnable LC ones.

    Accuracy on training images minus that on test images, at the largest E: of the plain, and of
    the learnable LC network, minus that of the frozen one. The paper does not measure it, so how
    is our choice.
    """
    frozen, learnable = (cells.curve(role, "generalisation") for role in (FROZEN, LEARNABLE))
    e = max(frozen)
    return [Part(f"plain minus frozen LC at E = {e}", cells.plain("generalisation") - frozen[e]),
            Part(f"learnable minus frozen LC at E = {e}", at(learnable, e) - frozen[e])]


@on_width("18a", title="the gap falls with width")
def gap_falls_with_width(cells):
    """With width alone, at E = 1, what freezing costs falls.

    The slope of learnable minus frozen LC per doubling of W.
    """
    return [Part("per doubling of the width", slope(cells.gap(x="width")), expected=BELOW)]


@on_width("18b", title=f"it closes near W = {paper.BREAK_EVEN_WIDTH}", profiles=RECIPE)
def gap_closes_in_width(cells):
    """With width alone, at E = 1, frozen random networks break even near W = 128.

    The W at which learnable minus frozen LC falls to zero, interpolated against log W. Near means
    within a factor of two, a margin of ours.
    """
    at = (paper.BREAK_EVEN_WIDTH,) * 2
    return [Part("gap closes at", Crossing(cells.gap(x="width")), "W", at, margin=1.0)]


@on_depth("19a", title="the gap falls with depth")
def gap_falls_with_depth(cells):
    """With depth alone, at E = 1, what freezing costs falls.

    The slope of learnable minus frozen LC per doubling of D.
    """
    return [Part("per doubling of the depth", slope(cells.gap(x="depth")), expected=BELOW)]


@on_depth("19b", title=f"it closes near D = {paper.BREAK_EVEN_DEPTH}", profiles=RECIPE)
def gap_closes_in_depth(cells):
    """With depth alone, at E = 1, frozen random networks break even near D = 260.

    The D at which learnable minus frozen LC falls to zero, interpolated against log D. Near means
    within a factor of two, a margin of ours.
    """
    at = (paper.BREAK_EVEN_DEPTH,) * 2
    return [Part("gap closes at", Crossing(cells.gap(x="depth")), "D", at, margin=1.0)]
