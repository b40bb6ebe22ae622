"""The experiments as data, resuming, what notebooks print, and the command line's answers to mistakes."""

import sys
import types

import pandas as pd
import pytest
from test_results import result

import lc
from lc import results, study
from lc.__main__ import main
from lc.batch import execute


def fake_train(run, **_):
    return result(run.seed, id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen, profile=run.recipe.profile)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, and a training that takes no time."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path))
    monkeypatch.setattr(study, "train", fake_train)
    monkeypatch.setattr(study, "load_data", lambda *_: None)
    return tmp_path


def test_figure_4_is_the_papers_grid():
    runs = study.figure4()
    assert len(runs) == len({run.id for run in runs}) == 4 * 2 * (9 + 1)
    assert {run.model for run in runs} == {"ResNet-20-16", *(f"ResNet-LC-20-16x{2 ** i}" for i in range(9))}
    assert {run.dataset for run in runs} == {"cifar10"} and {run.recipe for run in runs} == {lc.Recipe()}
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert {run.model for run in study.figure4(expansions=[3])} == {"ResNet-20-16", "ResNet-LC-20-16x3"}
    assert {run.dataset for run in study.figure4("smoke")} == {"digits"}


def test_a_sweep_trains_what_is_missing_and_resumes(store):
    runs = study.figure4("smoke")
    assert study.train_missing(runs[:2]) == [run.id for run in runs[:2]]
    assert study.train_missing(runs) == [run.id for run in runs[2:]]
    assert study.train_missing(runs) == []
    table, missing = study.rows(runs)
    assert len(table) == len(runs) and not missing


def test_a_sweep_passes_over_a_run_that_another_process_trains(store):
    runs = study.figure4("smoke")[:2]
    with results.claim(runs[0].id):
        assert study.train_missing(runs) == [runs[1].id]


def test_a_sweep_starts_no_run_after_its_time(store):
    assert study.train_missing(study.figure4("smoke"), time_limit=0) == []


def test_a_run_that_fails_costs_no_other_and_is_named(store, monkeypatch):
    runs = study.figure4("smoke")[:3]

    def train(run, **options):
        if run is runs[1]:
            raise lc.TrainingError(f"{run.id}: out of memory")
        return fake_train(run)

    monkeypatch.setattr(study, "train", train)
    with pytest.raises(lc.TrainingError, match=runs[1].id):
        study.train_missing(runs)
    assert set(results.read()) == {runs[0].id, runs[2].id}


def test_a_sweep_checks_everything_before_it_trains(store, monkeypatch):
    monkeypatch.setattr(study, "load_data", lc.load_data)
    with pytest.raises(ValueError, match="unknown data set"):
        study.train_missing(study.grid(["ResNet-20"], "no-such-set", "smoke"))
    with pytest.raises(ValueError, match="unknown device"):
        study.train_missing(study.figure4("smoke"), device="gpu")
    assert not (store / "runs.csv").exists()


def test_quick_rows_stand_in_for_the_papers_and_it_is_said(store, capsys):
    runs = study.figure4("quick")
    study.train_missing(runs[:-1])
    assert len(study.collect(study.figure4)) == len(runs) - 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Rows of the quick profile")
    assert lines[-1] == f"missing: {runs[-1].id}"
    study.train_missing(study.figure4("paper")[:1])
    assert set(study.collect(study.figure4)["profile"]) == {"paper"}


def test_papermills_spelling_of_true_trains_and_of_false_does_not(store):
    with pytest.raises(ValueError, match="set train = True"):
        study.collect(study.figure4, "smoke", "false")
    assert len(study.collect(study.figure4, "smoke", "true")) == len(study.figure4("smoke"))


def test_no_row_at_all_is_an_error(store):
    with pytest.raises(ValueError, match="set train = True"):
        study.collect(study.figure4, "smoke")


def test_summary_and_crossings():
    table = pd.DataFrame([
        dict(model=model, frozen=frozen, learnable_parameters=10, accuracy=accuracy)
        for model, frozen, accuracy in [("ResNet-20-16", False, 60.0), ("ResNet-LC-20-16x16", True, 61.0),
                                        ("ResNet-LC-20-16x2", True, 50.0), ("ResNet-LC-20-16x2", True, 54.0)]])
    means = study.summary(table, "accuracy")
    assert list(means["expansion"]) == [0, 2, 16] and list(means["n"]) == [1, 2, 1]
    assert means["accuracy"][1] == 52 and means["accuracy_std"][1] == pytest.approx(8 ** 0.5)
    curve = means[means["frozen"]].set_index("expansion")["accuracy"]
    assert study.first_above(curve, 60) == 16 and study.first_above(curve, 61) is None
    assert study.first_above(curve, pd.Series({2: 51.0})) == 2


@pytest.mark.parametrize("changes, message", [
    ({"profile": "papr"}, "unknown profile"), ({"train": "yes"}, "train must be true or false"),
    ({"data_dir": 3}, "data_dir must be text"), ({"device": "gpu"}, "unknown device"),
])
def test_notebook_parameters_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        study.check_parameters(**{"profile": "paper", "train": False, "data_dir": "", "device": "auto"} | changes)


def test_an_injected_parameter_that_a_notebook_does_not_have_is_an_error(monkeypatch):
    cells = ["", 'profile: str = "paper"', '# Parameters\nproflie = "quick"\n', "names = 1"]
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(In=cells))
    with pytest.raises(ValueError, match="unknown parameter 'proflie'; known: profile, train, data_dir, device"):
        study.check_parameters("paper", False, "", "auto")


def test_papermill_stops_at_a_mistyped_parameter(tmp_path):
    outcome = execute(["03"], tmp_path, proflie="quick")
    assert "unknown parameter 'proflie'" in outcome["03_expansion"]


@pytest.mark.parametrize("arguments, message", [
    (["train", "ResNet-21-16"], "depth must be 6n + 2"),
    (["train", "ResNet-LC-20-16x0"], "at least 1"),
    (["train", "ResNet-20-16-k4"], "kernel size must be odd"),
    (["train", "VGG-16"], "unknown model 'VGG-16'; known: ResNet-{D}-{W}"),
    (["train", "ResNet-20", "--dataset", "cifar11"], "unknown data set 'cifar11'; known: cifar10"),
    (["train", "ResNet-20", "--device", "gpu"], "unknown device 'gpu'"),
    (["train", "ResNet-20", "--seed", "-1"], "seed must be"),
    (["sweep", "figure5"], "unknown experiment 'figure5'; known: figure4"),
    (["merge", "nowhere"], "no runs.csv"),
    (["notebooks", "99"], "no notebook '99'; known: 00_linear_combinations"),
    (["benchmark", "--batch", "0"], "batch must be at least 1"),
])
def test_a_mistake_on_the_command_line_is_answered_in_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("LC_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    text = str(stopped.value)
    assert text.startswith("lc: ") and message in text and "\n" not in text
    assert not (tmp_path / "results" / "runs.csv").exists()


def test_train_records_once_and_merge_takes_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lc.training.train", fake_train)
    there, here = str(tmp_path / "there"), str(tmp_path / "here")
    command = ["train", "ResNet-LC-8-8x2", "--dataset", "digits", "--frozen", "--profile", "smoke", "--results", there]
    main(command)
    assert "accuracy               87.5" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="in the results already; --again"):
        main(command)
    main([*command, "--again"])
    main(["merge", there, "--results", here])
    assert "took over 1 runs" in capsys.readouterr().out
    assert list(results.read(here)) == ["digits/ResNet-LC-8-8x2/frozen/smoke/seed0"]
