"""What tables and figures are computed from rows with: against hand-made numbers, and by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import rows

from lc import analysis


def test_summary():
    means = analysis.summary(rows(("ResNet-LC-20-16x16", True, 0, 61.0), ("ResNet-20-16", False, 0, 60.0),
                                  ("ResNet-LC-20-16x2", True, 0, 50.0), ("ResNet-LC-20-16x2", True, 1, 54.0)), "accuracy")
    assert list(means["expansion"]) == [0, 2, 16] and list(means["n"]) == [1, 2, 1]
    assert means["accuracy"][1] == 52 and means["accuracy_std"][1] == pytest.approx(8 ** 0.5)
    assert math.isnan(means["accuracy_std"][0])


def test_a_line_keeps_no_smaller_profile_than_the_largest_with_every_role():
    cells = pd.DataFrame([("a", "plain", "paper"), *(("a", role, name) for name in ("short", "quick") for role in ("plain", "LC")),
                          ("b", "plain", "short"), ("b", "plain", "quick")], columns=["row", "role", "source"])
    kept = analysis.largest_profiles(cells)
    assert list(zip(kept["row"], kept["source"])) == [("a", "paper"), ("a", "short"), ("a", "short"), ("b", "short"), ("b", "quick")]
    assert analysis.largest_profiles(cells[:0]).empty


def test_gaps_are_paired_by_seed_and_need_both_runs():
    name = "ResNet-LC-20-16x1"
    table = rows((name, False, 0, 60.0), (name, True, 0, 50.0), (name, False, 1, 64.0), (name, True, 1, 50.0),
                 (name, False, 2, 99.0), ("ResNet-LC-20-32x1", True, 0, 50.0))
    gaps = analysis.gaps(table)
    assert list(gaps["model"]) == [name] and list(gaps["n"]) == [2] and list(gaps["width"]) == [16]
    assert gaps["gap"][0] == 12 and gaps["gap_std"][0] == pytest.approx(8 ** 0.5)
    assert analysis.gaps(table[table["frozen"]]).empty


def test_differences_have_both_intervals_and_need_runs_of_both_kinds():
    rng = np.random.default_rng(0)
    accuracy = {("A", "fp32"): rng.normal(80, 1, 4), ("A", "bf16"): rng.normal(79, 3, 3), ("B", "fp32"): rng.normal(50, 1, 2),
                ("B", "bf16"): rng.normal(50, 1, 1), ("C", "fp32"): rng.normal(50, 1, 4)}
    table = pd.DataFrame([(model, kind, seed, value) for (model, kind), values in accuracy.items()
                          for seed, value in enumerate(values)], columns=["model", "precision", "seed", "accuracy"])
    table = table.sample(frac=1, random_state=0)
    found = analysis.differences(table.assign(dataset="cifar10", frozen=False), "accuracy").set_index("model")
    assert found[["n_fp32", "n_bf16"]].values.tolist() == [[4, 3], [2, 1], [4, 0]]
    test = scipy.stats.ttest_ind(accuracy["A", "bf16"], accuracy["A", "fp32"], equal_var=False)
    a = found.loc["A"]
    assert (a["low"], a["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    test = scipy.stats.ttest_rel(accuracy["A", "bf16"], accuracy["A", "fp32"][:3])
    assert (a["paired_low"], a["paired_high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert a["difference"] == pytest.approx(a["bf16"] - a["fp32"]) == pytest.approx((a["low"] + a["high"]) / 2)
    assert a["fp32"] == pytest.approx(accuracy["A", "fp32"].mean()) and math.isnan(found.loc["C", "bf16"])
    assert found["difference"].isna().tolist() == [False, False, True] and found["low"].isna().tolist() == [False, True, True]
    assert found["paired_high"].isna().tolist() == [False, True, True]


def test_break_even_is_where_the_gap_closes():
    def of(*gaps):
        table = rows(*(("ResNet-LC-8-8x1", frozen, seed, 80.0 - frozen * gap[seed]) for gap in gaps for seed in (0, 1)
                       for frozen in (False, True)))
        return analysis.break_even(table.assign(width=np.repeat([16, 64][:len(gaps)], 4)), "width")

    found = of((2.0, 2.2), (-2.0, -2.2))
    assert found.value == pytest.approx(32) and found.n == 2 and found.interval()[0] < 32 < found.interval()[1]
    assert str(of((2.0, 2.2), (1.0, 1.2))).startswith("beyond the largest tested")
    assert str(of((-2.0, -2.2), (-3.0, -3.2))).startswith("below the smallest tested")
    assert str(of()).startswith("unknown")


def test_matched_finds_the_same_filters_in_every_row():
    rng = np.random.default_rng(0)
    filters = rng.normal(size=(16, 3, 5, 5)) * np.linspace(1, 3, 16)[:, None, None, None]
    rows = [scale * filters[rng.permutation(16)] + rng.normal(scale=0.1, size=filters.shape) for scale in (0.1, 2, 1)]
    rows.append(filters[rng.permutation(16)])
    ordered = analysis.matched(rows)
    norms = np.linalg.norm(ordered[-1].reshape(16, -1), axis=1)
    assert (np.diff(norms) <= 0).all()
    for row, original in zip(ordered, rows, strict=True):
        assert sorted(row.ravel()) == sorted(original.ravel())
    for row in ordered[1:]:
        a, b = row.reshape(16, -1), ordered[-1].reshape(16, -1)
        assert (np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1) > 0.9).all()


def test_hours_by_line_of_table_4_profile_and_device():
    table = pd.concat([
        rows(("ResNet-20-16", True, 0, 50.0), ("MobileNet-v2", False, 0, 50.0), ("ResNet-LC-20-16x8", True, 0, 50.0),
             ("ResNet-LC-20-16x8+BN", True, 0, 50.0), ("ResNet-20-16-k5", False, 0, 50.0)),
        rows(("ResNet-20-16", False, 0, 50.0), ("ResNet-LC-20-16x8", False, 0, 50.0), dataset="svhn")], ignore_index=True)
    table = table.assign(seconds=1800.0, profile="paper", device=["A", "B", *"AAAAA"])
    costs = analysis.hours(table).set_index(["line", "device"])
    assert list(costs.index) == [("Ablation", "A"), ("Baseline CIFAR-10", "A"), ("Baseline CIFAR-10", "B"), ("LC CIFAR-10", "A"),
                                 ("LC SVHN", "A")]
    assert list(costs["runs"]) == [1, 1, 1, 2, 2] and list(costs["hours"]) == [0.5, 0.5, 0.5, 1, 1]
    assert (costs["runs_per_hour"] == 2).all()
    costs = analysis.hours(table.assign(profile=["paper"] * 5 + ["paper-fp32", "paper-bf16"]))
    assert list(costs["line"])[-2:] == ["Precision", "Precision"] and list(costs["runs"]) == [1, 1, 1, 2, 1, 1]
    costs = analysis.hours(table.assign(profile=["short"] * 5 + ["short-decay1e-3", "short-decay-product"], device="A"))
    assert costs.set_index("line").loc["Weight decay", ["profile", "runs"]].tolist() == ["short", 2]
    costs = analysis.hours(table.assign(profile=["quick", "paper", "quick", "paper", "short", "short", "paper"], device="A"))
    assert list(costs.set_index("line").loc["LC CIFAR-10", "profile"]) == ["short", "quick"]
    assert list(costs.set_index("line").loc["LC SVHN", "profile"]) == ["paper", "short"]


def test_the_central_share_is_that_of_the_central_square():
    values = np.ones((7, 7))
    assert analysis.central_share(values) == 9 / 49 and analysis.central_share(values[:3, :3]) == 1
    values[2:5, 2:5] = 10
    assert analysis.central_share(values) == 90 / 130
    assert analysis.central_share(values, size=1) == 10 / 130


def test_the_concentration_is_1_without_a_preferred_position():
    assert analysis.concentration(np.ones((3, 3))) == analysis.concentration(np.ones((9, 9))) == pytest.approx(1)
    values = np.ones((3, 3))
    values[1, 1] = 2
    assert analysis.concentration(values) == pytest.approx(2 / 10 * 9)
    assert analysis.concentration(np.pad(values, 1)) == pytest.approx(25 / 9)
