"""The claims on made-up stores in which the paper is right, wrong, or cannot be told to be either; their statistics by hand."""

import re
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers import result

from lc import claims, paper, results, study
from lc.analysis import Estimate, crossing
from lc.claims import effects, verdict
from lc.models import OFF_THE_SHELF, combines
from lc.utils.files import ROOT

EXPERIMENTS = [experiment for name, experiment in study.EXPERIMENTS.items() if name != "precisions"]
FROZEN_ACCURACY = {1: 85, 2: 87, 4: 89, 8: 90.7, 16: 91, 32: 91.2, 64: 91.3, 128: 92, 256: 91.8}
FROZEN_ROBUST = {1: 45, 2: 48, 4: 51, 8: 54, 16: 56, 32: 57.5, 64: 59.5, 128: 61, 256: 62.5}
GAP_BY_WIDTH = {32: 3, 64: 1.5, 128: 0.2, 256: -0.5}
GAP_BY_DEPTH = {32: 4, 44: 3.5, 56: 3, 110: 1.5, 164: 0.8, 260: 0.1, 308: -0.5}
BETWEEN = {"+ReLU": (92.5, 93), "+BN": (90.8, 90.2), "+BN+ReLU": (93.5, 94.5)}  # frozen, learnable
LOSSES = {"ResNet-18": 35.3, "ResNet-50": 8, "Wide-ResNet-50x2": 4, "ResNet-50d": 5.5}  # on ImageNet; of the others 6
LOSSES_ON_CIFAR = {"ResNet-18": 18, "ResNet-34": 16.5, "ResNet-20-16": 39}


def accuracy_if_true(run):
    """The accuracy of a run in a world in which the paper is right."""
    shape, e = run.architecture, run.architecture.expansion
    if run.dataset == "imagenet":
        if run.model.startswith("ResNet-18d"):
            return {0: 37.9, 1: 61, 8: 70, 64: 71.5, 128: 71.6}[e] if run.frozen else 70.5 if e else 72.6
        return (72.6 if run.model == "ResNet-18" else 76) - run.frozen * LOSSES.get(run.model, 6)
    if run.dataset != "cifar10":
        return 60 if not e else 61 if run.frozen else 59
    if not e:
        return 91.6 - run.frozen * (1.75 if combines(run.model) else LOSSES_ON_CIFAR.get(run.model, 17))
    learnable = 90 + 0.1 * np.log2(e)
    if shape.between:
        return BETWEEN[shape.between][0 if run.frozen else 1]
    gap = learnable - FROZEN_ACCURACY[e]
    gap = GAP_BY_WIDTH.get(shape.width, GAP_BY_DEPTH.get(shape.depth, gap)) + 0.5 * (shape.kernel_size - 3)
    return learnable - run.frozen * gap


def columns_if_true(run):
    """The columns of a run's row, and the log10 of the centre over the border, in that world."""
    e, k = run.architecture.expansion, run.architecture.kernel_size
    doublings, accuracy = np.log2(max(e, 1)), accuracy_if_true(run)
    if not e:
        robust, first, last, over = 59, 0.8, 0.35, 4
    elif run.frozen:
        robust, over = FROZEN_ROBUST[e] if run.dataset == "cifar10" else 50, 2
        first, last = 0.97 - 0.026 * doublings + 0.1 * (k - 3), 0.95 - 0.06 * doublings + 0.1 * (k - 3)
    else:
        robust, over, first, last = 55, 5, 0.65 - 0.01 * (k - 3), (0.1 + 0.01 * doublings) / (1 if k == 3 else 10)
    centre = 0.02 * doublings if run.frozen else 0.05 + 0.1 * (k - 3)
    return dict(accuracy=accuracy, robust_accuracy=robust, train_accuracy=accuracy + over, fve_first=first, fve_last=last), centre


def columns_if_false(run):
    """The mirror image, in which every difference has the other sign."""
    columns, centre = columns_if_true(run)
    columns = {name: (1.5 if name.startswith("fve") else 110) - value for name, value in columns.items()}
    if run.model in OFF_THE_SHELF or run.dataset == "imagenet" and not run.model.startswith("ResNet-18d"):
        columns["accuracy"] = accuracy_if_true(replace(run, frozen=not run.frozen))
    elif run.model == "ResNet-20-16" and run.frozen:
        columns["accuracy"] = 90
    return columns, -centre


def columns_if_open(run):
    """All networks have the same means, and seeds differ so much that nothing else shows."""
    rng = np.random.default_rng(zlib.crc32(f"{run.dataset}{run.model}{run.frozen}".encode()))
    pattern = (1, -1, 1, -1) if run.frozen else (1, 1, -1, -1)
    noise = 0 if run.dataset.endswith(("imagenet", "40")) else pattern[run.seed] * rng.uniform(0.5, 1.5)
    return dict(accuracy=60 + 10 * noise, robust_accuracy=40 + 10 * noise, train_accuracy=80 + noise, fve_first=0.8 + 0.1 * noise,
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
        rows[run.id] = replace(result(), id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen, seed=run.seed,
                               profile=run.recipe.profile, train_images=50_000, fve_first_normalized=columns["fve_first"],
                               fve_last_normalized=columns["fve_last"], **columns).row()
        path = results.arrays_path(run.id, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, variance_map=array, first=array[None, None] ** 0.5)
    results._write(rows, folder)
    return folder


def runs_of(profile, experiments=EXPERIMENTS):
    return list(dict.fromkeys(run for experiment in experiments for run in experiment(profile)))


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The verdicts in the three worlds, by claim."""
    on_imagenet = [study.figure1b, study.table2]
    on_cifar = [experiment for experiment in EXPERIMENTS if experiment not in on_imagenet]
    worlds = {"true": (runs_of("paper"), columns_if_true, 0.02), "false": (runs_of("paper"), columns_if_false, 0.02),
              "open": (runs_of("paper", on_cifar) + runs_of("short", on_imagenet), columns_if_open, 0.0)}
    tables = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, (runs, columns_of, spread) in worlds.items():
            patch.setenv("LC_RESULTS_DIR", str(fill(tmp_path_factory.mktemp(name), runs, columns_of, spread)))
            tables[name] = claims.verdicts().set_index("number")
    return tables


CLAIMS = range(1, 33)


@pytest.mark.parametrize("number", CLAIMS)
@pytest.mark.parametrize("world, expected", [("true", verdict.AS_IN_PAPER), ("false", verdict.CONTRARY)])
def test_each_claim_is_decided_where_the_rows_decide_it(judged, number, world, expected):
    row = judged[world].loc[number]
    assert row["verdict"] == expected and row["profile"] == "paper", row["effect"]
    assert row["low"] <= row["value"] <= row["high"] and row["n"] == (1 if number in (4, 5, 6, 21, 22) else 4)


@pytest.mark.parametrize("number", CLAIMS)
def test_each_claim_is_left_open_where_seeds_differ_more_than_networks(judged, number):
    row = judged["open"].loc[number]
    assert row["verdict"] == verdict.UNDECIDED, row["effect"]
    assert row["profile"] == {4: "short", 5: "short", 6: "none", 21: "short", 22: "short"}.get(number, "paper")


def test_the_scale_of_the_figure_shows_the_verdict(judged):
    for world, side in (("true", 1), ("false", -1)):
        scaled = judged[world][judged[world]["scaled"].notna()]
        ends = scaled[["scaled_low", "scaled_high"]].to_numpy()
        assert (ends[:, 0] <= ends[:, 1]).all() and len(scaled) >= 28
        sides = scaled[~scaled.index.isin([1, 4, 10, 11, 18, 19])]
        assert ((sides["scaled_low"] > 0) if side > 0 else (sides["scaled_high"] < 0)).all()
    row = judged["true"].loc[9]  # expected below zero
    assert row["scaled"] == pytest.approx(-row["value"] / ((row["high"] - row["low"]) / 2))


def test_the_claims_are_the_papers_32_each_once_with_no_result_of_ours():
    assert sorted(claim.number for claim in claims.CLAIMS) == list(range(1, 33))
    assert {claim.notebook for claim in claims.CLAIMS} == {f"{n:02d}" for n in range(1, 14)}
    published = {f"{value:g}" for value in (*paper.CIFAR10_GAP_COMBINED, paper.CIFAR10_GAP_UNCOMBINED, *paper.IMAGENET_GAP,
                                            paper.IMAGENET_GAP_RESNET18, paper.PASSES_LEARNABLE_AT, paper.PASSES_BASELINE_AT,
                                            *paper.DIVERSE_BUT_LESS_ROBUST_AT, paper.BREAK_EVEN_WIDTH, paper.BREAK_EVEN_DEPTH)}
    for claim in claims.CLAIMS:
        text = re.sub(r"(Wide-)?ResNet-\d+(x2|d)?( against \d+)?|CIFAR-10|3x3|E = 1,|or plain", "", f"{claim.title} {claim.text}")
        assert set(re.findall(r"\d+(?:\.\d+)?", text)) <= published, claim.text
        assert claim.text.endswith(".") and claim.where.startswith(("Section", "Appendix"))


def test_a_report_prints_three_lines_a_claim(judged, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LC_RESULTS_DIR", str(fill(tmp_path, runs_of("paper", [study.figure6a]), columns_if_true, 0.02)))
    claims.report("05")
    claim, statistic, said = capsys.readouterr().out.splitlines()
    assert claim.startswith("Claim 18 (Section 4.1, Figure 6a): ") and statistic.startswith("Statistic: ")
    assert re.fullmatch(r"Verdict: profile paper, n = 4, W: 1\d\d \(95 %: 1\d\d to 1\d\d\): as in the paper\.", said)
    claims.report("06")
    assert capsys.readouterr().out.splitlines()[2] == (
        "Verdict: no profile has rows of the runs that it needs: not decided by these rows.")
    with pytest.raises(ValueError, match="no claim belongs to notebook '14'; those with claims: 01, 02"):
        claims.report("14")


def test_the_largest_profile_that_has_the_runs_is_taken_and_never_mixed(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path))
    short = [run for run in study.figure4("short") if run.seed == 0]
    plain = [run for run in study.figure4("paper") if not run.architecture.expansion]
    fill(tmp_path, plain + short + study.figure4("quick"), columns_if_true, 0.02)
    table = claims.verdicts("03").set_index("number")
    assert (table.loc[[7, 8, 9, 10, 11, 13, 17], "profile"] == "short").all() and (table.loc[[7, 9, 10], "n"] == 1).all()
    assert "one seed: direction only" in table.loc[10, "effect"] and table.loc[12, "profile"] == "none"
    assert table.loc[10, "verdict"] == verdict.AS_IN_PAPER
    # An entropy of one seed has no interval
    diversity = claims.verdicts("04").set_index("number").loc[15]
    assert diversity["verdict"] == verdict.UNDECIDED and "no interval; one seed" in diversity["effect"]
    # Four of five expansions are three quarters of them, three are not
    for left, profile in ((4, "short"), (3, "quick")):
        kept = [run for run in short if run.architecture.expansion in (1, 2, 8, 32)[:left]]
        fill(tmp_path, kept + study.figure4("quick"), columns_if_true, 0.02)
        assert claims.verdicts("03").set_index("number").loc[9, "profile"] == profile


def test_small_profiles_do_not_decide_the_papers_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_RESULTS_DIR", str(fill(tmp_path, runs_of("short", [study.figure1a, study.figure4])
                                                  + study.figure4("quick"), columns_if_true, 0.02)))
    first, second, third = claims.verdicts("01").itertuples()
    assert first.verdict == second.verdict == verdict.UNDECIDED and third.verdict == verdict.AS_IN_PAPER
    assert "a number for rows of paper" in first.effect and first.low < 1.75 < first.high


def test_rows_without_accuracy_on_training_images_leave_the_regularisation_open(tmp_path, monkeypatch):
    def old(run):
        columns, centre = columns_if_true(run)
        return columns | {"train_accuracy": float("nan")}, centre

    monkeypatch.setenv("LC_RESULTS_DIR", str(fill(tmp_path, study.figure4("paper"), old, 0.02)))
    row = claims.verdicts("03").set_index("number").loc[17]
    assert row["profile"] == "none" and row["verdict"] == verdict.UNDECIDED


def test_without_rows_nothing_is_decided(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path))
    assert set(claims.verdicts()["verdict"]) == {verdict.UNDECIDED}


def test_only_notebooks_import_the_claims():
    for path in (ROOT / "lc").rglob("*.py"):
        if path.parent.name != "claims":
            assert not re.search(r"^\s*(from|import) .*\bclaims\b", path.read_text(), re.M), path


@pytest.mark.parametrize("ends, expected, said", [
    ((0.1, 2), (0, np.inf), verdict.AS_IN_PAPER), ((-2, -0.1), (0, np.inf), verdict.CONTRARY),
    ((-1, 2), (0, np.inf), verdict.UNDECIDED), ((np.nan, np.nan), (0, np.inf), verdict.UNDECIDED),
    ((-2, -1), (-np.inf, 0), verdict.AS_IN_PAPER), ((17, np.inf), (16, np.inf), verdict.UNDECIDED),
    ((1.5, 1.7), (1.6, 1.9), verdict.AS_IN_PAPER), ((2, 3), (1.6, 1.9), verdict.CONTRARY),
    ((-1, 5), (1.6, 1.9), verdict.UNDECIDED), ((64, np.inf), (64, 256), verdict.UNDECIDED),
    ((np.inf, np.inf), (64, 256), verdict.CONTRARY), ((8, 8), (5.7, 11.3), verdict.AS_IN_PAPER),
])
def test_decisions(ends, expected, said):
    assert verdict.decide(Estimate(np.mean(ends), *ends, 4), expected) == said


def sample(*values, error=np.nan, seeds=None):
    return pd.DataFrame({"value": values, "error": error}, index=pd.Index(seeds or range(len(values)), name="seed"), dtype=float)


def test_paired_and_welch_intervals_are_scipys():
    a, b = np.random.default_rng(0).normal([[80], [79]], [[1], [3]], (2, 4))
    found = effects.mean(effects.minus(sample(*a), sample(*b)))
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high, found.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 4)
    found, expected = effects.apart(sample(*a), sample(*b[:3])), scipy.stats.ttest_ind(a, b[:3], equal_var=False)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95))) and found.n == 3
    assert effects.apart(sample(1, 1), sample(2, 2)) == Estimate(-1, -1, -1, 2)


def test_the_networks_of_a_curve_share_the_variance_over_seeds():
    a, b = (effects.pooled({1: sample(*one), 8: sample(*two)}) for one, two in (((1, 3), (10, 14)), ((0, 2), (5, 5))))
    assert a[1].attrs["spread"] == a[8].attrs["spread"] == (5, 2) and b[1].attrs["spread"] == (1, 2)
    half = scipy.stats.t.ppf(0.975, 2) * (5 / 2) ** 0.5
    assert effects.mean(a[1]) == Estimate(2, pytest.approx(2 - half), pytest.approx(2 + half), 2)
    freedom = 3 ** 2 / (2.5 ** 2 / 2 + 0.5 ** 2 / 2)
    assert effects.apart(a[8], b[8]).high == pytest.approx(7 + scipy.stats.t.ppf(0.975, freedom) * 3 ** 0.5)
    assert "spread" not in effects.minus(a[1], b[1]).attrs  # differences have a spread of their own
    one = effects.pooled({1: sample(50, error=0.5), 8: sample(10, 14)})[1]
    assert effects.mean(one).high == pytest.approx(50 + 1.959964 * 0.5)  # one seed: the error of its test images


def test_one_seed_has_the_binomial_error_of_the_test_images():
    error = verdict.binomial_error(90, 10_000)
    assert error == pytest.approx(0.3)
    found = effects.mean(effects.minus(sample(90, error=error), sample(50, error=0.4)))
    assert (found.value, found.high, found.n) == (40, pytest.approx(40 + 1.959964 * 0.5), 1)
    found = effects.apart(sample(90, error=0.3), sample(50, 52, error=0.4 * 2 ** 0.5))
    assert (found.value, found.low, found.n) == (39, pytest.approx(39 - 1.959964 * 0.5), 1)
    assert np.isnan(effects.mean(sample()).value) and np.isnan(effects.mean(sample(0.5)).low)


def test_samples_are_paired_by_seed():
    difference = effects.minus(sample(5, 7, 9, seeds=[0, 1, 2]), sample(1, 2, seeds=[2, 1]))
    assert difference["value"].to_dict() == {1: 5, 2: 8}
    mean = effects.average([sample(1, 2, error=3, seeds=[0, 1]), sample(5, 6, error=4, seeds=[1, 2])])
    assert mean["value"].to_dict() == {1: 3.5} and mean["error"].to_dict() == {1: 2.5}


def test_a_slope_is_the_least_squares_line_and_its_interval_covers():
    assert effects.slope({0: sample(1, error=1), 1: sample(2, error=1), 2: sample(6, error=1)}, log=False) == Estimate(
        2.5, pytest.approx(2.5 - 1.959964 / 2 ** 0.5), pytest.approx(2.5 + 1.959964 / 2 ** 0.5), 1)
    rng, inside = np.random.default_rng(0), {2: 0, 4: 0}
    for n in inside:
        for _ in range(200):
            found = effects.slope({x: sample(*rng.normal(3 * x, 1, n)) for x in (0, 1, 3)}, log=False, draws=500)
            inside[n] += found.low <= 3 <= found.high
    assert all(180 <= hits <= 199 for hits in inside.values())
    assert np.isnan(effects.slope({1: sample(2)}).value)
    assert effects.slope({1: sample(1), 8: sample(7)}).value == pytest.approx(2)  # a doubling


def test_the_first_place_below_zero_and_its_interval():
    leads = {1: Estimate(3, 2, 4, 4), 2: Estimate(1, -1, 3, 4), 4: Estimate(-1, -3, 1, 2), 8: Estimate(-3, -4, -2, 4)}
    assert effects.first_below(leads) == Estimate(4, 2, 8, 2)
    assert effects.first_below({1: Estimate(3, 2, 4, 4)}) == Estimate(np.inf, np.inf, np.inf, 4)


def test_a_crossing_is_interpolated_against_the_logarithm():
    found = crossing({16: Estimate(2, 1, 3, 4), 64: Estimate(-2, -3, -1, 4)})
    assert (found.value, found.low, found.high) == pytest.approx((32, 16 * 4 ** 0.25, 16 * 4 ** 0.75))
    assert crossing({16: Estimate(2, 1, 3, 4), 64: Estimate(2, 1, 3, 1)}) == Estimate(np.inf, 64, np.inf, 1)
    assert crossing({16: Estimate(-2, -3, -1, 1), 64: Estimate(2, 1, 3, 1)}) == Estimate(-np.inf, -np.inf, 16, 1)
    assert crossing({16: Estimate(0.1, -1, 1.1, 2), 64: Estimate(-0.1, -1, 1, 2)}).high == np.inf


def test_the_weakest_of_several_parts():
    parts = [Estimate(3, 2, 4, 4), Estimate(1, -5, 7, 2)]
    assert effects.weakest(parts) == Estimate(1, -5, 4, 2)
    assert np.isnan(effects.weakest([*parts, Estimate(0, np.nan, np.nan, 1)]).low)
    with pytest.raises(LookupError):
        effects.weakest([])
