"""The best combination of n random filters, for a target that the reader chooses or paints (Figure 2)."""

import numpy as np

from .page import Page, fill


def least_squares(targets, banks):
    """A slider over n, with the target, the best combination of the first n random filters, and its error against theory.

    The browser computes the combination, so it needs neither a kernel nor a network.

    Args:
        targets: `{name: [k, k]}`, of norm 1. The first one is shown first.
        banks: `{k: [k * k, k, k]}`, random filters for each k of a target.

    Returns:
        A `Page`. Its text is a table of the errors.
    """
    data = dict(targets={name: _listed(target, 5) for name, target in targets.items()},
                banks={int(k): _listed(bank, 5) for k, bank in banks.items()})
    lines = ["squared error of the best combination of n of k² random filters; on average 1 - n/k²"]
    for name, target in targets.items():
        d = np.asarray(target).size
        errors = errors_of(target, banks[len(target)])
        lines.append(f"{name:10} " + "   ".join(f"n={n}: {errors[n - 1]:.2f}" for n in (1, d // 3, 2 * d // 3, d)))
    return Page(fill("least_squares", data), "\n".join(lines))


def errors_of(target, bank):
    """The squared errors of the best combinations of the first 1, 2, ... filters, over the target's squared norm."""
    target, bank = np.asarray(target, float).ravel(), np.asarray(bank, float)
    basis = np.linalg.qr(bank.reshape(len(bank), -1).T)[0]  # its first n columns span what the first n filters span
    return np.abs(1 - np.cumsum((basis.T @ target) ** 2) / (target @ target)).round(9)


def _listed(values, digits):
    return np.asarray(values, float).round(digits).tolist()
