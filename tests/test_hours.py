"""How long runs take, and what is said about it before and while they are trained."""

import re
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lc
from lc import hours, imagenet, results, study
from lc.run import Result
from lc.utils.device import device_name

CPU = torch.device("cpu")
HERE = device_name(CPU)


def row(run, seconds, device=HERE):
    return Result(run.id, run.model, run.dataset, run.frozen, run.recipe.profile, run.seed, *[1.0] * 3, 1, 1, *[1.0] * 4,
                  epochs=run.recipe.epochs, train_images=getattr(run.recipe, "train_images", None) or 50_000, seconds=seconds,
                  images_per_second=1.0, device=device, precision="fp32", torch="2", git="0",
                  accuracy_top5=1.0 if isinstance(run, imagenet.ImageNetRun) else float("nan"))


def estimate(run, folder, *rows):
    for each in rows:
        results.append(each, folder)
    return hours.estimator(CPU, folder)[0](run)


@pytest.fixture
def no_measurement(monkeypatch):
    """Nothing is trained to measure how long it takes."""
    monkeypatch.setattr(hours, "_measured_rate", lambda *_: pytest.fail("a step was measured"))


def test_a_run_takes_as_long_as_the_same_one_else_in_proportion_to_its_work(no_measurement, tmp_path):
    small, large = lc.Run("ResNet-8-16", "cifar10", False, 0, "short"), lc.Run("ResNet-20-16", "cifar10", False, 0, "short")
    known = study.figure6b("quick", seeds=[7])[0]  # ResNet-LC-8-16x1
    assert estimate(known, tmp_path, row(study.figure6b("quick")[0], 60.0)) == 60.0
    assert estimate(large, tmp_path) == pytest.approx(60.0 * hours.work(large) / hours.work(known))
    assert estimate(large, tmp_path) / estimate(small, tmp_path) == pytest.approx(18 / 6)


def test_rows_of_the_same_profile_and_of_similar_networks_count_more(no_measurement, tmp_path):
    small, similar, large = (lc.Run(f"ResNet-{shape}", "cifar10", False, 0, "short") for shape in ("8-8", "8-64", "20-64"))
    rates = {small: 9.0, similar: 1.0, replace(similar, seed=1): 2.0, replace(similar, seed=2): 2.0,
             replace(large, recipe="quick", seed=3): 5.0}
    for run, rate in rates.items():
        results.append(row(run, rate * hours.work(run) / 1e12), tmp_path)
    assert estimate(large, tmp_path) == pytest.approx(2.0 * hours.work(large) / 1e12)


def counted(run):
    """The operations of the forward passes, by PyTorch's counter."""
    size, batch = getattr(run.recipe, "image_size", 32), min(256, run.recipe.batch_size)
    build = imagenet.build_imagenet_model if isinstance(run, imagenet.ImageNetRun) else lc.build_model
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(run.model).train()(torch.empty(batch, 3, size, size))
    return counter.get_total_flops() / batch * run.training_images * run.recipe.epochs


@pytest.mark.parametrize("model", ["ResNet-8-16", "ResNet-14-16-k5", "ResNet-LC-8-16x99", "ResNet-LC-8-8x4+BN+ReLU", "ResNet-14"])
def test_work_is_about_the_operations_of_the_network(model):
    run = lc.Run(model, "cifar10", True, 0, "quick")
    assert hours.work(run) == pytest.approx(counted(run), rel=0.25)


NETWORKS = list({(type(run), run.model, run.recipe): run for profile in ("paper", "short")
                 for run in study.everything(profile, ["figure1a", "figure1b", "table2"])}.values())


@pytest.mark.slow
@pytest.mark.parametrize("run", NETWORKS, ids=lambda run: f"{run.model}-{run.recipe.profile}")
def test_work_of_off_the_shelf_networks_is_about_theirs(run):
    assert hours.work(run) == pytest.approx(counted(run), rel=0.25)


def test_every_experiment_has_its_work():
    for profile in study.PROFILES:
        for run in study.everything(profile):
            assert hours.work(run) > 0


def test_rows_of_ones_own_images_and_recipes_do_no_harm(no_measurement, tmp_path):
    own = [imagenet.ImageNetRun("ResNet-18d-LCx2", "flowers", False, 0, "smoke"), lc.Run("ResNet-8-8", "mine", True, 0, "quick"),
           lc.Run("ResNet-8-8", "digits", True, 0, lc.Recipe("own", epochs=1))]
    assert [estimate(run, tmp_path, *(row(each, 60.0) for each in own)) for run in own] == [60.0] * 3


def test_hours_on_images_follow_their_number_and_size(no_measurement, tmp_path):
    plain, short, paper = study.table2("quick")[0], study.table2("short")[0], study.table2()[0]
    assert estimate(plain, tmp_path, row(plain, 60.0)) == 60.0
    assert estimate(short, tmp_path) == pytest.approx(60.0 * (20_000 * 20) / (1_540 * 5), rel=1e-3)
    assert estimate(paper, tmp_path) == pytest.approx(60.0 * (1_281_167 * 300) / (1_540 * 5) * (224 / 64) ** 2, rel=0.01)


def test_without_rows_of_the_device_ten_steps_are_measured(tmp_path):
    results.append(row(study.figure4("quick")[0], 1.0, "NVIDIA H200"), tmp_path)
    files = set(tmp_path.rglob("*"))
    seconds, source = hours.estimator(CPU, tmp_path)
    small, large = (lc.Run(model, "cifar10", False, 0, "quick") for model in ("ResNet-8-16", "ResNet-20-64"))
    assert 0 < seconds(small) < seconds(large) == pytest.approx(seconds(small) * hours.work(large) / hours.work(small))
    assert source == "ten steps of ResNet-8-16 just now" and set(tmp_path.rglob("*")) == files


def test_one_line_says_runs_device_and_hours_and_which_profile_takes_less_on_a_cpu(no_measurement, tmp_path, capsys):
    runs = study.figure4("short", expansions=[1], seeds=[0])
    results.append(row(runs[0], 7200.0), tmp_path)
    expected = hours.announce(runs, CPU, tmp_path)
    said = capsys.readouterr().out
    assert re.fullmatch(rf"4 runs on {re.escape(HERE)}: about \d\.\d hours, estimated from rows of this device\. "
                        r"The profile quick would take about \d+ min\.\n", said)
    assert expected[0] == 7200.0 and len(expected) == 4
    hours.announce([replace(runs[0], recipe="smoke")], CPU, tmp_path)
    assert capsys.readouterr().out == f"1 run on {HERE}: about 1 min, estimated from rows of this device.\n"


def test_a_line_says_which_run_is_on_and_when_the_last_ends(monkeypatch, capfd):
    now = [1000.0]
    monkeypatch.setattr(hours.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(hours.time, "time", lambda: now[0])
    monkeypatch.setattr(hours.time, "localtime", hours.time.gmtime)
    runs = study.figure4("smoke")[:3]
    progress = hours.Progress(runs, [60.0, 60.0, 600.0], silent=False)
    progress.begin(0)
    now[0] += 120.0  # twice as long as expected
    progress.tell()
    progress.begin(1)
    assert capfd.readouterr().err.splitlines() == [
        f"run 1 of 3: {runs[0].id}; the last ends at about 1970-01-01 00:28",
        f"run 2 of 3: {runs[1].id}; the last ends at about 1970-01-01 00:40"]
    now[0] += hours.SILENCE + 1
    progress.tell()
    progress.tell()
    assert capfd.readouterr().err.count("run 2 of 3") == 1
