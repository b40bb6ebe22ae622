"""What tables and figures compute from rows, against numbers by hand and by scipy."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import rows

from lc import analysis


def test_summary():
    table = rows(("ResNet-LC-20-16x16", True, 0, 61.0), ("ResNet-20-16", False, 0, 60.0),
                 ("ResNet-LC-20-16x2", True, 0, 50.0), ("ResNet-LC-20-16x2", True, 1, 54.0))
    means = analysis.summary(table, "accuracy")
    assert list(means["expansion"]) == [0, 2, 16] and list(means["n"]) == [1, 2, 1]
    assert means["accuracy"][1] == 52 and means["accuracy_std"][1] == pytest.approx(8 ** 0.5)
    assert math.isnan(means["accuracy_std"][0])


def test_a_line_keeps_no_smaller_profile_than_the_largest_with_every_role():
    cells = [("a", "plain", "paper"), ("a", "plain", "short"), ("a", "LC", "short"),
             ("a", "plain", "quick"), ("a", "LC", "quick"), ("b", "plain", "short"),
             ("b", "plain", "quick")]
    cells = pd.DataFrame(cells, columns=["row", "role", "source"])
    assert analysis.largest_profiles(cells).index.tolist() == [0, 1, 2, 5, 6]
    assert analysis.largest_profiles(cells[:0]).empty


def test_gaps_are_paired_by_seed_and_need_both_runs():
    name = "ResNet-LC-20-16x1"
    table = rows((name, False, 0, 60.0), (name, True, 0, 50.0), (name, False, 1, 64.0),
                 (name, True, 1, 50.0), (name, False, 2, 99.0),
                 ("ResNet-LC-20-32x1", True, 0, 50.0))
    columns = ["model", "n", "width", "gap", "gap_std"]
    (found,) = analysis.gaps(table)[columns].values.tolist()
    assert found == [name, 2, 16, 12, pytest.approx(8 ** 0.5)]
    assert analysis.gaps(table[table["frozen"]]).empty


def test_differences_have_both_intervals_and_need_runs_of_both_kinds():
    rng = np.random.default_rng(0)
    accuracy = {("A", "fp32"): rng.normal(80, 1, 4), ("A", "bf16"): rng.normal(79, 3, 3),
                ("B", "fp32"): rng.normal(50, 1, 2), ("B", "bf16"): rng.normal(50, 1, 1),
                ("C", "fp32"): rng.normal(50, 1, 4)}
    table = pd.DataFrame([(*network, seed, value) for network, values in accuracy.items()
                          for seed, value in enumerate(values)],
                         columns=["model", "precision", "seed", "accuracy"])
    table = table.sample(frac=1, random_state=0).assign(dataset="cifar10", frozen=False)
    found = analysis.differences(table, "accuracy").set_index("model")
    assert found[["n_fp32", "n_bf16"]].values.tolist() == [[4, 3], [2, 1], [4, 0]]
    fp32, bf16, a = accuracy["A", "fp32"], accuracy["A", "bf16"], found.loc["A"]
    free = scipy.stats.ttest_ind(bf16, fp32, equal_var=False).confidence_interval(0.95)
    paired = scipy.stats.ttest_rel(bf16, fp32[:3]).confidence_interval(0.95)
    assert (a["low"], a["high"]) == pytest.approx(tuple(free))
    assert (a["paired_low"], a["paired_high"]) == pytest.approx(tuple(paired))
    assert a["difference"] == pytest.approx(a["bf16"] - a["fp32"])
    assert a["fp32"] == pytest.approx(fp32.mean())
    unknown = found[["bf16", "difference", "low", "paired_high"]].isna()
    assert unknown.loc["A":"C"].values.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]]


def test_break_even_is_where_the_gap_closes():
    def of(*gaps):
        table = rows(*(("ResNet-LC-8-8x1", frozen, seed, 80.0 - frozen * gap[seed])
                       for gap in gaps for seed in (0, 1) for frozen in (False, True)))
        return analysis.break_even(table.assign(width=np.repeat([16, 64][:len(gaps)], 4)), "width")

    found = of((2.0, 2.2), (-2.0, -2.2))
    assert found.value == pytest.approx(32) and found.n == 2
    assert found.interval()[0] < 32 < found.interval()[1]
    assert str(of((2.0, 2.2), (1.0, 1.2))).startswith("beyond the largest tested")
    assert str(of((-2.0, -2.2), (-3.0, -3.2))).startswith("below the smallest tested")
    assert str(of()).startswith("unknown")


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


def test_hours_by_line_of_table_4_profile_and_device():
    plain, combined = "ResNet-20-16", "ResNet-LC-20-16x8"
    names = plain, "MobileNet-v2", combined, f"{combined}+BN", f"{plain}-k5"
    table = pd.concat([rows(*((name, True, 0, 50.0) for name in names)),
                       rows((plain, False, 0, 50.0), (combined, False, 0, 50.0), dataset="svhn")])
    table = table.assign(seconds=1800.0, profile="paper", device=["A", "B", *"AAAAA"])
    costs = analysis.hours(table)[["line", "device", "runs", "hours", "runs_per_hour"]]
    assert costs.values.tolist() == [
        ["Ablation", "A", 1, 0.5, 2], ["Baseline CIFAR-10", "A", 1, 0.5, 2],
        ["Baseline CIFAR-10", "B", 1, 0.5, 2], ["LC CIFAR-10", "A", 2, 1, 2],
        ["LC SVHN", "A", 2, 1, 2]]

    def lines(*profiles):
        costs = analysis.hours(table.assign(profile=profiles, device="A"))
        return list(costs[["line", "profile", "runs"]].itertuples(index=False, name=None))

    found = lines(*["short"] * 5, "short-decay1e-3", "short-decay-product")
    assert ("Weight decay", "short", 2) in found
    found = lines("quick", "paper", "quick", "paper", "short", "paper-fp32", "paper-bf16")
    assert found == [("Ablation", "paper", 1), ("Baseline CIFAR-10", "paper", 1),
                     ("Baseline CIFAR-10", "quick", 1), ("LC CIFAR-10", "short", 1),
                     ("LC CIFAR-10", "quick", 1), ("Precision", "paper-bf16", 1),
                     ("Precision", "paper-fp32", 1)]


def test_the_central_share_is_that_of_the_central_square_and_the_concentration_that_over_uniform():
    values = np.ones((7, 7))
    assert analysis.central_share(values) == 9 / 49 and analysis.central_share(values[:3, :3]) == 1
    assert analysis.concentration(values) == analysis.concentration(values[:3, :3]) == 1
    values[2:5, 2:5] = 10
    assert analysis.central_share(values) == 90 / 130
    assert analysis.central_share(values, size=1) == 10 / 130
    assert analysis.concentration(values) == pytest.approx(90 / 130 * 49 / 9)
    values[3, 3] = 20
    assert analysis.concentration(values[2:5, 2:5]) == pytest.approx(20 / 100 * 9)
