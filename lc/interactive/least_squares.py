"""The best combination of n random filters, for a target that the reader chooses (Figure 2)."""

import numpy as np

from ..utils.shown import Shown
from .page import fill


def least_squares(targets, banks):
    """A slider over n, with the target, the best combination of n random filters, and its error.

    The reader can paint a target, too: the browser computes the combination.

    Args:
        targets: `{name: [k, k]}`, of norm 1. The first one is shown first.
        banks: `{k: [k * k, k, k]}`, random filters for each k of a target.

    Returns:
        A `Shown`, whose text is a table of the errors.
    """
    data = dict(targets={name: _listed(target) for name, target in targets.items()},
                banks={int(k): _listed(bank) for k, bank in banks.items()})
    lines = ["squared error of the best combination of n of k² random filters; on average 1 - n/k²"]
    for name, target in targets.items():
        errors = errors_of(target, banks[len(target)])
        d = len(errors)
        said = [f"n={n}: {errors[n - 1]:.2f}" for n in (1, d // 3, 2 * d // 3, d)]
        lines.append(f"{name:10} " + "   ".join(said))
    return Shown(fill("least_squares", data), "\n".join(lines))


def errors_of(target, bank):
    """Squared errors of the best combinations of a bank's first 1, 2, ... filters.

    They are divided by the target's squared norm.
    """
    target, bank = np.asarray(target, float).ravel(), np.asarray(bank, float)
    basis = np.linalg.qr(bank.reshape(len(bank), -1).T)[0]
    # The first n columns of the basis span what the first n filters span
    return np.abs(1 - np.cumsum((basis.T @ target) ** 2) / (target @ target)).round(9)


def _listed(values):
    return np.asarray(values, float).round(5).tolist()
