"""Findings: differences of few runs, their intervals, and what they decide."""

import numpy as np
import pandas as pd
import pytest
from helpers import rows
from scipy import stats

from lc.analysis import seed_spread
from lc.findings import (FAILS, HOLDS, OPEN, Box, Estimate, above, combination, difference, points,
                         within)


def test_the_spread_is_that_within_networks():
    plain, lc = "ResNet-20-16", "ResNet-LC-20-16x1"
    table = rows((plain, False, 0, 90.0), (plain, False, 1, 92.0), (lc, False, 0, 7.0),
                 *((lc, True, seed, 50.0 + 3 * seed) for seed in range(3)))
    variance, freedom = seed_spread(table)
    assert freedom == 3 and variance == pytest.approx((1 * 2 + 2 * 9) / 3)
    assert np.isnan(seed_spread(table[table["seed"] == 0])[0])


def test_a_difference_has_the_interval_of_its_effect():
    a, b = pd.Series([90.0, 92.0]), pd.Series([80.0])
    half = stats.t.ppf(0.975, 6) * np.sqrt(4 * (1 / 2 + 1))
    found = difference(a, b, (4.0, 6))
    assert (found.value, found.n) == (11.0, 1)
    assert (found.low, found.high) == pytest.approx((11 - half, 11 + half))
    b = pd.Series([80.0, 86.0])  # within seeds 10 and 6: wider than by the others' spread
    assert difference(a, b, (1.0, 6)).high == pytest.approx(8 + stats.t.ppf(0.975, 1) * 2)


def test_a_gain_minus_a_gain_is_taken_within_seeds():
    a, b, c, d = map(pd.Series, ([87.5, 87.3], [85.1, 85.2], [86.5, 86.3], [88.1, 88.1]))
    found = combination([(1, a), (-1, b), (-1, c), (1, d)], (0.04, 12))
    gains = [87.5 - 85.1 - 86.5 + 88.1, 87.3 - 85.2 - 86.3 + 88.1]
    own = stats.t.ppf(0.975, 1) * np.std(gains, ddof=1) / np.sqrt(2)
    pooled = stats.t.ppf(0.975, 12) * np.sqrt(4 * 0.04 / 2)
    assert found.n == 2 and found.value == pytest.approx(np.mean(gains))
    assert found.high - found.value == pytest.approx(max(own, pooled))
    assert combination([(1, a), (-1, b[:0])], (0.04, 12)).n == 0


def test_what_the_rows_cannot_tell_is_not_decided():
    one, zero = pd.Series([1.0]), pd.Series([0.0])
    lone, none = difference(one, zero, (np.nan, 0)), difference(one[:0], zero, (1.0, 1))
    assert lone.value == 1
    assert above(lone) == within(lone, 5) == above(none) == within(none, 5) == OPEN
    assert points(lone) == "+1.0 points (no interval; n = 1)" and points(none) == "no row yet"


@pytest.mark.parametrize("low, high, least_0, most_1", [
    (0.1, 0.4, HOLDS, HOLDS), (-0.4, -0.1, FAILS, HOLDS), (-0.1, 0.4, OPEN, HOLDS),
    (0.5, 1.5, HOLDS, OPEN), (1.1, 2.0, HOLDS, FAILS), (-2.0, -1.1, FAILS, FAILS),
    (-2.0, 2.0, OPEN, OPEN)])
def test_an_interval_decides_if_all_of_it_is_on_one_side(low, high, least_0, most_1):
    estimate = Estimate((low + high) / 2, low, high, 2)
    assert above(estimate) == least_0 and within(estimate, 1) == most_1


def test_a_box_needs_all_differences_and_two_seeds():
    higher, lower, unclear = (Estimate(value, value - 1, value + 1, 2) for value in (2, -2, 0))
    one_seed, missing = Estimate(2, 1, 3, 1), Estimate(np.nan, np.nan, np.nan, 0)
    for other, verdict in ((higher, HOLDS), (lower, FAILS), (unclear, OPEN), (one_seed, OPEN),
                           (missing, OPEN)):
        assert Box("A", {"x": higher, "y": other}).verdict == verdict
    assert "one seed" in Box("A", {"": one_seed}).text and "missing" in Box("A", {}).text


def test_a_box_says_the_same_as_text_and_as_html():
    box = Box("A < B", {"B & A": Estimate(0, -1, 1, 2)})
    assert repr(box) == "A < B: not decided\n  B & A: +0.0 points (95 %: −1.0 to +1.0; n = 2)"
    assert "A &lt; B: not decided" in box._repr_html_() and "B &amp; A" in box._repr_html_()
