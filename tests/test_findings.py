"""Findings: differences of few runs, their intervals, and what they decide."""

import numpy as np
import pandas as pd
import pytest
from helpers import rows
from scipy import stats

from lc.analysis import effect_of, seed_spread
from lc.effects import Effect, of_seeds
from lc.findings import FAILS, HOLDS, OPEN, box, judge, points, side


def runs(*accuracies, frozen=False):
    """A network's rows, by seed."""
    return rows(*(("ResNet-LC-20-16x1", frozen, *each) for each in enumerate(accuracies)))


def spread(variance, freedom):
    """The same of frozen and of learnable networks."""
    return dict.fromkeys((False, True), (variance, freedom))


def test_the_spread_is_that_within_networks():
    plain, lc = "ResNet-20-16", "ResNet-LC-20-16x1"
    table = rows((plain, False, 0, 90.0), (plain, False, 1, 92.0), (lc, False, 0, 7.0),
                 *((lc, False, seed, 50.0 + 3 * seed) for seed in range(1, 4)),
                 (lc, True, 0, 80.0), (lc, True, 1, 84.0),
                 (f"{lc}~shuffled", True, 0, 10.0), (f"{lc}~shuffled", True, 1, 30.0))
    table = table.drop(index=2)
    spread = seed_spread(table)
    assert spread[False] == (pytest.approx((1 * 2 + 2 * 9) / 3), 3) and spread[True] == (8, 1)
    assert np.isnan(seed_spread(table[table["seed"] == 0])[False][0])


def difference(a, b, spreads):
    return effect_of(a, spreads) - effect_of(b, spreads)


def test_a_difference_has_the_interval_of_its_effect():
    half = stats.t.ppf(0.975, 6) * np.sqrt(4 * (1 / 2 + 1))
    found = difference(runs(90.0, 92.0), runs(80.0), spread(4.0, 6))
    assert (found.value, found.n) == (11.0, 1)
    assert found.interval() == pytest.approx((11 - half, 11 + half))


def test_frozen_and_learnable_networks_have_a_spread_each():
    spreads = {False: (9.0, 12), True: (0.0, 12)}
    found = difference(runs(90.0), runs(80.0, frozen=True), spreads)
    assert found.high == pytest.approx(10 + stats.t.ppf(0.975, 12) * 3)


def test_a_gain_minus_a_gain_is_taken_within_seeds():
    a, b, c, d = (effect_of(runs(*each), spread(0.04, 12))
                  for each in ((87.5, 87.3), (85.1, 85.2), (86.5, 86.3), (88.1, 88.1)))
    found = (a - b) - (c - d)
    gains = [87.5 - 85.1 - 86.5 + 88.1, 87.3 - 85.2 - 86.3 + 88.1]
    own = stats.t.ppf(0.975, 1) * np.std(gains, ddof=1) / np.sqrt(2)
    pooled = stats.t.ppf(0.975, 12) * np.sqrt(4 * 0.04 / 2)
    assert found.n == 2 and found.value == pytest.approx(np.mean(gains))
    assert found.high - found.value == pytest.approx(max(own, pooled))


def test_what_the_rows_cannot_tell_is_not_decided():
    one, zero = runs(1.0), runs(0.0)
    lone = difference(one, zero, spread(np.nan, 0))
    none = difference(one[:0], zero, spread(1.0, 1))
    assert lone.value == 1 and np.isnan(none.value)
    assert judge(lone) == judge(lone, -5, 5) == judge(none) == judge(none, -5, 5) == OPEN
    assert points(lone) == "+1.0 points (no interval; n = 1)" and points(none) == "no row yet"


def within(low, high, seeds=2):
    """An effect of seeds that agree, with this 95 % interval by the spread of other networks."""
    variance = seeds * ((high - low) / 2 / stats.norm.ppf(0.975)) ** 2
    return of_seeds(pd.Series([(low + high) / 2] * seeds), pooled=(variance, 10 ** 9))


@pytest.mark.parametrize("low, high, least_0, most_1", [
    (0.1, 0.4, HOLDS, HOLDS), (-0.4, -0.1, FAILS, HOLDS), (-0.1, 0.4, OPEN, HOLDS),
    (0.5, 1.5, HOLDS, OPEN), (1.1, 2.0, HOLDS, FAILS), (-2.0, -1.1, FAILS, FAILS),
    (-2.0, 2.0, OPEN, OPEN)])
def test_an_interval_decides_if_all_of_it_is_on_one_side(low, high, least_0, most_1):
    effect = within(low, high)
    assert judge(effect) == least_0 and judge(effect, -1, 1) == most_1


def test_an_end_beside_zero_is_told_from_zero():
    for (low, high), said in (((0.04, 1), "+0.52 points (95 %: +0.04 to +1.00; n = 2"),
                              ((-0.81, -0.03), "−0.42 points (95 %: −0.81 to −0.03; n = 2")):
        assert points(within(low, high)) == f"{said}, spread of other networks)"
    assert points(of_seeds({0: 1.0, 1: 3.0})) == "+2.0 points (95 %: −10.7 to +14.7; n = 2)"


def test_one_seed_has_a_side_and_decides_nothing():
    effect = within(1, 3, seeds=1)
    assert side(effect) == HOLDS and judge(effect) == OPEN


def test_a_box_needs_all_effects_and_two_seeds():
    higher, lower, unclear = (within(value - 1, value + 1) for value in (2, -2, 0))
    one_seed, missing = within(1, 3, seeds=1), Effect({})
    for other, verdict in ((higher, HOLDS), (lower, FAILS), (unclear, OPEN), (one_seed, OPEN),
                           (missing, OPEN)):
        assert repr(box("A", {"x": higher, "y": other})).startswith(f"A: {verdict}")
        against = repr(box("A", {"x": lower, "y": other}))  # whose own seeds decide it
        assert against.startswith("A: does not hold\n")
    assert "with one seed; the spread" in repr(box("A", {"": one_seed}))
    alone = box("A", {"": of_seeds(pd.Series([2.0]))})
    assert "with one seed\n" in repr(alone) and "missing" in repr(box("A", {}))


def test_a_box_says_the_same_as_text_and_as_html():
    shown = box("A < B", {"B & A": within(-1, 1)})
    assert repr(shown) == ("A < B: not decided\n  B & A: +0.0 points (95 %: −1.0 to +1.0; n = 2, "
                           "spread of other networks)")
    assert "A &lt; B: not decided" in shown._repr_html_() and "B &amp; A" in shown._repr_html_()
