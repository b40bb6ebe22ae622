"""What tables and figures compute from rows, against numbers by hand and by scipy."""

import math

import numpy as np
import pytest
from helpers import rows

from lc import analysis


def test_summary():
    table = rows(("ResNet-LC-20-16x16", True, 0, 61.0), ("ResNet-20-16", False, 0, 60.0),
                 ("ResNet-LC-20-16x2", True, 0, 50.0), ("ResNet-LC-20-16x2", True, 1, 54.0))
    means = analysis.summary(table, "accuracy")
    assert list(means["expansion"]) == [0, 2, 16] and list(means["n"]) == [1, 2, 1]
    assert means["accuracy"][1] == 52 and means["accuracy_std"][1] == pytest.approx(8 ** 0.5)
    assert math.isnan(means["accuracy_std"][0])


def test_gaps_are_paired_by_seed_and_need_both_runs():
    name = "ResNet-LC-20-16x1"
    table = rows((name, False, 0, 60.0), (name, True, 0, 50.0), (name, False, 1, 64.0),
                 (name, True, 1, 50.0), (name, False, 2, 99.0),
                 ("ResNet-LC-20-32x1", True, 0, 50.0))
    columns = ["model", "n", "width", "gap", "gap_std"]
    (found,) = analysis.gaps(table)[columns].values.tolist()
    assert found == [name, 2, 16, 12, pytest.approx(8 ** 0.5)]
    assert analysis.gaps(table[table["frozen"]]).empty


def test_break_even_is_where_the_gap_closes():
    table = rows(*(("ResNet-LC-8-8x1", frozen, seed, 80.0 - frozen * gap)
                   for gaps in ((2.0, 2.2), (-2.0, -2.2)) for seed, gap in enumerate(gaps)
                   for frozen in (False, True)))
    found = analysis.break_even(table.assign(width=np.repeat([16, 64], 4)), "width")
    assert found.value == pytest.approx(32) and found.text() == "between 16 and 64"


def test_matched_finds_the_same_filters_in_every_row():
    rng = np.random.default_rng(0)
    filters = rng.normal(size=(16, 3, 5, 5)) * np.linspace(1, 3, 16)[:, None, None, None]
    rows = [scale * filters[rng.permutation(16)] + rng.normal(scale=0.1, size=filters.shape)
            for scale in (0.1, 2, 1)]
    rows.append(filters[rng.permutation(16)])
    ordered = analysis.matched(rows)
    norms = np.linalg.norm(ordered[-1].reshape(16, -1), axis=1)
    assert (np.diff(norms) <= 0).all()
    for row, original in zip(ordered, rows, strict=True):
        assert sorted(row.ravel()) == sorted(original.ravel())
    for row in ordered[1:]:
        a, b = row.reshape(16, -1), ordered[-1].reshape(16, -1)
        cosines = np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert (cosines > 0.9).all()


def test_the_central_share_is_that_of_the_central_square():
    values = np.ones((7, 7))
    assert analysis.central_share(values) == 9 / 49 and analysis.central_share(values[:3, :3]) == 1
    values[2:5, 2:5] = 10
    assert analysis.central_share(values) == 90 / 130
    assert analysis.central_share(values, size=1) == 10 / 130
