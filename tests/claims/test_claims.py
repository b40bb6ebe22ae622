"""The claims on made-up stores in which the paper is right, is wrong, or may be either."""

import re
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import result_of

from lc import claims, results, study
from lc.claims import report, verdict
from lc.claims.report import by_paper, effect_text
from lc.claims.verdict import AS_IN_PAPER, CONTRARY, UNDECIDED, Part, holm, judge
from lc.effects import Crossing, of_seeds
from lc.names import OFF_THE_SHELF, combines
from lc.utils.files import ROOT

ON_CIFAR = [study.figure4, study.table1, study.figure8, study.figure6a, study.figure6b,
            study.table3, study.twin, study.figure1a]
ON_IMAGENET = [study.table2, study.figure1b]
FROZEN_ACCURACY = {1: 85, 2: 87, 4: 89, 8: 90.7, 16: 91, 32: 91.2, 64: 91.3, 128: 92, 256: 91.8}
FROZEN_ROBUST = {1: 45, 2: 48, 4: 51, 8: 54, 16: 56, 32: 57.5, 64: 59.5, 128: 61, 256: 62.5}
GAP_BY_WIDTH = {32: 3, 64: 1.5, 128: 0.2, 256: -0.5}
GAP_BY_DEPTH = {32: 4, 44: 3.5, 56: 3, 110: 1.5, 164: 0.8, 260: 0.1, 308: -0.5}
BETWEEN = {"+ReLU": (92.5, 93), "+BN": (90.8, 90.2), "+BN+ReLU": (93.5, 94.5)}  # frozen, learnable
LOSSES = {"ResNet-18": 18, "ResNet-34": 16.5, "ResNet-20-16": 39}  # of the other networks 17
LOSSES_ON_IMAGENET = {"ResNet-18": 35.3, "ResNet-50": 8, "Wide-ResNet-50x2": 4, "ResNet-50d": 5.5}
FROZEN_ON_IMAGENET = {0: 37.9, 1: 61, 8: 70, 64: 71.5, 128: 71.6}  # of ResNet-18d


def accuracy_if_true(run):
    """The accuracy of a run in a world in which the paper is right."""
    shape, e = run.architecture, run.architecture.expansion
    learnable = 91.6
    if run.dataset == "imagenet":
        learnable = {"ResNet-18": 72.6, "ResNet-18d": 72.6}.get(run.model, 70.5 if e else 76)
        loss = LOSSES_ON_IMAGENET.get(run.model, 6)
        if run.model.startswith("ResNet-18d"):
            loss = learnable - FROZEN_ON_IMAGENET[e]
    elif run.dataset != "cifar10":
        learnable, loss = (59, -2) if e else (60, 0)
    elif not e:
        loss = 1.75 if combines(run.model) else LOSSES.get(run.model, 17)
    elif shape.between:
        frozen, learnable = BETWEEN[shape.between]
        loss = learnable - frozen
    else:
        learnable = 90 + 0.1 * np.log2(e)
        loss = GAP_BY_DEPTH.get(shape.depth, learnable - FROZEN_ACCURACY[e])
        loss = GAP_BY_WIDTH.get(shape.width, loss) + 0.2 * (shape.kernel_size - 3)
    return learnable - run.frozen * loss


def columns_if_true(run):
    """The columns of a run's row, and the log10 of the variance at the centre over the
    other positions, in that world."""
    e, larger = run.architecture.expansion, run.architecture.kernel_size - 3
    doublings, accuracy = np.log2(max(e, 1)), accuracy_if_true(run)
    if not e:
        robust, over, first, last = 59, 4, 0.8, 0.35
    elif run.frozen:
        robust, over = FROZEN_ROBUST[e] if run.dataset == "cifar10" else 50, 2
        first, last = (0.97 - 0.026 * doublings + 0.1 * larger,
                       0.95 - 0.06 * doublings + 0.1 * larger)
    else:
        robust, over = 55, 5
        first, last = 0.65 - 0.01 * larger, (0.1 + 0.01 * doublings) / (10 if larger else 1)
    centre = 0.0 if run.frozen else 0.05 + 0.1 * larger
    return dict(accuracy=accuracy, robust_accuracy=robust, train_accuracy=accuracy + over,
                fve_first=first, fve_last=last), centre


def columns_if_false(run):
    """The mirror image, in which every difference has the other sign."""
    columns, centre = columns_if_true(run)
    columns = {name: (2 if name.startswith("fve") else 110) - value
               for name, value in columns.items()}
    of_figure_1b = run.dataset == "imagenet" and not run.model.startswith("ResNet-18d")
    if run.model in OFF_THE_SHELF or of_figure_1b:
        columns["accuracy"] = accuracy_if_true(replace(run, frozen=not run.frozen))
    elif run.model == "ResNet-20-16" and run.frozen:
        columns["accuracy"] = 90
    return columns, -centre - 0.3 * run.frozen


def columns_if_open(run):
    """All networks have the same means, and seeds differ so much that nothing else shows."""
    rng = np.random.default_rng(zlib.crc32(f"{run.dataset}{run.model}{run.frozen}".encode()))
    pattern = (1, -1, 1, -1) if run.frozen else (1, 1, -1, -1)
    noise = pattern[run.seed] * rng.uniform(0.5, 1.5)
    if "imagenet" in run.dataset:  # one seed
        noise = 0
    return dict(accuracy=60 + 10 * noise, robust_accuracy=40 + 10 * noise,
                train_accuracy=80 + noise, fve_first=0.8 + 0.1 * noise,
                fve_last=0.5 + 0.1 * noise), 0.1 * noise


def fill(folder, runs, columns_of, spread=0.0):
    """A store of the runs; `spread` is the standard deviation over seeds."""
    rows = {}
    for run in runs:
        rng = np.random.default_rng(zlib.crc32(run.id.encode()))
        columns, centre = columns_of(run)
        for name in columns:
            columns[name] += spread * rng.normal() * (0.01 if name.startswith("fve") else 1)
        k = run.architecture.kernel_size
        array = np.ones((k, k))
        array[k // 2, k // 2] = 10 ** (centre + 0.01 * spread * rng.normal())
        rows[run.id] = result_of(
            run, train_images=50_000, fve_first_normalized=columns["fve_first"],
            fve_last_normalized=columns["fve_last"], **columns).row()
        path = results.arrays_path(run.id, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, variance_map=array, first=array[None, None] ** 0.5)
    results._write(rows, folder)
    return folder


def runs_of(profile, experiments, **lists):
    return list(dict.fromkeys(run for each in experiments for run in each(profile, **lists)))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A function that fills the store, as `fill` does, and gives the verdicts on it by claim."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path))

    def verdicts(runs, columns_of=columns_if_true, spread=0.02):
        fill(tmp_path, runs, columns_of, spread)
        return claims.verdicts().set_index("number")

    return verdicts


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The verdicts in the three worlds, by claim."""
    on_cifar = runs_of("paper", ON_CIFAR)
    runs = on_cifar + runs_of("paper", ON_IMAGENET, seeds=[0, 1])
    worlds = {"true": (runs, columns_if_true, 0.02), "false": (runs, columns_if_false, 0.02),
              "open": (on_cifar + runs_of("short", ON_IMAGENET), columns_if_open, 0.0)}
    tables = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, world in worlds.items():
            folder = fill(tmp_path_factory.mktemp(name), *world)
            patch.setenv("LC_RESULTS_DIR", str(folder))
            tables[name] = claims.verdicts().set_index("number")
    return tables


NUMBERS = [claim.number for claim in claims.CLAIMS]
IMAGENET = "4", "5", "6", "21", "22"  # their grid has one seed


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("world, expected", [("true", AS_IN_PAPER), ("false", CONTRARY)])
def test_each_claim_is_decided_where_the_rows_decide_it(judged, number, world, expected):
    row = judged[world].loc[number]
    assert row["verdict"] == expected and row["profile"] == "paper", row["effect"]
    assert row["low"] <= row["value"] <= row["high"]
    assert row["n"] == (1 if number in IMAGENET else 4) or number == "6"  # of both data sets
    assert ("direction only" in row["why"]) == np.isnan(row["p"]) == (number in IMAGENET)


@pytest.mark.parametrize("number", NUMBERS)
def test_each_claim_is_left_open_where_seeds_differ_more_than_networks(judged, number):
    row = judged["open"].loc[number]
    assert row["verdict"] == UNDECIDED and row["why"] and not row["holm"], row["effect"]
    profile = "short" if number in IMAGENET else "paper"
    assert row["profile"] == ("none" if number == "6" else profile)


def test_the_scale_of_the_figure_shows_the_verdict(judged):
    for world in ("true", "false"):
        rows = judged[world].dropna(subset="scaled")
        assert (rows["scaled_low"] <= rows["scaled_high"]).all() and len(rows) >= 28
        assert (rows["scaled_low"] > 0 if world == "true" else rows["scaled"] < 0).all()
    row = judged["true"].loc["9"]  # expected below zero
    assert row["scaled"] == pytest.approx(-row["value"] / ((row["high"] - row["low"]) / 2))


def test_the_claims_are_the_papers_each_once_with_no_result_of_ours():
    assert {int(re.match(r"\d+", number)[0]) for number in NUMBERS} == set(range(1, 33))
    assert len(set(NUMBERS)) == len(NUMBERS) == 41
    assert {claim.notebook for claim in claims.CLAIMS} == {f"{n:02d}" for n in range(1, 14)}
    for claim in claims.CLAIMS:
        assert claim.text.endswith(".") and claim.statistic.endswith(".")
        assert "profile" not in claim.text


def test_the_largest_profile_that_has_the_runs_is_taken_and_never_mixed(store):
    short, quick = study.figure4("short"), study.figure4("quick")
    plain = [run for run in study.figure4("paper") if not run.architecture.expansion]
    table = store(plain + short + quick)
    assert (table.loc[["7", "8", "9", "10", "13a", "17"], "profile"] == "short").all()
    assert table.loc["9", "verdict"] == AS_IN_PAPER
    assert table.loc["9", "trained"] == "15 of 75 epochs, 80 % of the steps, 6 of 9 networks"
    assert "no E = 256" in table.loc["12", "why"] and table.loc["12", "verdict"] == UNDECIDED
    # Four of six expansions are less than three quarters of them
    kept = [run for run in short if run.architecture.expansion in (1, 2, 4, 8)]
    row = store(kept + quick).loc["9"]
    assert row["profile"] == "none" and row["verdict"] == UNDECIDED
    assert row["why"] == "too few networks with 15 or 75 epochs"


def test_tiny_runs_decide_nothing(store):
    table = store(runs_of("quick", [study.figure4, study.table3]))
    assert set(table["verdict"]) == {UNDECIDED} and table["p"].isna().all()
    assert (table.loc[["7", "9", "29"], "why"] == "only tiny runs").all()
    assert table.loc["9", "value"] < 0


def test_short_runs_do_not_decide_the_papers_numbers(store):
    table = store(runs_of("short", [study.figure1a, study.figure4]))
    assert table.loc[["1", "2", "3"], "verdict"].tolist() == [UNDECIDED, UNDECIDED, AS_IN_PAPER]
    assert (table.loc[["10", "11"], "why"] == "only runs of 75 epochs can decide it").all()
    first = table.loc["1"]
    assert "only runs of 75 epochs" in first["why"] and first["low"] < 1.75 < first["high"]


def test_one_seed_shows_the_direction_by_the_spread_of_repeated_networks(store):
    def noisy(run):  # seeds differ by 0.2 points
        columns, centre = columns_if_true(run)
        return columns | {"accuracy": columns["accuracy"] + (0.1, -0.1)[run.seed]}, centre

    once = study.figure8("short", seeds=[0])
    row = store(study.figure4("short") + once, noisy, 0.0).loc["23"]
    assert row["n"] == 1 and row["verdict"] == AS_IN_PAPER and np.isnan(row["p"])
    assert "spread of other networks" in row["why"]
    others = [replace(run, model=f"{run.model}~shuffled") for run in study.figure4("short")]
    for further in [], others:  # these start otherwise, and so differ otherwise
        row = store(once + further, noisy, 0.0).loc["23"]
        assert row["verdict"] == UNDECIDED and "too few networks with several" in row["why"]


def test_numbers_of_a_map_take_the_spread_of_the_same_kernel_size(store):
    """Seeds differ in them by as much as the kernel size makes them."""
    more = [0, *range(1, 8)]
    runs = study.figure8("short", seeds=[0]) + study.figure8("short", kernel_sizes=[3], seeds=more)
    row = store(runs).loc["25a"]
    assert row["verdict"] == UNDECIDED and "too few networks with several" in row["why"]
    for k in (5, 7, 9):
        runs += study.figure8("short", kernel_sizes=[k], expansions=[1], seeds=more)
    row = store(list(dict.fromkeys(runs))).loc["25a"]
    assert row["verdict"] == AS_IN_PAPER and row["n"] == 1


def test_a_network_that_is_missing_is_named(store):
    runs = [run for run in study.table3("short") if not run.model.endswith("+BN+ReLU")]
    row = store(runs + study.figure6a("short")).loc["31"]
    assert row["why"] == "runs of 15 epochs have no network with +BN+ReLU"
    assert row["verdict"] == UNDECIDED


def test_a_claim_has_the_seeds_that_all_its_parts_have(store):
    kept = [run for run in study.table3("short", seeds=[0, 1])
            if run.seed == 0 or "ReLU" not in run.model]
    table = store(kept)
    assert table.loc["29", "n"] == 2 and table.loc["30", "n"] == 1
    assert np.isnan(table.loc["30", "p"])


def test_rows_without_accuracy_on_training_images_leave_the_regularisation_open(store):
    def old(run):
        columns, centre = columns_if_true(run)
        return columns | {"train_accuracy": float("nan")}, centre

    row = store(study.figure4("paper"), old).loc["17"]
    assert row["profile"] == "none" and row["verdict"] == UNDECIDED


def test_answers_narrow_nothing_and_widen_intervals_by_the_images(store, tmp_path):
    runs = [run for run in study.twin("paper") if not run.frozen]
    without = store(runs).loc["32"]
    rng = np.random.default_rng(0)
    hard = {run.model: rng.random(10_000) < 0.1 for run in runs}  # with every seed
    for run in runs:
        path = results.arrays_path(run.id, tmp_path)
        right = np.packbits(~hard[run.model] & (rng.random(10_000) < 0.95))
        np.savez(path, **dict(np.load(path)), right=right, robust=right)
    row = claims.verdicts("03").set_index("number").loc["32"]
    assert row["value"] == without["value"]
    assert row["high"] - row["low"] > 1.2 * (without["high"] - without["low"])


def test_without_rows_nothing_is_decided(store):
    assert set(store([])["verdict"]) == {UNDECIDED}


def test_the_papers_own_numbers_are_judged_by_the_same_rule():
    said = {claim.number: by_paper(claim) for claim in claims.CLAIMS if claim.published}
    assert set(said) == {"7", "11", "20", "29", "30", "31"}
    assert said["11"].startswith("not decided: 0.29 points (−0.05 to 0.63)")
    assert said["29"].startswith("not decided") and said["20"].startswith("decided")


def test_a_box_says_the_claim_the_effect_and_the_verdict(store):
    store(study.figure6a("paper"))
    text, html = repr(claims.box("05")), claims.box("05")._repr_html_()
    for words in ("Claim 18b", "Figure 6a", "W = 1", "n = 4", "as in the paper"):
        assert words in text and words in html
    for profile in ("smoke", "quick"):
        assert f"longest recipes in {results.results_folder()}" in repr(claims.box("05", profile))
    assert "longest recipes" not in text
    with pytest.raises(ValueError, match="no claim belongs to notebook '14'"):
        claims.box("14")
    store(study.figure6a("short") + study.figure6a("paper", widths=[16, 32], seeds=[0]))
    text = repr(claims.box("05"))
    assert "(no interval); 75 epochs, n = 1" in text and "15 of 75 epochs, 80 % of the steps" in text


def test_only_notebooks_import_the_claims():
    for path in (ROOT / "lc").rglob("*.py"):
        if path.parent.name != "claims":
            assert not re.search(r"^\s*(from|import) .*\bclaims\b", path.read_text(), re.M), path


def certain(value, half=1.0):
    """An effect with a 95 % interval of ± half."""
    return of_seeds(pd.Series([float(value)]), pooled=((half / 1.959964) ** 2, 10 ** 9))


@pytest.mark.parametrize("value, half, expected, margin, said", [
    (1, 0.9, (0, np.inf), 0, AS_IN_PAPER), (-1, 0.9, (0, np.inf), 0, CONTRARY),
    (1, 1.1, (0, np.inf), 0, UNDECIDED),
    (-1, 0.9, (-np.inf, 0), 0, AS_IN_PAPER), (17, 1.1, (16, np.inf), 0, UNDECIDED),
    (1.75, 0.3, (1.6, 1.9), 0.5, AS_IN_PAPER),
    (3.55, 3.05, (1.6, 1.9), 0.5, UNDECIDED),  # 0.5 to 6.6 confirms nothing
    (3, 0.5, (1.6, 1.9), 0.5, CONTRARY), (2.6, 0.5, (1.6, 1.9), 0.5, UNDECIDED),
    (2.2, 0.23, (1.6, 1.9), 0.5, AS_IN_PAPER),  # the two one-sided tests take the interval of 90 %
])
def test_decisions(value, half, expected, margin, said):
    assert judge([Part("", certain(value, half), expected=expected, margin=margin)]) == said


def test_a_place_between_coarse_neighbours_is_not_decided():
    curve = {1: certain(4, 0.1), 2: certain(1.31, 0.1), 8: certain(-1.75, 0.1)}
    part = Part("", Crossing(curve), "E", (4, 8), 0.5)
    assert part.unclear == (2, 8) and judge([part]) == UNDECIDED
    assert effect_text(part) == "E between 2 and 8"
    part = Part("", Crossing({**curve, 4: certain(0.98, 0.1)}), "E", (4, 8), 0.5)
    assert part.unclear is None and judge([part]) == AS_IN_PAPER
    part = Part("", Crossing({**curve, 4: certain(-0.98, 0.1)}), "E", (4, 8), 0.1)
    assert judge([part]) == CONTRARY


@pytest.mark.parametrize("widths, gaps, said", [
    ((16, 32, 64), (8, 6, 4), UNDECIDED),  # the largest width tested is below the paper's
    ((16, 64, 512), (8, 6, 4), CONTRARY), ((32, 64), (-1, -2), CONTRARY),
    ((128, 1024), (-1, -2), UNDECIDED)])
def test_a_place_beyond_those_tested_is_only_known_to_lie_beyond(widths, gaps, said):
    curve = Crossing({width: certain(gap, 0.1) for width, gap in zip(widths, gaps)})
    assert judge([Part("", curve, "W", (128, 128), 1.0)]) == said


def test_an_interval_beyond_all_places_is_said_once():
    part = Part("", Crossing({width: certain(8, 0.1) for width in (16, 32)}), "W", (128, 128))
    assert effect_text(part) == "beyond the largest W tested (at both ends of its interval, too)"


def test_a_contrary_verdict_shows_a_part_that_makes_it_so():
    parts = [Part("clear", certain(-1, 0.5)), Part("unknown", certain(-3, np.nan)),
             Part("open", certain(-2, 3))]
    assert judge(parts[1:]) == UNDECIDED and verdict.weakest(parts[1:]) is parts[1]
    assert judge(parts) == CONTRARY and verdict.weakest(parts) is parts[0]
    exact = Part("without a width", certain(-1, 0))
    assert judge([exact]) == CONTRARY and verdict.weakest([*parts[1:], exact]) is exact


def test_a_mean_over_e_is_of_the_expansions_that_all_kernel_sizes_have(store):
    """The slow runs, of large kernels with large E, come last."""
    runs = [run for run in study.figure8("short", seeds=[0])
            if run.architecture.kernel_size < 9 or run.architecture.expansion < 64]

    def by_expansion(run):  # nothing differs by kernel size
        columns, centre = columns_if_true(run)
        return columns | {"fve_last": 0.3 + 0.1 * (run.architecture.expansion > 8)}, centre

    row = store(runs, by_expansion, 0.0).loc["27"]
    falls = [float(part.split(": ")[1].split()[0].replace("−", "-"))
             for part in row["parts"] if "minus k" in part]
    assert len(falls) == 3 and falls == [0.0, 0.0, 0.0]


def test_one_part_of_many_is_seldom_contrary_by_chance():
    rng, wrong, times = np.random.default_rng(0), 0, 1000
    for _ in range(times):
        parts = [Part("", certain(value, 1.959964)) for value in rng.normal(0, 1, 5)]
        wrong += judge(parts) == CONTRARY
    assert wrong / times < 0.035  # a side is taken at 0.025


def test_the_p_value_is_the_level_at_which_a_claim_is_decided():
    for value, half in ((2, 1.0), (-1.2, 1.0)):
        p = verdict.p_value([Part("", certain(value, half))])
        assert p == pytest.approx(2 * scipy.stats.norm.sf(abs(value) * 1.959964 / half), rel=0.02)
    assert verdict.p_value([Part("", certain(np.nan))]) == 1


def test_holms_correction():
    assert list(holm([0.01, 0.04, 0.03, 0.005])) == [True, False, False, True]
    assert list(holm([0.001, 0.5])) == [True, False] and not len(holm([]))


def test_what_is_said_against_a_contrary_verdict_can_be_said_of_every_claim():
    """Rows of the paper's recipe may lack all that a claim is about, or leave no interval."""
    verdict.forget()  # other tests' rows
    for each in claims.CLAIMS:
        said = report.doubt(each)
        assert "nan" not in said and ("no runs" in said or "n = " in said), each.number
        reason = each.reason or "We do not know why."
        assert said.startswith(reason) or "point its way" in said
