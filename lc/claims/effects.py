"""From rows to the effects that decide the claims: each function takes rows and returns a `statistics.Estimate`.

Rows have the column `role` of `lc.claims.verdict`, and `<column>_error` for shares of test images. A function raises LookupError
if they lack a network. An effect of several parts is the smallest of them, and the paper expects each above zero.
"""

import numpy as np
import pandas as pd

from .. import models, paper, results
from ..analysis import centre_to_border
from ..imagenet.networks import combines as imagenet_combines
from .statistics import average, minus, slope, standardised, student, weakest, welch
from .verdict import FROZEN, LEARNABLE, PLAIN, PLAIN_FROZEN

LOSS = LEARNABLE, FROZEN  # the first role minus the second: what freezing costs
PLAIN_LOSS = PLAIN, PLAIN_FROZEN
GAIN = FROZEN, LEARNABLE


def samples_of(rows, x, column="accuracy", **where):
    """`{x: sample}` of a column, in ascending order of x, of the rows with the values in `where`."""
    for name, value in where.items():
        rows = rows[rows[name] == value]
    rows = rows.dropna(subset=column)
    if rows.empty:
        raise LookupError(f"no rows of {where}")
    samples = pd.DataFrame({"value": rows[column], "error": rows.get(f"{column}_error", np.nan)}).set_index(rows["seed"])
    return {value: samples[(rows[x] == value).to_numpy()] for value in sorted(rows[x].unique())}


def paired(rows, x, roles, column="accuracy"):
    """`{x: sample}` of the first role minus the second, within a seed."""
    a, b = (samples_of(rows, x, column, role=role) for role in roles)
    differences = {value: minus(a[value], b[value]) for value in a if value in b}
    differences = {value: difference for value, difference in differences.items() if len(difference)}
    if not differences:
        raise LookupError(f"no seed has both {' and '.join(roles)}")
    return differences


def plain(rows, column="accuracy"):
    """The sample of the one plain network, learnable."""
    sample, = samples_of(rows, "model", column, role=PLAIN).values()
    return sample


def against_log(samples):
    """The slope per doubling of x."""
    return slope({np.log2(x): sample for x, sample in samples.items()})


def first_and_last(samples):
    return samples[min(samples)], samples[max(samples)]


# Section 3

def losses(rows, combining):
    """The samples of what freezing costs the networks on CIFAR-10 that combine their filters, or the others."""
    found = [loss for name, loss in paired(rows, "model", PLAIN_LOSS).items() if models.combines(name) == combining]
    if not found:
        raise LookupError("no such network has both runs")
    return found


def spread_when_frozen(rows):
    def spread(role):
        ordered = sorted(samples_of(rows, "model", role=role).values(), key=lambda sample: sample["value"].mean())
        return minus(ordered[-1], ordered[0])

    return student(minus(spread(PLAIN_FROZEN), spread(PLAIN)))


def imagenet_losses(rows):
    return [loss for name, loss in paired(rows, "model", PLAIN_LOSS).items() if imagenet_combines(name)]


def resnet18_loses_more(rows):
    resnet18 = paired(rows, "model", PLAIN_LOSS)["ResNet-18"]
    return weakest([welch(resnet18, loss) for loss in imagenet_losses(rows)])


def depth_width_stem(rows):
    loss = paired(rows, "model", PLAIN_LOSS)
    changes = (("ResNet-18", "ResNet-34"), ("ResNet-50", "Wide-ResNet-50x2"), ("ResNet-50", "ResNet-50d"))
    return weakest([welch(loss[before], loss[after]) for before, after in changes])


# Section 4.1

def decline_beyond(rows):
    at = paper.PASSES_BASELINE_AT
    frozen = samples_of(rows, "expansion", role=FROZEN)
    return weakest([welch(frozen[at], frozen[2 * at]), student(paired(rows, "expansion", GAIN)[2 * at])])


def robust_rise(rows):
    frozen = samples_of(rows, "expansion", "robust_accuracy", role=FROZEN)
    if len(frozen) < 2:
        raise LookupError("a rise takes two expansions")
    *_, before, last = frozen
    return weakest([against_log(frozen), welch(frozen[last], frozen[before]), welch(frozen[last], plain(rows, "robust_accuracy")),
                    student(paired(rows, "expansion", GAIN, "robust_accuracy")[last])])


def diverse_but_less_robust(rows):
    rows = rows[rows["expansion"].isin((0, *paper.DIVERSE_BUT_LESS_ROBUST_AT))]
    entropy, robust = (samples_of(rows, "expansion", column, role=FROZEN) for column in ("fve_last", "robust_accuracy"))
    more = [welch(sample, plain(rows, "fve_last")) for sample in entropy.values()]
    less = [welch(plain(rows, "robust_accuracy"), sample) for sample in robust.values()]
    return weakest([standardised(estimate) for estimate in more + less])


def diversity_first(rows):
    column = "fve_first_normalized"
    first, last = first_and_last(samples_of(rows, "expansion", column, role=FROZEN))
    _, gain = first_and_last(paired(rows, "expansion", GAIN, column))
    return weakest([welch(first, last), welch(plain(rows, column), last), student(gain)])


def diversity_last(rows):
    column = "fve_last_normalized"
    first, last = first_and_last(samples_of(rows, "expansion", column, role=FROZEN))
    learnable = samples_of(rows, "expansion", column, role=LEARNABLE)
    lowest, highest = first_and_last(learnable)
    return weakest([welch(first, last), welch(last, plain(rows, column)), welch(highest, lowest),
                    *(welch(plain(rows, column), sample) for sample in learnable.values())])


def regularisation(rows):
    _, frozen = first_and_last(samples_of(rows, "expansion", "generalisation", role=FROZEN))
    return welch(plain(rows, "generalisation"), frozen)


# Section 4.2

def order_of_table_1(rows):
    roles = [samples_of(rows, "dataset", role=role) for role in (FROZEN, PLAIN, LEARNABLE)]
    shared = [name for name in roles[0] if all(name in samples for samples in roles)]
    if not shared:
        raise LookupError("no data set has all three networks")
    return weakest([student(average(minus(above[name], below[name]) for name in shared))
                    for above, below in zip(roles, roles[1:])])


def rise_on_imagenet(rows):
    _, gain = first_and_last(paired(rows, "expansion", GAIN))
    return weakest([against_log(samples_of(rows, "expansion", role=FROZEN)), student(gain)])


# Section 4.3 and Appendix D

def by_kernel(rows, roles, column="accuracy"):
    """`{k: sample}` of the mean of `paired` over the expansions that every kernel size has."""
    of_each = {k: paired(part, "expansion", roles, column) for k, part in rows.groupby("kernel_size")}
    shared = sorted(set.intersection(*map(set, of_each.values())))
    if not shared:
        raise LookupError("the kernel sizes share no expansion")
    return {k: average(differences[e] for e in shared) for k, differences in of_each.items()}


def closing_at_every_kernel(rows):
    return weakest([against_log(paired(part, "expansion", GAIN)) for _, part in rows.groupby("kernel_size")])


def with_centre(rows, name, of_array):
    """The rows with `centre`: how much larger the centre is than the border in a map of each run, as log10."""
    return rows.assign(centre=[np.log10(centre_to_border(of_array(results.load_arrays(run)[name]))) for run in rows["id"]])


def concentration(rows):
    more = by_kernel(with_centre(rows, "variance_map", np.asarray), LOSS, "centre")
    return weakest([slope(more), student(more[max(more)])])


def sharpness(rows):
    rows = rows[rows["kernel_size"] == rows["kernel_size"].max()]
    rows = with_centre(rows, "first", lambda filters: (filters.astype(float) ** 2).mean((0, 1)))
    return weakest([welch(plain(rows, "centre"), sample)
                    for sample in samples_of(rows, "expansion", "centre", role=FROZEN).values()])


def diversity_first_by_kernel(rows):
    falls = [first_and_last(samples_of(part, "expansion", "fve_first", role=FROZEN)) for _, part in rows.groupby("kernel_size")]
    return weakest([slope(by_kernel(rows, GAIN, "fve_first")), *(welch(first, last) for first, last in falls)])


def diversity_last_by_kernel(rows):
    learnable = {k: average(samples_of(part, "expansion", "fve_last", role=LEARNABLE).values())
                 for k, part in rows.groupby("kernel_size")}
    small = learnable.pop(3)
    return weakest([slope(by_kernel(rows, GAIN, "fve_last")), *(welch(small, large) for large in learnable.values())])


# Appendix C

def cells(*comparisons):
    """Effects of Table 3: differences between two cells, each an operation and a role."""
    def estimate(rows):
        table = {role: samples_of(rows, "between", role=role) for role in LOSS}
        return weakest([welch(*(table[role][operation] for operation, role in pair)) for pair in comparisons])

    return estimate
