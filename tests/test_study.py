"""The experiments as data, resuming, what notebooks print, and the command line's `sweep`, `train` and `merge`."""

from dataclasses import replace

import pytest
from helpers import at_once, result

import lc
from lc import fast, hours, imagenet, results, study
from lc.__main__ import main
from lc.data import DataUnavailable
from lc.training import Stopped


def fake_train(run, **_):
    return result(run.seed, id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen, profile=run.recipe.profile)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty results folder, and a training that takes no time and needs no data."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path))
    monkeypatch.setattr(study, "stepwise_run", at_once(fake_train))
    monkeypatch.setattr(study, "find_data", lambda run, data_dir: None)
    monkeypatch.setattr(hours, "estimator", lambda device, folder: (lambda run: 60.0, "nothing"))
    return tmp_path


def both(runs):
    return {run.model for run in runs if run.frozen} & {run.model for run in runs if not run.frozen}


def names(runs):
    return {run.model for run in runs}


LOW_RESOLUTION = [name for name in study.EXPERIMENTS if name not in ("figure1b", "table2")]


@pytest.mark.parametrize("name", LOW_RESOLUTION)
def test_experiments_are_the_papers_recipe_with_four_seeds_each_run_once(name):
    runs = study.EXPERIMENTS[name]()
    assert len(runs) == len({run.id for run in runs}) and len(runs) % 4 == 0
    own = dict(profile="paper", precision="auto", weight_decay=1e-2, decayed="factors")  # what `decay` and `precisions` vary
    assert {replace(run.recipe, **own) for run in runs} == {lc.Recipe()}
    assert {run.seed for run in runs} == {0, 1, 2, 3}
    if name != "table1":
        assert {run.dataset for run in runs} == {"cifar10"} and [run.seed for run in runs] == sorted(run.seed for run in runs)
        assert {run.dataset for run in study.EXPERIMENTS[name]("smoke")} == {"digits"}


def test_the_papers_grids():
    powers = [2 ** i for i in range(9)]
    figure4 = study.figure4()
    assert names(figure4) == both(figure4) == {"ResNet-20-16", *(f"ResNet-LC-20-16x{e}" for e in powers)}
    assert names(study.figure6a()) == both(study.figure6a()) == {f"ResNet-LC-20-{w}x1" for w in (16, 32, 64, 128, 256)}
    assert names(study.figure6b()) == both(study.figure6b()) == {
        f"ResNet-LC-{d}-16x1" for d in (20, 32, 44, 56, 110, 164, 260, 308)}
    networks = {"ResNet-20-16", "Wide-ResNet-50x2", "MobileNet-v2", *(f"ResNet-{d}" for d in (14, 18, 34, 50, 101))}
    assert names(study.figure1a()) == both(study.figure1a()) == networks
    table1 = study.table1()
    assert {run.dataset for run in table1} == {"cifar10", "cifar100", "fashion-mnist", "svhn"} and len(table1) == 4 * 3 * 4
    assert both(table1) == {"ResNet-LC-20-16x128"} and names(table1) - both(table1) == {"ResNet-20-16"}
    table3 = study.table3()
    assert names(table3) == both(table3) == {f"ResNet-LC-20-16x64{between}" for between in ("", "+ReLU", "+BN", "+BN+ReLU")}
    precision = study.precisions()
    assert {(run.model, run.frozen, run.recipe.profile, run.recipe.precision) for run in precision} == {
        (*network, f"paper-{kind}", kind)
        for network in (("ResNet-20-16", False), ("ResNet-LC-20-16x128", True)) for kind in ("fp32", "bf16")}
    figure8, kernels = study.figure8(), ("", "-k5", "-k7", "-k9")
    assert both(figure8) == {f"ResNet-LC-20-16x{e}{k}" for e in powers[:8] for k in kernels}
    assert names(figure8) - both(figure8) == {f"ResNet-20-16{k}" for k in kernels}


def test_the_imagenet_experiments_are_procedure_a2_once_and_small_ones_beside():
    networks = {"ResNet-18", "ResNet-50", "ResNet-50d", "ResNeXt-50-32x4d", "Wide-ResNet-50x2", "MobileNet-v2", "MobileNet-v3-S",
                "MobileNet-v3-L"}
    figure1b, table2 = study.figure1b(), study.table2()
    assert names(figure1b) == both(figure1b) == networks
    assert names(table2) == both(table2) == {"ResNet-18d", *(f"ResNet-18d-LCx{e}" for e in (1, 8, 64, 128))}
    assert {(run.dataset, run.recipe, run.seed) for run in figure1b + table2} == {("imagenet", imagenet.ImageNetRecipe(), 0)}
    for profile in ("short", "quick"):
        runs = study.figure1b(profile) + study.table2(profile)
        assert names(runs) == both(runs) == {"ResNet-18", "ResNet-50", "ResNet-18d", *(f"ResNet-18d-LCx{e}" for e in (1, 8, 64))}
        assert {(run.dataset, run.recipe.profile) for run in runs} == {("tiny-imagenet-40", profile)}


def test_the_short_profile_is_the_papers_networks_and_images_in_a_fifth_of_the_epochs():
    runs = study.everything("short", [name for name in LOW_RESOLUTION if name != "decay"])
    assert {run.recipe for run in runs} == {lc.Recipe("short", epochs=15, batch_size=64)} and {run.seed for run in runs} == {0, 1}
    assert names(study.figure4("short")) < names(study.figure4()) and names(study.table1("short")) == names(study.table1())
    at_depth_8 = study.figure6a("short") + study.table3("short") + study.figure8("short")
    assert {run.architecture.depth for run in at_depth_8} == {8}


@pytest.mark.parametrize("name", study.EXPERIMENTS)
def test_seeds_of_ones_own_take_the_place_of_the_profiles(name):
    for profile in study.GRIDS:
        runs = study.everything(profile, [name], seeds=[5, 7])
        assert {run.seed for run in runs} == {5, 7} and names(runs) >= names(study.EXPERIMENTS[name](profile))


@pytest.mark.parametrize("experiment, lists, models", [
    (study.figure1b, dict(networks=["ResNet-18d"]), {"ResNet-18d"}),
    (study.table2, dict(expansions=[4]), {"ResNet-18d", "ResNet-18d-LCx4"}),
    (study.figure4, dict(expansions=[3]), {"ResNet-20-16", "ResNet-LC-20-16x3"}),
    (study.figure1a, dict(networks=["ResNet-20"]), {"ResNet-20-16"}),
    (study.figure6a, dict(widths=[24]), {"ResNet-LC-20-24x1"}), (study.figure6b, dict(depths=[26]), {"ResNet-LC-26-16x1"}),
    (study.table1, dict(datasets=["svhn"], expansion=2), {"ResNet-20-16", "ResNet-LC-20-16x2"}),
    (study.figure8, dict(kernel_sizes=[11], expansions=[2]), {"ResNet-20-16-k11", "ResNet-LC-20-16x2-k11"}),
    (study.precisions, dict(seeds=[5]), {"ResNet-20-16", "ResNet-LC-20-16x128"}),
    (study.table3, dict(expansion=1, seeds=[7]), {f"ResNet-LC-20-16x1{between}" for between in ("", "+ReLU", "+BN", "+BN+ReLU")}),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_list_of_ones_own_takes_the_place_of_the_papers(experiment, lists, models):
    assert names(experiment(**lists)) == models


@pytest.mark.parametrize("profile", study.GRIDS)
def test_everything_is_every_experiment_once(profile):
    runs = study.everything(profile)
    assert len(runs) == len(set(runs))
    assert set(runs) == {run for experiment in study.EXPERIMENTS.values() for run in experiment(profile)}
    assert study.everything(profile, ["table2"]) == study.table2(profile)


def test_a_sweep_without_names_trains_every_experiment(store, capsys):
    main(["sweep", "--profile", "smoke", "--device", "cpu"])
    runs = study.everything("smoke")
    assert set(results.load_rows()) == {run.id for run in runs}
    n = len(runs)
    said = capsys.readouterr().out
    assert f"trained {n} runs in " in said and f"; 0 of {n} are still missing" in said
    main(["sweep", "--profile", "smoke", "--device", "cpu"])
    assert "trained 0 runs in " in capsys.readouterr().out


def test_a_sweep_goes_by_options_alone_or_by_names(store, capsys):
    common = ["--profile", "smoke", "--device", "cpu"]  # several GPUs would train in workers of their own
    main(["sweep", *common, "--only", "figure4", "table1", "--time-limit", "9", "--out", str(store / "options")])
    main(["sweep", "figure4", "--only", "table1", *common, "--results", str(store / "names")])
    wanted = {run.id for run in study.figure4("smoke") + study.table1("smoke")}
    assert set(results.load_rows(store / "options")) == set(results.load_rows(store / "names")) == wanted
    with pytest.raises(SystemExit, match="unknown experiment 'figure5'; known: figure4"):
        main(["sweep", "--only", "figure5"])


def test_a_sweep_trains_what_is_missing_and_resumes(store):
    runs = study.figure4("smoke")
    assert study.train_missing(runs[:2]) == [run.id for run in runs[:2]]
    assert study.train_missing(runs) == [run.id for run in runs[2:]]
    assert study.train_missing(runs) == []
    table, missing = study.found_and_missing(runs)
    assert len(table) == len(runs) and not missing


def test_a_sweep_passes_over_a_run_that_another_process_trains(store):
    runs = study.figure4("smoke")[:2]
    with results.claim(runs[0].id):
        assert study.train_missing(runs) == [runs[1].id]


def test_a_sweep_starts_no_run_after_its_time(store):
    assert study.train_missing(study.figure4("smoke"), time_limit=0) == []


@pytest.mark.parametrize("experiment", ["figure4", "table2"])  # of each kind of run
def test_at_the_time_limit_a_sweep_ends_as_at_its_end(experiment, store, monkeypatch, capsys):
    def train(run, stop, **_):
        while not stop():
            pass
        raise Stopped(run.id)

    monkeypatch.setattr(study, "stepwise_run", at_once(train))
    main(["sweep", experiment, "--profile", "smoke", "--device", "cpu", "--time-limit", "0.005"])
    runs = study.EXPERIMENTS[experiment]("smoke")
    assert f"{len(runs)} of {len(runs)} are still missing" in capsys.readouterr().out


def test_a_run_that_fails_costs_no_other_and_is_named(store, monkeypatch):
    runs = study.figure4("smoke")[:3]

    def train(run, **options):
        if run is runs[1]:
            raise lc.TrainingError(f"{run.id}: out of memory")
        return fake_train(run)

    monkeypatch.setattr(study, "stepwise_run", at_once(train))
    with pytest.raises(lc.TrainingError, match=runs[1].id):
        study.train_missing(runs)
    assert set(results.load_rows()) == {runs[0].id, runs[2].id}


def test_a_sweep_checks_everything_before_it_trains(store, monkeypatch):
    monkeypatch.setattr(study, "find_data", lambda run, data_dir: lc.load_data(run.dataset, data_dir))
    with pytest.raises(ValueError, match="unknown data set"):
        study.train_missing(study.table1("smoke", datasets=["no-such-set"]))
    with pytest.raises(ValueError, match="unknown device"):
        study.train_missing(study.figure4("smoke"), device="gpu")
    assert not (store / "runs.csv").exists()


def test_a_data_set_out_of_reach_costs_only_its_own_runs(store, monkeypatch):
    def find(run, data_dir):
        if run.dataset == "svhn":
            raise DataUnavailable("svhn.npz is missing and svhn could not be downloaded")

    monkeypatch.setattr(study, "find_data", find)
    runs = study.table1("smoke", datasets=["svhn", "digits"])
    with pytest.warns(UserWarning, match="runs on svhn are left out: svhn.npz is missing"):
        assert study.train_missing(runs) == [run.id for run in runs if run.dataset == "digits"]
    with pytest.raises(DataUnavailable, match="svhn.npz is missing"):
        study.train_missing(runs)


def test_a_line_says_which_rows_are_shown(store, capsys):
    runs = study.figure4("quick")
    study.train_missing(runs[:-1])
    capsys.readouterr()
    assert len(study.collect(study.figure4).curves) == len(runs) - 1
    assert capsys.readouterr().out == "Shown: 4 epochs, 2 seeds, 23 of 24 runs.\n"
    study.collect(study.figure4, "quick", expansions=[1, 64])
    assert capsys.readouterr().out.startswith("Shown: 4 epochs, 2 seeds, 8 of 12 runs.")


def seed_0(runs, share):
    """That share of an experiment's networks, frozen and learnable counted apart, by their runs of the first seed."""
    runs = [run for run in runs if run.seed == 0]
    return runs[:round(share * len(runs))]


@pytest.mark.parametrize("experiment", [study.figure4, study.table2], ids=["figure4", "table2"])  # of each kind of run
@pytest.mark.parametrize("shares, shown", [
    (dict(paper=0.8, short=1, quick=1), "paper"), (dict(paper=0.7, short=0.8, quick=1), "short"),
    (dict(paper=0.7, short=0.6, quick=0.8), "paper"),  # never a tiny one where there are others
    (dict(quick=0.8), "quick"),
    (dict(paper=0.4, short=0.6, quick=0.3), "short"), (dict(paper=0.4, short=0.3), "paper"),  # none has enough: the most
    (dict(paper=0.4, smoke=1), "paper"),
])
def test_the_largest_profile_that_covers_three_quarters_of_the_networks_is_shown(experiment, shares, shown, store, capsys):
    for profile, share in shares.items():
        study.train_missing(seed_0(experiment(profile), share))
    expected = {run.id for run in seed_0(experiment(shown), shares[shown])}
    rows = study.collect(experiment)
    assert set(rows.curves["id"]) == expected
    assert len(rows.shown) == len(rows.curves) + len(rows.marks)


@pytest.mark.parametrize("filled, asked, curves, marks, others", [
    (dict(quick=8), "paper", "quick", {}, {}),
    (dict(quick=8, short=2), "paper", "short", {}, {"quick": 8}),  # never tiny runs beside longer ones
    (dict(quick=8, short=2, paper=2), "paper", "paper", {}, {"quick": 8, "short": 2}),  # the longer of two equals
    (dict(quick=8, short=2), "quick", "quick", {}, {"short": 2}),  # asked for
    (dict(short=8, paper=2), "paper", "short", {"paper": 2}, {}),
])
def test_tiny_runs_and_longer_ones_share_no_axis(filled, asked, curves, marks, others, store):
    for profile, n in filled.items():
        study.train_missing(study.figure4(profile, expansions=[1, 8, 32], seeds=[0])[:n])
    rows = study.collect(study.figure4, asked, expansions=[1, 8, 32], seeds=[0])
    assert set(rows.curves["profile"]) == {curves}
    assert rows.marks["profile"].value_counts().to_dict() == marks
    assert rows.others["profile"].value_counts().to_dict() == others


def test_marks_are_of_the_data_sets_of_the_curves(store):
    study.train_missing(study.table1("short", datasets=["cifar10"], seeds=[0]))
    study.train_missing(study.table1("paper", datasets=["cifar10", "svhn"], seeds=[0])[::2])
    rows = study.collect(study.table1, "short", datasets=["cifar10"], seeds=[0])
    assert set(rows.marks["dataset"]) == {"cifar10"}


def test_papermills_spelling_of_true_trains_and_of_false_does_not(store):
    with pytest.raises(ValueError, match="set train = True"):
        study.collect(study.figure4, "smoke", "false")
    assert len(study.collect(study.figure4, "smoke", "true").curves) == len(study.figure4("smoke"))


def test_what_a_training_will_take_is_said_before_it_and_never_without_one(store, capsys):
    study.collect(study.figure4, "smoke", train=True)
    said = capsys.readouterr().out
    assert said.startswith("6 runs on ") and ": about 6 min, estimated from nothing.\nShown: " in said
    study.collect(study.figure4, "smoke", train=True)
    assert said.endswith(capsys.readouterr().out)


def test_a_log_has_a_line_for_each_run(store, caplog):
    caplog.set_level("INFO")
    runs = study.figure4("smoke")[:2]
    study.train_missing(runs)
    assert [message.partition("; the last ends at about 20")[0] for message in caplog.messages] == [
        f"run {i} of 2: {run.id}" for i, run in enumerate(runs, 1)]
    study.train_missing(study.figure4("smoke")[2:], progress=True)
    assert len(caplog.messages) == 2


def test_runs_that_are_trained_together_are_recorded_as_those_that_are_trained_alone(store, monkeypatch):
    def steps(run, **_):
        begun.append(run)
        yield
        return fake_train(run)

    begun, runs = [], study.figure4("smoke")
    monkeypatch.setattr(study, "stepwise_run", steps)
    tally = []
    monkeypatch.setattr(results, "append", lambda result, folder: tally.append((result.id, len(begun))))
    assert study.train_missing(runs, together=2) == [run.id for run in runs]
    assert tally == [(run.id, min(2 * (i // 2) + 2, 6)) for i, run in enumerate(runs)]
    with pytest.raises(ValueError, match="together must be an integer of at least 1"):
        study.train_missing(runs, together=0)


def test_train_records_once_and_merge_takes_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fast, "train", fake_train)
    there, here = str(tmp_path / "there"), str(tmp_path / "here")
    command = ["train", "ResNet-LC-8-8x2", "--dataset", "digits", "--frozen", "--profile", "smoke", "--results", there]
    main(command)
    assert "accuracy               87.5" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="in the results already; --again"):
        main(command)
    main([*command, "--again"])
    assert "of commit 0123456789, this is " in capsys.readouterr().out
    main(["merge", there, "--results", here])
    assert "took over 1 runs" in capsys.readouterr().out
    assert list(results.load_rows(here)) == ["digits/ResNet-LC-8-8x2/frozen/smoke/seed0"]
