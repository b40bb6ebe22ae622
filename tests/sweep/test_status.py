"""What the results have and lack, and how long the rest would take."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lc
from lc import imagenet, results, study
from lc.benchmark import table
from lc.run import Result
from lc.sweep import status
from lc.sweep.operations import operations
from lc.utils.device import device_name

CPU = torch.device("cpu")
HERE = device_name(CPU)


def row(run, seconds, device=HERE):
    return Result(run.id, run.model, run.dataset, run.frozen, run.recipe.profile, run.seed, *[1.0] * 3, 1, 1, *[1.0] * 4,
                  epochs=run.recipe.epochs, train_images=getattr(run.recipe, "train_images", None) or 50_000, seconds=seconds,
                  images_per_second=1.0, device=device, precision="fp32", torch="2", git="0")


def lines(*arguments, **options):
    return list(status.report(*arguments, device="cpu", **options))


def estimate(run, *rows, folder=None):
    return status.estimator([row.row() for row in rows], CPU, folder)[0](run)


@pytest.fixture
def no_measurement(monkeypatch):
    """Nothing is trained to measure how long it takes."""
    monkeypatch.setattr(status, "_measured_rate", lambda device: pytest.fail("a step was measured"))


def test_rows_are_counted_by_experiment_and_profile_and_missing_runs_named(no_measurement, tmp_path):
    runs = study.figure4("quick")
    for run in runs[:-1]:
        results.append(row(run, 60.0), tmp_path)
    printed = lines(["figure4"], folder=tmp_path)
    assert [line.split()[:4] for line in printed[1:5]] == [["figure4", "paper", "0", "80"], ["figure4", "short", "0", "24"],
                                                           ["figure4", "quick", "23", "24"], ["figure4", "smoke", "0", "6"]]
    one = lines(["figure4"], "quick", tmp_path)
    assert one[1].split() == ["figure4", "quick", "23", "24", f"{60 / 3600:.2f}"]
    assert one[2].strip() == f"missing: {runs[-1].id}" and len(one) == 4
    assert one[3] == f"hours: on {HERE}, from its rows"


def test_hours_come_from_the_same_network_else_in_proportion_to_its_operations(no_measurement):
    small, large = study.pairs(["ResNet-8-16", "ResNet-20-16"], "cifar10", "short", [0])[::2]
    small_row = row(study.figure6b("quick")[0], 60.0)  # ResNet-LC-8-16x1
    known = study.figure6b("quick", seeds=[7])[0]
    assert estimate(known, small_row) == 60.0
    expected = 60.0 * operations(large) / operations(known) * (15 * 50_000) / (4 * 5_000)
    assert estimate(large, small_row) == pytest.approx(expected)
    assert estimate(large, small_row) / estimate(small, small_row) == pytest.approx(operations(large) / operations(small))


def counted(run, batch):
    """The operations of a forward pass for one image, by PyTorch's counter."""
    size = getattr(run.recipe, "image_size", 32)
    build = imagenet.build_model if isinstance(run, imagenet.Run) else lc.build_model
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(run.model).train()(torch.empty(batch, 3, size, size))
    return counter.get_total_flops() / batch


@pytest.mark.parametrize("model", ["ResNet-8-16", "ResNet-20-8", "ResNet-14-16-k5", "ResNet-LC-8-16x1", "ResNet-LC-14-8x3-k7",
                                   "ResNet-LC-8-8x4+ReLU", "ResNet-LC-14-16x2-k5+BN+ReLU"])
def test_operations_are_those_of_the_network(model):
    run = lc.Run(model, "cifar10", True, 0, "quick")
    assert operations(run) == counted(run, run.recipe.batch_size)


NETWORKS = list({(type(run), run.model, run.recipe): run for profile in ("paper", "short")
                 for run in study.everything(profile, ["figure1a", "figure1b", "table2"])}.values())


@pytest.mark.slow
@pytest.mark.parametrize("run", NETWORKS, ids=lambda run: f"{run.model}-{run.recipe.profile}")
def test_operations_of_off_the_shelf_networks_are_about_theirs(run):
    assert operations(run) == pytest.approx(counted(run, min(256, run.recipe.batch_size)), rel=0.01)


def test_every_experiment_has_its_operations():
    for profile in study.PROFILES:
        for run in study.everything(profile):
            assert operations(run) > 0


def test_hours_of_images_follow_their_number_size_and_batch(no_measurement):
    (plain, *_, large), short = study.table2("quick")[::2], study.table2("short")[0]
    known = replace(row(plain, 60.0), train_images=1540)
    assert estimate(plain, known) == 60.0 and 3 < estimate(large, known) / 60 < 100
    assert estimate(short, known) == pytest.approx(60.0 * (20_000 * 20) / (1_540 * 5), rel=1e-3)
    assert estimate(study.table2()[0], known) == pytest.approx(60.0 * (1_281_167 * 300) / (1_540 * 5) * (224 / 64) ** 2, rel=0.01)


def test_a_new_machines_hours_come_from_its_benchmark(no_measurement, tmp_path):
    results.append(row(study.figure4("quick")[0], 1.0, "NVIDIA H200"), tmp_path)
    about = dict(started="1", torch="2", git="0", precision="fp32", frozen=False, batch=256)
    table.save([about | dict(device=device, path=path, model=model, images_per_second=speed) for device, path, model, speed in (
        (HERE, "eager", "ResNet-20-16", 100.0), (HERE, "graph", "ResNet-20-16", 200.0), (HERE, "loop", "ResNet-20-16", 1e6),
        ("NVIDIA H200", "graph", "ResNet-20-16", 1e6))], tmp_path)
    printed = lines(["figure6a"], "short", tmp_path)
    seconds, source = status.estimator(results.load_rows(tmp_path).values(), CPU, tmp_path)
    run = lc.Run("ResNet-20-16", "cifar10", False, 0, "short")
    assert seconds(run) == pytest.approx(15 * 50_000 / 200, rel=0.02)  # a learned network has no filters to combine
    assert float(printed[1].split()[-1]) == pytest.approx(sum(map(seconds, study.figure6a("short"))) / 3600, abs=0.006)
    assert printed[-1] == f"hours: on {HERE}, from {source}" and source == "its benchmark in speed.csv"


def test_without_rows_and_benchmark_a_small_network_is_measured(tmp_path):
    seconds, source = status.estimator([], CPU, tmp_path)
    small, large = (lc.Run(model, "cifar10", False, 0, "quick") for model in ("ResNet-8-16", "ResNet-20-64"))
    assert 0 < seconds(small) < seconds(large) == pytest.approx(seconds(small) * operations(large) / operations(small))
    assert source == "half a second of training ResNet-8-16 just now" and not list(tmp_path.iterdir())


def test_an_unknown_experiment_is_named():
    with pytest.raises(ValueError, match="unknown experiment 'figure5'; known: figure4, table1"):
        lines(["figure5"])


def test_a_trained_run_is_of_this_device():
    run = lc.Run("ResNet-8-4", "digits", False, 0, lc.Recipe("one-step", epochs=1, batch_size=8, train_images=8, test_images=8))
    assert lc.train(run, device="cpu", progress=False).device == HERE
