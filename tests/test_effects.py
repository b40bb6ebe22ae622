"""Effects and their intervals: values by hand and by scipy, and coverage by simulation."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lc.effects import Crossing, average, of_mean, of_seeds, place, slope


def effect(*values, seeds=None, **more):
    return of_seeds(pd.Series(values, seeds), **more)


def test_a_difference_is_paired_by_seed_as_scipys():
    a, b = np.random.default_rng(0).normal([[80], [79]], [[1], [3]], (2, 4))
    found, expected = effect(*a) - effect(*b), scipy.stats.ttest_rel(a, b)
    for confidence in (0.95, 0.9):
        ends = tuple(expected.confidence_interval(confidence))
        assert found.interval(confidence) == pytest.approx(ends)
    assert found.n == 4 and found.value == pytest.approx(a.mean() - b.mean())


def test_only_seeds_that_all_networks_have_tell_the_spread():
    found = effect(5, 7, 9, seeds=[0, 1, 2]) - effect(1, 2, seeds=[2, 1])
    assert found.paired == [5, 8] and found.value == 6.5 and found.n == 2
    alone = effect(5, 6, 10) - effect(1, seeds=[0])
    assert alone.n == 1 and alone.value == 7 - 1
    apart = effect(5, 7, seeds=[0, 1]) - effect(1, 2, seeds=[2, 3])  # Welch's, of their own spreads
    assert apart.n == 1 and apart.low < apart.value and not apart.borrowed


def test_means_with_known_spreads_have_welchs_interval():
    a, b = np.random.default_rng(1).normal([[91], [90]], [[0.1], [0.4]], (2, 4))
    first, second = (of_mean(each.mean(), 4, each.var(ddof=1)) for each in (a, b))
    expected = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (first - second).interval() == pytest.approx(tuple(expected))


def test_one_seed_takes_the_spread_of_other_networks_if_enough_are_repeated():
    pool, few = (0.04, 12), (0.04, 5)
    half = scipy.stats.t.ppf(0.975, 12) * 0.2 * 2 ** 0.5
    found = effect(90, pooled=pool) - effect(88, pooled=pool)
    assert found.interval() == pytest.approx((2 - half, 2 + half)) and found.n == 1
    assert np.isnan((effect(90, pooled=few) - effect(88, pooled=few)).interval()).all()
    assert np.isnan((effect(90, pooled=pool) - effect(88)).interval()).all()
    # Two seeds that agree by chance do not make the interval narrower than the others' spread
    low, high = (effect(90, 90, pooled=pool) - effect(88, 88, pooled=pool)).interval()
    assert high - low == pytest.approx(2 * scipy.stats.t.ppf(0.975, 12) * 0.2)


def test_a_network_keeps_its_own_spread_beside_one_of_a_single_seed():
    """Another network's seeds may agree: they do not make those of this one agree."""
    pool = 1e-6, 12
    found = effect(83, 84.2, pooled=pool) - effect(83.4, seeds=[0], pooled=pool)
    own = scipy.stats.t.ppf(0.975, 1) * np.std([83, 84.2], ddof=1) / 2 ** 0.5
    assert found.n == 1 and found.high - found.value == pytest.approx(own, rel=1e-3)
    assert found.borrowed and not (effect(1, 3) - effect(0, 1)).borrowed


def test_the_interval_holds_what_it_is_computed_from_where_networks_have_other_seeds():
    pool = (1e-6, 12)
    found = effect(1, 5, 90, pooled=pool) - effect(0, 4, pooled=pool)
    assert found.interval() == pytest.approx((1, 1), abs=0.01)


def test_images_count_by_what_every_seed_shows_of_them():
    """As the variance components of seeds and images, by hand, in a table of answers."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(400) < 0.2  # images that one network alone gets right, with every seed
    right = rng.random((2, 3, 400)) < 0.9
    right[0] |= difficulty
    a, b = (effect(*(100 * each).mean(1), pooled=(0.0, 12), images="cifar10",
                   answers=dict(enumerate(100 * each))) for each in right)
    found, d = a - b, 100.0 * right[0] - 100.0 * right[1]
    model = pd.DataFrame(d).stack().rename("d").rename_axis(["seed", "image"]).reset_index()
    mean = model["d"].mean()
    of_seeds, of_images = (model.groupby(each)["d"].mean() for each in ("seed", "image"))
    rest = model["d"] - model["seed"].map(of_seeds) - model["image"].map(of_images) + mean
    noise = (rest ** 2).sum() / (2 * 399)
    over_images = max(0, of_images.var() - noise / 3) / 400
    of_seeds = scipy.stats.t.ppf(0.975, 2) * (of_seeds.var() / 3) ** 0.5
    expected = np.hypot(of_seeds, scipy.stats.t.ppf(0.975, 399) * over_images ** 0.5)
    assert over_images > 0 and found.high - found.value == pytest.approx(expected)
    # Nor does a row without answers, of an earlier version, or a single seed have such a part
    older = effect(*(100 * right[1]).mean(1), pooled=(0.0, 12))
    assert (a - older).high - (a - older).value == pytest.approx(of_seeds)
    one = effect(90, pooled=(0.0, 12), images="cifar10", answers={0: 100 * right[0, 0]})
    assert one.interval() == (90, 90)


def test_slopes_and_averages_are_those_of_the_means():
    curve = {1: effect(1, 3), 2: effect(4, 4), 8: effect(8, 10)}
    assert slope(curve).value == pytest.approx(np.polyfit([0, 1, 3], [2, 4, 9], 1)[0])
    assert slope(curve, log=False).value == pytest.approx(np.polyfit([1, 2, 8], [2, 4, 9], 1)[0])
    assert average(curve.values()).value == pytest.approx(5)
    # The place in the middle has no weight: how many seeds it has does not matter
    middle = slope({1: effect(1, 2, 4), 8: effect(9, seeds=[0]), 64: effect(2, 4, 6)})
    ends = (effect(2, 4, 6) - effect(1, 2, 4)) * (1 / 6)
    assert middle.n == 3 and middle.interval() == pytest.approx(ends.interval())
    with pytest.raises(LookupError):
        slope({1: effect(1, 3)})
    with pytest.raises(LookupError):
        average([])


def covered(make, times=400):
    """The share of intervals that hold the truth, zero."""
    low, high = np.array([make().interval() for _ in range(times)]).T
    return ((low <= 0) & (0 <= high)).mean()


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("make", [
    pytest.param(lambda curve: curve()[1] - curve()[8], id="difference"),
    pytest.param(lambda curve: slope(curve()) - slope(curve()), id="slope of a gap")])
def test_intervals_cover_where_seeds_differ_ten_times_more_at_e_1(make, n):
    """As measured: a standard deviation of 0.60 at E = 1 and 0.04 to 0.07 at other E."""
    rng, spreads = np.random.default_rng(n), {1: 0.6, 2: 0.05, 4: 0.04, 8: 0.06, 32: 0.07}

    def curve():
        values = {e: rng.normal(0, spread, n) for e, spread in spreads.items()}
        pool = np.mean([each.var(ddof=1) for each in values.values()]), len(spreads) * (n - 1)
        return {e: effect(*each, pooled=pool) for e, each in values.items()}

    # less two standard errors of the simulation itself
    assert covered(lambda: make(curve)) >= 0.93 - 2 * (0.93 * 0.07 / 400) ** 0.5


def test_other_images_and_seeds_are_covered():
    """Networks differ by nothing, but each finds other images easy, and so does each of its runs."""
    rng, images = np.random.default_rng(0), 500

    def network():
        easy = rng.normal(1.2, 0.5, images)
        answers = easy + rng.normal(0, 0.8, (4, images)) + rng.normal(0, 0.05, (4, 1)) > 0
        return effect(*(100 * answers).mean(1), images="own", answers=dict(enumerate(100 * answers)))

    assert 0.93 <= covered(lambda: network() - network()) <= 0.98


def test_one_seed_is_covered_by_the_spread_of_networks_like_it():
    rng = np.random.default_rng(0)

    def make():
        pool = rng.normal(0, 0.23, (12, 2)).var(axis=1, ddof=1).mean(), 12
        return effect(rng.normal(0, 0.23), pooled=pool) - effect(rng.normal(0, 0.23), pooled=pool)

    assert 0.93 <= covered(make, 1000) <= 0.97


def test_a_crossing_is_interpolated_against_the_logarithm():
    def crossing(at_16, at_64, **more):
        return Crossing({64: effect(at_64, **more), 16: effect(at_16, **more)})

    pool = dict(pooled=(1 / scipy.stats.t.ppf(0.975, 12) ** 2, 12))  # intervals of ± 1
    within = crossing(2, -2, **pool)
    assert (within.value, *within.interval()) == pytest.approx((32, 16 * 4 ** 0.25, 16 * 4 ** 0.75))
    assert within.unclear == (16, 64) and within.text() == "between 16 and 64"
    beyond, below = crossing(3, 2, **pool), crossing(-3, -2, **pool)
    assert beyond.value == np.inf and beyond.interval() == (np.inf, np.inf) and below.value == 0
    assert not beyond.unclear and not below.unclear
    near = Crossing({4: effect(2), 8: effect(-2)})
    assert near.unclear is None and near.text() == "6"
    assert beyond.text() == "beyond the largest tested"
    assert place(below.value, "E ") == "below the smallest E tested"
    for unknown in (crossing(2, -2).interval(), (Crossing({}).value, *Crossing({}).interval())):
        assert np.isnan(unknown).all()
