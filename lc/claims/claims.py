"""The paper's 32 empirical claims as data, and the verdicts of this project's rows on them (notebook 15).

Each claim states its statistic and what the paper expects of it before any number is seen. The verdicts are computed from
`results/` at every call. Rows of different profiles are never averaged: a claim takes the largest profile that has its runs.
"""

import numpy as np
import pandas as pd

from .. import paper, study
from . import effects
from .effects import LOSS, against_log, losses, paired, plain, samples_of
from .statistics import average, crossing, first_below, slope, student, weakest, welch
from .verdict import FROZEN, LEARNABLE, PLAIN, PLAIN_FROZEN, Claim, judged

ABOVE, BELOW = (0, np.inf), (-np.inf, 0)  # the paper expects an effect above or below zero
SECTION_3, LC, ALL = (PLAIN, PLAIN_FROZEN), (LEARNABLE, FROZEN), (PLAIN, LEARNABLE, FROZEN)  # the roles that a claim needs
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


def _three_changes(profile):
    """Runs of the networks that differ in depth, on CIFAR-10, and in width or stem, on ImageNet."""
    return (study.figure1a(profile, ["ResNet-18", "ResNet-34"])
            + study.figure1b(profile, ["ResNet-50", "Wide-ResNet-50x2", "ResNet-50d"]))


CLAIMS = (
    Claim(1, "01", "Section 3, Figure 1a", "combining networks lose little",
          "On CIFAR-10, networks with pointwise convolutions after the spatial ones lose {} to {} points if their spatial "
          "filters stay random.".format(*paper.CIFAR10_GAP_COMBINED),
          "learnable minus frozen, mean over these networks, paired by seed", "points", paper.CIFAR10_GAP_COMBINED, SECTION_3,
          study.figure1a, lambda rows: student(average(losses(rows, combining=True))), RECIPE),
    Claim(2, "01", "Section 3, Figure 1a", "the other networks lose much",
          f"On CIFAR-10, all other networks lose at least {paper.CIFAR10_GAP_UNCOMBINED:g} points.",
          "learnable minus frozen, paired by seed, of the network that loses least", "points",
          (paper.CIFAR10_GAP_UNCOMBINED, np.inf), SECTION_3, study.figure1a,
          lambda rows: weakest([student(loss) for loss in losses(rows, combining=False)]), RECIPE),
    Claim(3, "01", "Section 3, Figure 1a", "learned, all networks are alike",
          "If everything is learned, all these networks are about as accurate as each other.",
          "best minus worst network among the frozen ones, minus the same among the learnable ones, paired by seed", "points",
          ABOVE, SECTION_3, study.figure1a, effects.spread_when_frozen),
    Claim(4, "02", "Section 3, Figure 1b", "ImageNet: most networks lose little",
          "On ImageNet, all networks but ResNet-18 lose only {} to {} points.".format(*paper.IMAGENET_GAP),
          "learnable minus frozen, mean over these networks, paired by seed", "points", paper.IMAGENET_GAP, SECTION_3,
          study.figure1b, lambda rows: student(average(effects.imagenet_losses(rows))), RECIPE),
    Claim(5, "02", "Section 3, Figure 1b", "ImageNet: ResNet-18 loses most",
          f"On ImageNet, ResNet-18 is the exception: it loses {paper.IMAGENET_GAP_RESNET18} points.",
          "the loss of ResNet-18 minus the largest loss of another network, Welch's interval", "points", ABOVE, SECTION_3,
          study.figure1b, effects.resnet18_loses_more),
    Claim(6, "02", "Section 3, Figure 1", "depth, width and a small stem help",
          "Freezing costs less in deeper networks (ResNet-34 against 18), in wider ones (Wide-ResNet-50x2 against ResNet-50) and "
          "with smaller kernels in the stem (ResNet-50d against 50).",
          "the loss before minus the loss after each change (depth on CIFAR-10, the others on ImageNet), the smallest of the "
          "three, Welch's interval", "points", ABOVE, SECTION_3, _three_changes, effects.depth_width_stem),
    Claim(7, "03", "Section 4.1, Figure 4a", "learnable LC stays below plain",
          "Networks with learnable LC-Blocks stay below the plain network at every E.",
          "plain minus learnable LC, the smallest difference over all E, Welch's interval", "points", ABOVE, (PLAIN, LEARNABLE),
          study.figure4, lambda rows: weakest([welch(plain(rows), sample) for sample in
                                               samples_of(rows, "expansion", role=LEARNABLE).values()])),
    Claim(8, "03", "Section 4.1, Figure 4a", "learnable LC gains with E",
          "Learnable LC networks come closer to the plain network as E grows.",
          "slope of their accuracy per doubling of E (the plain network has no E), bootstrapped over seeds", "points", ABOVE,
          (LEARNABLE,), study.figure4, lambda rows: against_log(samples_of(rows, "expansion", role=LEARNABLE))),
    Claim(9, "03", "Section 4.1, Figure 4a", "the gap falls with E",
          "What freezing costs an LC network falls as E grows.",
          "slope of learnable minus frozen LC per doubling of E, bootstrapped over seeds", "points", BELOW, LC, study.figure4,
          lambda rows: against_log(paired(rows, "expansion", LOSS))),
    Claim(10, "03", "Section 4.1, Figure 4a", f"frozen passes learnable LC at E = {paper.PASSES_LEARNABLE_AT}",
          f"Frozen random LC networks pass the learnable ones at E = {paper.PASSES_LEARNABLE_AT}.",
          "the first E at which learnable minus frozen LC, paired by seed, lies below zero; the interval begins where this is "
          "possible and ends where it is certain", "E", _about(paper.PASSES_LEARNABLE_AT), LC, study.figure4,
          lambda rows: first_below({e: student(loss) for e, loss in paired(rows, "expansion", LOSS).items()}), NETWORKS),
    Claim(11, "03", "Section 4.1, Figure 4a", f"frozen passes plain at E = {paper.PASSES_BASELINE_AT}",
          f"Frozen random LC networks pass the plain, learnable network at E = {paper.PASSES_BASELINE_AT}.",
          "the first E at which plain minus frozen LC, Welch's interval, lies below zero; the interval begins where this is "
          "possible and ends where it is certain", "E", _about(paper.PASSES_BASELINE_AT), (PLAIN, FROZEN), study.figure4,
          lambda rows: first_below({e: welch(plain(rows), sample) for e, sample in
                                    samples_of(rows, "expansion", role=FROZEN).items()}), NETWORKS),
    Claim(12, "03", "Section 4.1, Figure 4a", "a slight decline beyond",
          f"Beyond E = {paper.PASSES_BASELINE_AT} frozen random networks lose a little again, but stay above the learnable LC "
          "ones.",
          "at the next E: the loss of frozen ones against the E before (Welch), and their lead over learnable ones (paired by "
          "seed), the smaller", "points", ABOVE, LC, study.figure4, effects.decline_beyond),
    Claim(13, "03", "Section 4.1, Figure 4c", "robustness rises and passes both",
          "The robust accuracy of frozen random networks rises with E, passes learnable LC and plain networks, and does not "
          "saturate.",
          "the smallest of the slope per doubling of E, the gain in the last step of E, and, at the largest E, the leads over "
          "the plain (Welch) and the learnable LC network (paired by seed)", "points", ABOVE, ALL, study.figure4,
          effects.robust_rise),
    Claim(14, "04", "Section 4.1", "more diverse, yet less robust",
          "Diversity explains robustness only in part: at E = {} and {} frozen random networks are more "
          "diverse than the plain one and yet less robust.".format(*paper.DIVERSE_BUT_LESS_ROBUST_AT),
          "at each of these E, frozen minus plain FVE of the last layer and plain minus frozen robust accuracy, each divided by "
          "half the width of its Welch interval, the smallest", "half-widths", ABOVE, (PLAIN, FROZEN), study.figure4,
          effects.diverse_but_less_robust),
    Claim(15, "04", "Section 4.1, Figure 5a", "diversity of the first layer",
          "In the first layer, the diversity of frozen random networks falls with E, to end slightly below the plain network and "
          "well above the learnable LC ones.",
          "of normalised FVE, frozen at the smallest E minus at the largest, and at the largest plain minus frozen (Welch) and "
          "frozen minus learnable LC (paired by seed), the smallest", "FVE", ABOVE, ALL, study.figure4, effects.diversity_first),
    Claim(16, "04", "Section 4.1, Figure 5b", "diversity of the last layer",
          "In the last layer, learnable LC networks are less diverse than the plain one at every E, though they gain with E. "
          "Frozen random ones lose diversity with E, but stay above both.",
          "of normalised FVE, the fall of frozen and the gain of learnable LC from the smallest to the largest E, frozen at the "
          "largest E minus plain, and plain minus learnable LC at each E, the smallest, Welch's interval", "FVE", ABOVE, ALL,
          study.figure4, effects.diversity_last),
    Claim(17, "03", "Section 4.1", "freezing regularises",
          "Freezing regularises: frozen random networks overfit less than the plain one.",
          "training minus test accuracy, of the plain minus of the frozen LC network with the largest E, Welch's interval",
          "points", ABOVE, (PLAIN, FROZEN), study.figure4, effects.regularisation),
    Claim(18, "05", "Section 4.1, Figure 6a", "break-even in width",
          f"With width alone, at E = 1, frozen random networks break even near W = {paper.BREAK_EVEN_WIDTH}.",
          "the W at which learnable minus frozen, paired by seed, reaches zero, interpolated against log W; near is within a "
          "factor of two", "W", _about(paper.BREAK_EVEN_WIDTH, 2), LC, study.figure6a,
          lambda rows: crossing({x: student(loss) for x, loss in paired(rows, "width", LOSS).items()}), NETWORKS),
    Claim(19, "06", "Section 4.1, Figure 6b", "break-even in depth",
          f"With depth alone, at E = 1, frozen random networks break even near D = {paper.BREAK_EVEN_DEPTH}.",
          "the D at which learnable minus frozen, paired by seed, reaches zero, interpolated against log D; near is within a "
          "factor of two", "D", _about(paper.BREAK_EVEN_DEPTH, 2), LC, study.figure6b,
          lambda rows: crossing({x: student(loss) for x, loss in paired(rows, "depth", LOSS).items()}), NETWORKS),
    Claim(20, "07", "Section 4.2, Table 1", "the order on other data sets",
          "On several data sets, frozen random LC networks are at least on a par with the plain network, and learnable ones are "
          "below it.",
          "frozen LC minus plain and plain minus learnable LC, each as the mean over the data sets, within a seed, the smaller",
          "points", ABOVE, ALL, study.table1, effects.order_of_table_1),
    Claim(21, "08", "Section 4.2, Table 2", "ImageNet: frozen LC gains with E",
          "On ImageNet, too, frozen random LC networks gain with E, and pass the learnable ones.",
          "the slope per doubling of E, and the lead over learnable LC at the largest E that both have, paired by seed, the "
          "smaller", "points", ABOVE, LC, study.table2, effects.rise_on_imagenet),
    Claim(22, "08", "Section 4.2, Table 2", "ImageNet: plain is not passed",
          "On ImageNet, frozen random LC networks do not pass the plain, learnable network at any E.",
          "plain minus frozen LC, the smallest difference over all E, Welch's interval", "points", ABOVE, (PLAIN, FROZEN),
          study.table2, lambda rows: weakest([welch(plain(rows), sample) for sample in
                                              samples_of(rows, "expansion", role=FROZEN).values()])),
    Claim(23, "09", "Section 4.3, Figure 8a", "the gap grows with kernel size",
          "Freezing costs more accuracy the larger the kernels are.",
          "slope of learnable minus frozen LC, mean over E, per pixel of kernel size, bootstrapped over seeds", "points", ABOVE,
          LC, study.figure8, lambda rows: slope(effects.by_kernel(rows, LOSS))),
    Claim(24, "09", "Section 4.3, Figure 8a", "the gap falls with E for every kernel size",
          "What freezing costs falls as E grows, for every kernel size.",
          "slope of frozen minus learnable LC per doubling of E, bootstrapped over seeds, the smallest over kernel sizes",
          "points", ABOVE, LC, study.figure8, effects.closing_at_every_kernel),
    Claim(25, "11", "Section 4.3, Figure 8b", "learned filters vary at their centre",
          "Learned filters vary most at their centre, the more so the larger they are. Frozen random ones vary alike everywhere.",
          "log10 of the variance at the centre over that at the border, learnable minus frozen LC, mean over E, within a seed: "
          "its slope per pixel of kernel size and its value for the largest kernels, the smaller", "log10", ABOVE, LC,
          study.figure8, effects.concentration),
    Claim(26, "12", "Appendix D, Figure 11", "first layer's diversity by kernel size",
          "In the first layer, frozen random networks lose diversity with E for every kernel size, and their lead over learnable "
          "ones grows with it.",
          "of FVE, the slope of frozen minus learnable LC, mean over E, per pixel of kernel size, and the fall of frozen from "
          "the smallest to the largest E for each kernel size, the smallest", "FVE", ABOVE, LC, study.figure8,
          effects.diversity_first_by_kernel),
    Claim(27, "12", "Appendix D, Figure 12", "last layer's diversity by kernel size",
          "In the last layer, the lead of frozen random networks in diversity grows with kernel size, and learnable ones "
          "collapse for kernels larger than 3x3.",
          "of FVE, the slope of frozen minus learnable LC, mean over E, per pixel of kernel size, and learnable LC with 3x3 "
          "kernels minus each larger size, the smallest", "FVE", ABOVE, LC, study.figure8, effects.diversity_last_by_kernel),
    Claim(28, "10", "Section 4.3, Figure 7", "frozen filters are never as sharp",
          "Combined filters of frozen random networks never reach the sharpness of large learned filters.",
          "log10 of the mean square at the centre over that at the border of the first layer's largest kernels, plain minus "
          "frozen LC, the smallest difference over all E, Welch's interval", "log10", ABOVE, (PLAIN, FROZEN), study.figure8,
          effects.sharpness),
    Claim(29, "13", "Appendix C, Table 3", "BatchNorm alone lowers the accuracy",
          "BatchNorm alone between the two convolutions lowers the accuracy, frozen or learnable.",
          "nothing minus BatchNorm, the smaller of frozen and learnable LC, Welch's interval", "points", ABOVE, LC, study.table3,
          effects.cells((("", FROZEN), ("+BN", FROZEN)), (("", LEARNABLE), ("+BN", LEARNABLE)))),
    Claim(30, "13", "Appendix C, Table 3", "ReLU turns the order",
          "ReLU raises the accuracy of both, and learnable LC networks then pass the frozen ones, which are ahead without it.",
          "ReLU minus nothing of either kind, learnable minus frozen LC with ReLU, and frozen minus learnable LC without, the "
          "smallest, Welch's interval", "points", ABOVE, LC, study.table3,
          effects.cells((("+ReLU", FROZEN), ("", FROZEN)), (("+ReLU", LEARNABLE), ("", LEARNABLE)),
                        (("+ReLU", LEARNABLE), ("+ReLU", FROZEN)), (("", FROZEN), ("", LEARNABLE)))),
    Claim(31, "13", "Appendix C, Table 3", "BatchNorm and ReLU are best",
          "BatchNorm and ReLU together are best, frozen or learnable.",
          "both minus ReLU alone, the smaller of frozen and learnable LC, Welch's interval", "points", ABOVE, LC, study.table3,
          effects.cells((("+BN+ReLU", FROZEN), ("+ReLU", FROZEN)), (("+BN+ReLU", LEARNABLE), ("+ReLU", LEARNABLE)))),
    Claim(32, "03", "Section 6", "an identity start learns worse",
          "An LC network that starts as the same function as a plain one, with identity pointwise weights, learns worse than it.",
          "plain minus learnable LC of that start, Welch's interval", "points", ABOVE, (), None, None),
)
