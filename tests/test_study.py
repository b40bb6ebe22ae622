"""The experiments as data, resuming, what notebooks print, and the commands `sweep` and `train`."""

import errno
from contextlib import contextmanager
from dataclasses import replace

import pytest
from helpers import at_once, result_of

import lc
from lc import commands, fast, hours, imagenet, networks, results, study
from lc.__main__ import main
from lc.data import DataUnavailable
from lc.run import Stopped

POWERS = [2 ** i for i in range(9)]
KERNELS = "", "-k5", "-k7", "-k9"
BETWEEN = "", "+ReLU", "+BN", "+BN+ReLU"
LOW_RESOLUTION = [name for name in study.EXPERIMENTS if name not in ("figure1b", "table2")]
SMOKE = ["--profile", "smoke", "--device", "cpu"]  # several GPUs would train in workers
RUNS = study.figure4("smoke")


def fake_train(run, **_):
    return result_of(run)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty results folder, and a training that takes no time and needs no data."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path))
    monkeypatch.setattr(study, "stepwise_run", at_once(fake_train))
    monkeypatch.setattr(study, "find_data", lambda run, data_dir: None)
    monkeypatch.setattr(hours, "estimator", lambda device: (lambda run: 60.0, "nothing"))
    return tmp_path


def record(runs, folder):
    """Made-up rows of these runs, in place of those that were there."""
    results._write({run.id: fake_train(run).row() for run in runs}, folder)


def names(runs):
    return {run.model for run in runs}


def both(runs):
    """The networks that are trained frozen and learnable."""
    return names(run for run in runs if run.frozen) & names(run for run in runs if not run.frozen)


@pytest.mark.parametrize("name", LOW_RESOLUTION)
def test_experiments_are_the_papers_recipe_with_four_seeds_each_run_once(name):
    runs = study.EXPERIMENTS[name]()
    assert len(runs) == len({run.id for run in runs}) and len(runs) % 4 == 0
    # what `decay` and `precisions` vary
    own = dict(profile="paper", precision="auto", weight_decay=1e-2, decayed="factors")
    assert {replace(run.recipe, **own) for run in runs} == {lc.Recipe()}
    assert {run.seed for run in runs} == {0, 1, 2, 3}
    if name != "table1":
        seeds = [run.seed for run in runs]
        assert {run.dataset for run in runs} == {"cifar10"} and seeds == sorted(seeds)
        assert {run.dataset for run in study.EXPERIMENTS[name]("smoke")} == {"digits"}


@pytest.mark.parametrize("experiment, networks, plain, lists, own", [
    (study.figure4, {"ResNet-20-16", *(f"ResNet-LC-20-16x{e}" for e in POWERS)}, set(),
     dict(expansions=[3]), {"ResNet-20-16", "ResNet-LC-20-16x3"}),
    (study.figure6a, {f"ResNet-LC-20-{w}x1" for w in (16, 32, 64, 128, 256)}, set(),
     dict(widths=[24]), {"ResNet-LC-20-24x1"}),
    (study.figure6b, {f"ResNet-LC-{d}-16x1" for d in (20, 32, 44, 56, 110, 164, 260, 308)}, set(),
     dict(depths=[26]), {"ResNet-LC-26-16x1"}),
    (study.figure1a, {"ResNet-20-16", "Wide-ResNet-50x2", "MobileNet-v2",
                      *(f"ResNet-{d}" for d in (14, 18, 34, 50, 101))}, set(),
     dict(networks=["ResNet-20"]), {"ResNet-20-16"}),
    (study.table1, {"ResNet-LC-20-16x128"}, {"ResNet-20-16"},
     dict(datasets=["svhn"], expansion=2), {"ResNet-20-16", "ResNet-LC-20-16x2"}),
    (study.table3, {f"ResNet-LC-20-16x64{ops}" for ops in BETWEEN}, set(),
     dict(expansion=1), {f"ResNet-LC-20-16x1{ops}" for ops in BETWEEN}),
    (study.figure8, {f"ResNet-LC-20-16x{e}{k}" for e in POWERS[:8] for k in KERNELS},
     {f"ResNet-20-16{k}" for k in KERNELS},
     dict(kernel_sizes=[11], expansions=[2]), {"ResNet-20-16-k11", "ResNet-LC-20-16x2-k11"}),
    (study.figure1b, {"ResNet-18", "ResNet-50", "ResNet-50d", "ResNeXt-50-32x4d", "MobileNet-v2",
                      "Wide-ResNet-50x2", "MobileNet-v3-S", "MobileNet-v3-L"}, set(),
     dict(networks=["ResNet-18d"]), {"ResNet-18d"}),
    (study.table2, {"ResNet-18d", *(f"ResNet-18d-LCx{e}" for e in (1, 8, 64, 128))}, set(),
     dict(expansions=[4]), {"ResNet-18d", "ResNet-18d-LCx4"}),
], ids=lambda value: getattr(value, "__name__", ""))
def test_the_papers_grids_and_a_list_of_ones_own(experiment, networks, plain, lists, own):
    """`networks` are trained frozen and learnable, `plain` ones only learnable."""
    assert both(experiment()) == networks and names(experiment()) - networks == plain
    assert names(experiment(**lists)) == own


def test_table_1_has_four_data_sets_and_precisions_are_compared_on_two_networks():
    datasets = [run.dataset for run in study.table1()]
    assert sorted(datasets) == sorted(12 * ["cifar10", "cifar100", "fashion-mnist", "svhn"])
    kinds = {(run.model, run.frozen, run.recipe.profile, run.recipe.precision)
             for run in study.precisions()}
    assert kinds == {(*network, f"paper-{kind}", kind) for kind in ("fp32", "bf16")
                     for network in (("ResNet-20-16", False), ("ResNet-LC-20-16x128", True))}


def test_the_imagenet_experiments_are_procedure_a2_once_and_small_ones_beside():
    for profile, dataset, recipe in (("paper", "imagenet", imagenet.ImageNetRecipe()),
                                     ("short", "tiny-imagenet-40", imagenet.RECIPES["short"]),
                                     ("quick", "tiny-imagenet-40", imagenet.RECIPES["quick"])):
        runs = study.figure1b(profile) + study.table2(profile)
        assert {(run.dataset, run.recipe, run.seed) for run in runs} == {(dataset, recipe, 0)}
        assert profile == "paper" or both(runs) == {
            "ResNet-18", "ResNet-50", "ResNet-18d", *(f"ResNet-18d-LCx{e}" for e in (1, 8, 64))}


def test_the_short_profile_is_the_papers_networks_and_images_in_a_fifth_of_the_epochs():
    findings = "decay", "initialisation"
    runs = study.everything("short", [name for name in LOW_RESOLUTION if name not in findings])
    assert {run.recipe for run in runs} == {lc.Recipe("short", epochs=15, batch_size=64)}
    assert {run.seed for run in runs} == {0, 1}
    assert {run.seed for run in study.everything("short", findings)} == {0, 1, 2}
    assert names(study.figure4("short")) < names(study.figure4())
    assert names(study.table1("short")) == names(study.table1())
    at_depth_8 = study.figure6a("short") + study.table3("short") + study.figure8("short")
    assert {run.architecture.depth for run in at_depth_8} == {8}


@pytest.mark.parametrize("profile", study.GRIDS)
def test_everything_is_every_experiment_once_and_seeds_of_ones_own_take_the_profiles_place(profile):
    runs = study.everything(profile)
    each = {name: experiment(profile) for name, experiment in study.EXPERIMENTS.items()}
    assert len(runs) == len(set(runs)) and set(runs) == {run for name in each for run in each[name]}
    for name in each:
        seeded = study.everything(profile, [name], seeds=[5, 7])
        assert {run.seed for run in seeded} == {5, 7} and names(seeded) >= names(each[name])


def test_a_sweep_trains_what_is_missing(store, capsys):
    with results.claim(RUNS[0].id):  # another process trains it
        assert study.train_missing(RUNS[:2]) == [RUNS[1].id]
    wanted = {run.id for run in RUNS + study.table1("smoke")}
    for trained, names in ((len(wanted) - 1, ["figure4", "--only", "table1"]),
                           (0, ["--only", "figure4", "table1"])):
        main(["sweep", *names, *SMOKE, "--out", str(store)])
        said = capsys.readouterr().out
        assert f"trained {trained} runs in " in said and f"; 0 of {len(wanted)} are still" in said
    assert set(results.load_rows()) == wanted


@pytest.mark.parametrize("experiment", ["figure4", "table2"])  # of each kind of run
def test_at_the_time_limit_a_sweep_ends_as_at_its_end(experiment, store, monkeypatch, capsys):
    def train(run, stop, **_):
        while not stop():
            pass
        raise Stopped

    assert study.train_missing(RUNS, time_limit=0) == []  # none is started
    monkeypatch.setattr(study, "stepwise_run", at_once(train))
    main(["sweep", experiment, *SMOKE, "--time-limit", "0.005"])
    n = len(study.EXPERIMENTS[experiment]("smoke"))
    assert f"{n} of {n} are still missing" in capsys.readouterr().out


def test_a_data_set_out_of_reach_costs_only_its_own_runs(store, monkeypatch):
    def find(run, data_dir):
        if run.dataset == "svhn":
            raise DataUnavailable("svhn.npz is missing")
        if run.dataset != "digits":
            lc.load_data(run.dataset, data_dir)

    monkeypatch.setattr(study, "find_data", find)
    with pytest.raises(ValueError, match="unknown data set"):
        study.train_missing(study.table1("smoke", datasets=["no-such-set"]))
    runs = study.table1("smoke", datasets=["svhn", "digits"])
    with pytest.warns(UserWarning, match="runs on svhn are left out: svhn.npz is missing"):
        assert study.train_missing(runs) == [run.id for run in runs if run.dataset == "digits"]
    with pytest.raises(DataUnavailable, match="svhn.npz is missing"):
        study.train_missing(runs)


@pytest.mark.parametrize("experiment", [study.figure4, study.table2])  # of each kind of run
@pytest.mark.parametrize("shares, asked, curves, marks", [
    (dict(paper=0.8, short=1, quick=1), "paper", "paper", []),
    (dict(paper=0.7, short=0.8, quick=1), "paper", "short", ["paper"]),
    (dict(paper=0.7, short=0.6, quick=0.8), "paper", "paper", []),  # never a tiny one beside others
    (dict(quick=0.8), "paper", "quick", []),
    (dict(paper=0.4, short=0.6, quick=0.3), "paper", "short", ["paper"]),  # none has enough: most
    (dict(paper=0.4, smoke=1), "paper", "paper", []),
    (dict(quick=1, short=0.4), "quick", "quick", []),  # asked for
])
def test_the_largest_profile_that_covers_three_quarters_of_the_networks_is_shown(
        experiment, shares, asked, curves, marks, store):
    filled = {}
    for profile, share in shares.items():
        runs = [run for run in experiment(profile) if run.seed == 0]
        filled[profile] = runs[:round(share * len(runs))]
    record(sum(filled.values(), []), store)
    rows = study.collect(experiment, asked)
    marks = marks if experiment is study.figure4 else []  # ImageNet's are of other data sets
    drawn = {curves: "curves", **dict.fromkeys(marks, "marks"), "smoke": None}
    for kind in ("curves", "marks", "others"):
        expected = {run.id for profile, runs in filled.items() for run in runs
                    if drawn.get(profile, "others") == kind}
        assert set(getattr(rows, kind)["id"]) == expected
    assert len(rows.shown) == len(rows.curves) + len(rows.marks)


def test_marks_are_of_the_data_sets_of_the_curves(store):
    record(study.table1("short", datasets=["cifar10"], seeds=[0])
           + study.table1("paper", datasets=["cifar10", "svhn"], seeds=[0])[::2], store)
    rows = study.collect(study.table1, "short", datasets=["cifar10"], seeds=[0])
    assert set(rows.marks["dataset"]) == {"cifar10"}


def test_papermills_spelling_of_true_trains_and_says_before_how_long_it_takes(store, capsys):
    with pytest.raises(ValueError, match="set train = True"):
        study.collect(study.figure4, "smoke", "false")
    assert len(study.collect(study.figure4, "smoke", "true").curves) == len(RUNS)
    said = capsys.readouterr().out
    assert said.startswith("6 runs on ") and ": about 6 min, estimated from nothing.\nS" in said
    study.collect(study.figure4, "smoke", train=True)  # nothing is missing
    assert capsys.readouterr().out == said.splitlines(True)[1]


@pytest.mark.parametrize("experiment, lists, message", [
    (study.figure1a, dict(seeds=0), "^seeds must be a list such as"),
    (study.initialisation, dict(kernel_sizes=7), "^kernel_sizes must be a list such as"),
    (study.figure8, dict(expansions="[0.5]"), "^each of expansions must be an integer"),
    (study.table3, dict(expansion="many"), "^expansion must be an integer"),
    (study.decay, dict(decays=[0.01]), "^each of decays must be text such as '5e-3', not 0.01"),
    (study.decay, dict(decays=["2.5e-3"]), "^each of decays must be text"),
    (study.precisions, {}, "^profile 'short' has no runs of precisions"),
])
def test_lists_that_are_not_possible_are_refused_by_their_names_in_the_notebook(
        store, experiment, lists, message):
    with pytest.raises(ValueError, match=message):
        study.collect(experiment, "short", **lists)


def test_a_parameter_that_a_notebook_does_not_have_is_refused():
    cells = ["", 'profile: str = "paper"\nseeds: list = None']
    study.check_names([*cells, "# Parameters\nseeds = [0]\n", "import lc"])
    with pytest.raises(ValueError, match="no parameter 'seed'; known: profile, seeds"):
        study.check_names([*cells, '# Parameters\nprofile = "short"\nseed = 0\n'])


@pytest.mark.parametrize("error", [lc.TrainingError, lc.data.DataError])
def test_a_log_has_a_line_for_each_run_and_one_that_fails_is_named_at_the_end(
        error, store, monkeypatch, caplog):
    def train(run, **options):
        if run is RUNS[1]:
            raise error(f"{run.id}: out of memory, or an image that cannot be read")
        return fake_train(run)

    monkeypatch.setattr(study, "stepwise_run", at_once(train))
    caplog.set_level("INFO")
    with pytest.raises(lc.TrainingError, match=RUNS[1].id):
        study.train_missing(RUNS[:3])
    assert set(results.load_rows()) == {RUNS[0].id, RUNS[2].id}
    assert [message.partition("; the last ends at about 20")[0] for message in caplog.messages] == [
        f"run {i} of 3: {run.id}" for i, run in enumerate(RUNS[:3], 1)]
    study.train_missing(RUNS[3:], progress=True)
    assert len(caplog.messages) == 3


@pytest.mark.parametrize("module, name", [(results, "append"), (networks, "save_network")])
def test_where_nothing_can_be_written_a_sweep_ends_and_names_what_failed_before(
        module, name, store, monkeypatch):
    def train(run, **_):
        if run == RUNS[0]:
            raise lc.TrainingError(f"{run.id}: the loss became nan")
        return fake_train(run)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "here")

    monkeypatch.setattr(study, "stepwise_run", at_once(train))
    monkeypatch.setattr(module, name, full)
    with pytest.raises(lc.TrainingError, match="loss became nan.*No space left on device") as error:
        study.train_missing(RUNS, save=store if module is networks else None)
    assert RUNS[1].id in str(error.value) and RUNS[2].id not in str(error.value)


def test_a_run_that_another_process_has_just_recorded_is_not_trained_again(store, monkeypatch):
    @contextmanager
    def claim(run_id):
        results.append(fake_train(RUNS[0]))
        yield True

    monkeypatch.setattr(results, "claim", claim)
    with pytest.raises(ValueError, match="in the results already"):
        with commands._claimed(RUNS[0], again=False):
            pass


def test_runs_that_are_trained_together_are_recorded_as_those_that_are_trained_alone(
        store, monkeypatch):
    def steps(run, **_):
        begun.append(run)
        yield
        return fake_train(run)

    begun, tally = [], []
    monkeypatch.setattr(study, "stepwise_run", steps)
    monkeypatch.setattr(results, "append",
                        lambda result: tally.append((result.id, len(begun))))
    assert study.train_missing(RUNS, together=2) == [run.id for run in RUNS]
    assert tally == [(run.id, n) for run, n in zip(RUNS, (2, 2, 4, 4, 6, 6))]


def test_train_records_once_and_merge_takes_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fast, "train", fake_train)
    there, here = str(tmp_path / "there"), str(tmp_path / "here")
    command = ["train", "ResNet-LC-8-8x2", "--dataset", "digits", "--frozen", "--profile", "smoke",
               "--results", there]
    main(command)
    assert "accuracy               87.5" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--again"):
        main(command)
    main([*command, "--again"])
    assert "of commit 0123456789, this is " in capsys.readouterr().out
    main(["merge", there, "--results", here])
    assert "took over 1 runs" in capsys.readouterr().out
    assert list(results.load_rows(here)) == ["digits/ResNet-LC-8-8x2/frozen/smoke/seed0"]
