"""The paper's 32 empirical claims as data, and the verdicts of this project's rows on them (notebook 15).

Each claim states its statistic and what the paper expects of it before any number is seen. The verdicts are computed from
`results/` at every call. Rows of different profiles are never averaged: a claim takes the largest profile that has its runs.
"""

from functools import partial

import numpy as np
import pandas as pd

from .. import models, paper, study
from ..analysis import crossing
from . import effects
from .effects import (FROZEN, LEAD, LEARNABLE, LOSS, PLAIN, PLAIN_LOSS, apart, average, by_kernel, curve, each, first_below, gap,
                      losses, mean, more, slope, with_centre)
from .verdict import BELOW, Claim, judged

SECTION_3, LC, ALL = PLAIN_LOSS, LOSS, (PLAIN, LEARNABLE, FROZEN)  # the roles that a claim needs
FIRST, LAST = (FROZEN, min), (FROZEN, max)  # frozen networks of the smallest and the largest E
RECIPE, NETWORKS = ("paper",), ("paper", "short")  # the profiles with the paper's recipe; with its networks and all images


def verdicts(notebook=None):
    """The verdict on every claim, or on the claims of one notebook.

    Returns:
        A DataFrame with a row for each claim: `number, where, title, claim, statistic, effect` (text), `value, low, high, n,
        profile, verdict`, and `scaled, scaled_low, scaled_high`: how far the effect and the ends of its interval lie on the
        claim's side of its bound, in units of half the interval's width.

    Raises:
        ValueError: if no claim belongs to the notebook.
        lc.ResultsError: if the results are damaged.
    """
    claims = [claim for claim in CLAIMS if notebook in (None, claim.notebook)]
    if not claims:
        known = sorted({claim.notebook for claim in CLAIMS})
        raise ValueError(f"no claim belongs to notebook {notebook!r}; those with claims: {', '.join(known)}")
    return pd.DataFrame([judged(claim) for claim in claims])


def report(notebook):
    """Prints three lines for each claim of a notebook: the claim, its statistic, the verdict. Raises as `verdicts`."""
    for _, row in verdicts(notebook).iterrows():
        print(f"Claim {row['number']} ({row['where']}): {row['claim']}")
        print(f"Statistic: {row['statistic']}")
        source = f"profile {row['profile']}, n = {row['n']}, " if row["n"] else ""
        print(f"Verdict: {source}{row['effect']}: {row['verdict']}.")


def _about(at, factor=2 ** 0.5):
    return at / factor, at * factor


AT = paper.PASSES_BASELINE_AT
DEEPER, WIDER, STEM = ("ResNet-18", "ResNet-34"), ("ResNet-50", "Wide-ResNet-50x2"), ("ResNet-50", "ResNet-50d")
CLAIMS = (
    Claim(1, "01", "Section 3, Figure 1a", "combining networks lose little",
          "On CIFAR-10, networks with pointwise convolutions after the spatial ones lose {} to {} points if their spatial "
          "filters stay random.".format(*paper.CIFAR10_GAP_COMBINED),
          "learnable minus frozen, mean over these networks, paired by seed", study.figure1a, SECTION_3,
          lambda rows: [mean(average(losses(rows, models.combines)))], "points", paper.CIFAR10_GAP_COMBINED, RECIPE),
    Claim(2, "01", "Section 3, Figure 1a", "the other networks lose much",
          f"On CIFAR-10, all other networks lose at least {paper.CIFAR10_GAP_UNCOMBINED:g} points.",
          "learnable minus frozen, paired by seed, of the network that loses least", study.figure1a, SECTION_3,
          lambda rows: [mean(loss) for loss in losses(rows, lambda name: not models.combines(name))],
          "points", (paper.CIFAR10_GAP_UNCOMBINED, np.inf), RECIPE),
    Claim(3, "01", "Section 3, Figure 1a", "learned, all networks are alike",
          "If everything is learned, all these networks are about as accurate as each other.",
          "best minus worst network among the frozen ones, minus the same among the learnable ones, paired by seed",
          study.figure1a, SECTION_3, effects.spread_when_frozen),
    Claim(4, "02", "Section 3, Figure 1b", "ImageNet: most networks lose little",
          "On ImageNet, all networks but ResNet-18 lose only {} to {} points.".format(*paper.IMAGENET_GAP),
          "learnable minus frozen, mean over these networks, paired by seed", study.figure1b, SECTION_3,
          lambda rows: [mean(average(losses(rows, "ResNet-18".__ne__)))], "points", paper.IMAGENET_GAP, RECIPE),
    Claim(5, "02", "Section 3, Figure 1b", "ImageNet: ResNet-18 loses most",
          f"On ImageNet, ResNet-18 is the exception: it loses {paper.IMAGENET_GAP_RESNET18} points.",
          "the loss of ResNet-18 minus the largest loss of another network, Welch's interval", study.figure1b, SECTION_3,
          lambda rows: [apart(gap(rows, PLAIN_LOSS, x="model")["ResNet-18"], loss) for loss in losses(rows, "ResNet-18".__ne__)]),
    Claim(6, "02", "Section 3, Figure 1", "depth, width and a small stem help",
          "Freezing costs less in deeper networks (ResNet-34 against 18), in wider ones (Wide-ResNet-50x2 against ResNet-50) and "
          "with smaller kernels in the stem (ResNet-50d against 50).",
          "loss before minus loss after each change (depth on CIFAR-10, others on ImageNet), the smallest, Welch's interval",
          lambda profile: study.figure1a(profile, DEEPER) + study.figure1b(profile, [*WIDER, "ResNet-50d"]), SECTION_3,
          lambda rows: [apart(*map(gap(rows, PLAIN_LOSS, x="model").__getitem__, change)) for change in (DEEPER, WIDER, STEM)]),
    Claim(7, "03", "Section 4.1, Figure 4a", "learnable LC stays below plain",
          "Networks with learnable LC-Blocks stay below the plain network at every E.",
          "plain minus learnable LC, the smallest difference over all E, Welch's interval", study.figure4, (PLAIN, LEARNABLE),
          lambda rows: more(rows, (PLAIN, LEARNABLE))),
    Claim(8, "03", "Section 4.1, Figure 4a", "learnable LC gains with E",
          "Learnable LC networks come closer to the plain network as E grows.",
          "slope of their accuracy per doubling of E (the plain network has no E), bootstrapped over seeds",
          study.figure4, (LEARNABLE,), lambda rows: [slope(curve(rows, LEARNABLE))]),
    Claim(9, "03", "Section 4.1, Figure 4a", "the gap falls with E", "What freezing costs an LC network falls as E grows.",
          "slope of learnable minus frozen LC per doubling of E, bootstrapped over seeds",
          study.figure4, LC, lambda rows: [slope(gap(rows))], "points", BELOW),
    Claim(10, "03", "Section 4.1, Figure 4a", f"frozen passes learnable LC at E = {paper.PASSES_LEARNABLE_AT}",
          f"Frozen random LC networks pass the learnable ones at E = {paper.PASSES_LEARNABLE_AT}.",
          "the first E at which learnable minus frozen LC, paired by seed, lies below zero",
          study.figure4, LC,
          lambda rows: [first_below(each(mean, gap(rows)))], "E", _about(paper.PASSES_LEARNABLE_AT), NETWORKS),
    Claim(11, "03", "Section 4.1, Figure 4a", f"frozen passes plain at E = {AT}",
          f"Frozen random LC networks pass the plain, learnable network at E = {AT}.",
          "the first E at which plain minus frozen LC, Welch's interval, lies below zero", study.figure4, (PLAIN, FROZEN),
          lambda rows: [first_below(each(partial(apart, curve(rows, PLAIN)[0]), curve(rows, FROZEN)))],
          "E", _about(AT), NETWORKS),
    Claim(12, "03", "Section 4.1, Figure 4a", "a slight decline beyond",
          f"Beyond E = {AT} frozen random networks lose a little again, but stay above the learnable LC ones.",
          "at the next E: loss of frozen against the E before (Welch), and lead over learnable (paired by seed), the smaller",
          study.figure4, LC, lambda rows: [*more(rows, ((FROZEN, AT), (FROZEN, 2 * AT))), mean(gap(rows, LEAD)[2 * AT])]),
    Claim(13, "03", "Section 4.1, Figure 4c", "robustness rises and passes both",
          "Robust accuracy of frozen networks rises with E, passes learnable LC and plain networks, and does not saturate.",
          "the smallest of the slope per doubling of E, the gain in the last step of E, and, at the largest E, the leads over "
          "the plain (Welch) and the learnable LC network (paired by seed)", study.figure4, ALL, effects.robust_rise),
    Claim(14, "04", "Section 4.1", "more diverse, yet less robust",
          "Diversity explains robustness only in part: at E = {} and {} frozen random networks are more "
          "diverse than the plain one and yet less robust.".format(*paper.DIVERSE_BUT_LESS_ROBUST_AT),
          "at each of these E, frozen minus plain FVE of the last layer and plain minus frozen robust accuracy, each divided by "
          "half the width of its Welch interval, the smallest", study.figure4, (PLAIN, FROZEN),
          effects.diverse_but_less_robust, "half-widths"),
    Claim(15, "04", "Section 4.1, Figure 5a", "diversity of the first layer",
          "In the first layer, the diversity of frozen random networks falls with E, to end slightly below the plain network and "
          "well above the learnable LC ones.",
          "of normalised FVE, frozen at the smallest E minus at the largest, and at the largest plain minus frozen (Welch) and "
          "frozen minus learnable LC (paired by seed), the smallest", study.figure4, ALL,
          lambda rows: [*more(rows, (FIRST, LAST), (PLAIN, LAST), column="fve_first_normalized"),
                        mean((lead := gap(rows, LEAD, "fve_first_normalized"))[max(lead)])], "FVE"),
    Claim(16, "04", "Section 4.1, Figure 5b", "diversity of the last layer",
          "In the last layer, learnable LC networks are less diverse than the plain one at every E, though they gain with E. "
          "Frozen random ones lose diversity with E, but stay above both.",
          "of normalised FVE, the fall of frozen and the gain of learnable LC from the smallest to the largest E, frozen at the "
          "largest E minus plain, and plain minus learnable LC at each E, the smallest, Welch's interval",
          study.figure4, ALL, lambda rows: more(rows, (FIRST, LAST), (LAST, PLAIN), ((LEARNABLE, max), (LEARNABLE, min)),
                                                (PLAIN, LEARNABLE), column="fve_last_normalized"), "FVE"),
    Claim(17, "03", "Section 4.1", "freezing regularises",
          "Freezing regularises: frozen random networks overfit less than the plain one.",
          "training minus test accuracy, of the plain minus of the frozen LC network with the largest E, Welch's interval",
          study.figure4, (PLAIN, FROZEN), lambda rows: more(rows, (PLAIN, LAST), column="generalisation")),
    Claim(18, "05", "Section 4.1, Figure 6a", "break-even in width",
          f"With width alone, at E = 1, frozen random networks break even near W = {paper.BREAK_EVEN_WIDTH}.",
          "the W at which learnable minus frozen, paired by seed, reaches zero, interpolated against log W", study.figure6a, LC,
          lambda rows: [crossing(each(mean, gap(rows, x="width")))], "W", _about(paper.BREAK_EVEN_WIDTH, 2), NETWORKS),
    Claim(19, "06", "Section 4.1, Figure 6b", "break-even in depth",
          f"With depth alone, at E = 1, frozen random networks break even near D = {paper.BREAK_EVEN_DEPTH}.",
          "the D at which learnable minus frozen, paired by seed, reaches zero, interpolated against log D", study.figure6b, LC,
          lambda rows: [crossing(each(mean, gap(rows, x="depth")))], "D", _about(paper.BREAK_EVEN_DEPTH, 2), NETWORKS),
    Claim(20, "07", "Section 4.2, Table 1", "the order on other data sets",
          "On several data sets, frozen random LC networks match or pass the plain network, and learnable ones are below it.",
          "frozen LC minus plain and plain minus learnable LC, each as the mean over the data sets, within a seed, the smaller",
          study.table1, ALL, effects.order_of_table_1),
    Claim(21, "08", "Section 4.2, Table 2", "ImageNet: frozen LC gains with E",
          "On ImageNet, too, frozen random LC networks gain with E, and pass the learnable ones.",
          "slope per doubling of E, and lead over learnable LC at the largest E that both have, paired by seed, the smaller",
          study.table2, LC, lambda rows: [slope(curve(rows, FROZEN)), mean((lead := gap(rows, LEAD))[max(lead)])]),
    Claim(22, "08", "Section 4.2, Table 2", "ImageNet: plain is not passed",
          "On ImageNet, frozen random LC networks do not pass the plain, learnable network at any E.",
          "plain minus frozen LC, the smallest difference over all E, Welch's interval", study.table2, (PLAIN, FROZEN),
          lambda rows: more(rows, (PLAIN, FROZEN))),
    Claim(23, "09", "Section 4.3, Figure 8a", "the gap grows with kernel size",
          "Freezing costs more accuracy the larger the kernels are.",
          "slope of learnable minus frozen LC, mean over E, per pixel of kernel size, bootstrapped over seeds",
          study.figure8, LC, lambda rows: [slope(by_kernel(rows, LOSS), log=False)]),
    Claim(24, "09", "Section 4.3, Figure 8a", "the gap falls with E for every kernel size",
          "What freezing costs falls as E grows, for every kernel size.",
          "slope of frozen minus learnable LC per doubling of E, bootstrapped over seeds, the smallest over kernel sizes",
          study.figure8, LC, lambda rows: [slope(gap(part, LEAD)) for _, part in rows.groupby("kernel_size")]),
    Claim(25, "11", "Section 4.3, Figure 8b", "learned filters vary at their centre",
          "Learned filters vary most at their centre, the more so the larger they are. Frozen random ones vary alike everywhere.",
          "log10 of the variance at the centre over that at the border, learnable minus frozen LC, mean over E, within a seed: "
          "its slope per pixel of kernel size and its value for the largest kernels, the smaller", study.figure8, LC,
          lambda rows: [slope(more_at := by_kernel(with_centre(rows, "variance_map"), LOSS, "centre"), log=False),
                        mean(more_at[max(more_at)])], "log10"),
    Claim(26, "12", "Appendix D, Figure 11", "first layer's diversity by kernel size",
          "In the first layer, frozen random networks lose diversity with E for every kernel size, and their lead over learnable "
          "ones grows with it.",
          "of FVE, the slope of frozen minus learnable LC, mean over E, per pixel of kernel size, and the fall of frozen from "
          "the smallest to the largest E for each kernel size, the smallest", study.figure8, LC,
          lambda rows: [slope(by_kernel(rows, LEAD, "fve_first"), log=False),
                        *(fall for _, part in rows.groupby("kernel_size")
                          for fall in more(part, (FIRST, LAST), column="fve_first"))], "FVE"),
    Claim(27, "12", "Appendix D, Figure 12", "last layer's diversity by kernel size",
          "In the last layer, the lead of frozen random networks in diversity grows with kernel size, and learnable ones "
          "collapse for kernels larger than 3x3.",
          "of FVE, the slope of frozen minus learnable LC, mean over E, per pixel of kernel size, and learnable LC with 3x3 "
          "kernels minus each larger size, the smallest", study.figure8, LC,
          lambda rows: [slope(by_kernel(rows, LEAD, "fve_last"), log=False), *effects.collapse_of_large_kernels(rows)], "FVE"),
    Claim(28, "10", "Section 4.3, Figure 7", "frozen filters are never as sharp",
          "Combined filters of frozen random networks never reach the sharpness of large learned filters.",
          "log10 of the mean square at the centre over that at the border of the first layer's largest kernels, plain minus "
          "frozen LC, the smallest difference over all E, Welch's interval", study.figure8, (PLAIN, FROZEN),
          lambda rows: more(with_centre(rows[rows["kernel_size"] == rows["kernel_size"].max()], "first"), (PLAIN, FROZEN),
                            column="centre"), "log10"),
    Claim(29, "13", "Appendix C, Table 3", "BatchNorm alone lowers the accuracy",
          "BatchNorm alone between the two convolutions lowers the accuracy, frozen or learnable.",
          "nothing minus BatchNorm, the smaller of frozen and learnable LC, Welch's interval", study.table3, LC,
          lambda rows: more(rows, *(((role, ""), (role, "+BN")) for role in LC), x="between")),
    Claim(30, "13", "Appendix C, Table 3", "ReLU turns the order",
          "ReLU raises the accuracy of both, and learnable LC networks then pass the frozen ones, which are ahead without it.",
          "ReLU minus nothing of either kind, learnable minus frozen LC with ReLU, and frozen minus learnable LC without, the "
          "smallest, Welch's interval", study.table3, LC,
          lambda rows: more(rows, *(((role, "+ReLU"), (role, "")) for role in LC), ((LEARNABLE, "+ReLU"), (FROZEN, "+ReLU")),
                            ((FROZEN, ""), (LEARNABLE, "")), x="between")),
    Claim(31, "13", "Appendix C, Table 3", "BatchNorm and ReLU are best",
          "BatchNorm and ReLU together are best, frozen or learnable.",
          "both minus ReLU alone, the smaller of frozen and learnable LC, Welch's interval", study.table3, LC,
          lambda rows: more(rows, *(((role, "+BN+ReLU"), (role, "+ReLU")) for role in LC), x="between")),
    Claim(32, "03", "Section 6", "an identity start learns worse",
          "An LC network that starts as the same function as a plain one, with identity pointwise weights, learns worse than it.",
          "plain minus learnable LC of that start, paired by seed", study.twin, (PLAIN, LEARNABLE),
          lambda rows: [mean(loss) for loss in gap(rows, (PLAIN, LEARNABLE), x="width").values()]),
)
