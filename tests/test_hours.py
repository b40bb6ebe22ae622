"""How long runs take, and what is said about it before they are trained."""

import re
from dataclasses import replace

import pytest
import torch
from helpers import CPU, result_of
from torch.utils.flop_counter import FlopCounterMode

import lc
from lc import hours, imagenet, results, study
from lc.utils.device import device_name, said_name

HERE = device_name(CPU)
SMALL = lc.Run("ResNet-8-16", "cifar10", False, 0, "quick")


def record(run, seconds, device=HERE):
    """Records a row of a run that took these seconds, all of them for training."""
    top5 = 1.0 if isinstance(run, imagenet.ImageNetRun) else float("nan")
    images = run.training_images * run.recipe.epochs
    results.append(result_of(run, epochs=run.recipe.epochs, train_images=run.training_images,
                             seconds=seconds, setup_seconds=0.0,
                             images_per_second=images / seconds, device=device,
                             accuracy_top5=top5))


def estimate(run):
    return hours.estimator(CPU)[0](run)


@pytest.fixture
def no_measurement(store, monkeypatch):
    """Nothing is trained to measure how long it takes."""
    monkeypatch.setattr(hours, "_measured", lambda *_: pytest.fail("a step was measured"))


def test_a_run_takes_as_long_as_the_same_network_by_its_images_and_epochs(no_measurement):
    record(SMALL, 60.0)
    assert estimate(replace(SMALL, frozen=True, seed=3)) == pytest.approx(60.0)
    short = replace(SMALL, recipe="short")
    assert estimate(short) == pytest.approx(60.0 * (50_000 * 15) / (5_000 * 4))
    record(short, 700.0)
    record(replace(short, seed=1), 900.0)
    assert estimate(short) == pytest.approx(800.0)  # of the same profile
    assert estimate(SMALL) == pytest.approx(60.0)


def test_set_up_does_not_grow_and_evaluation_grows_with_the_test_images(no_measurement):
    tiny = replace(SMALL, recipe="smoke")
    images = tiny.training_images * tiny.recipe.epochs
    results.append(result_of(tiny, epochs=tiny.recipe.epochs, train_images=tiny.training_images,
                             seconds=12.0, setup_seconds=3.0, images_per_second=images / 2,
                             device=HERE))
    assert estimate(tiny) == pytest.approx(12.0)
    training, tests = 5_000 * 4 / images, 2_000 / 10_000
    assert estimate(SMALL) == pytest.approx(3.0 + training * 2.0 + tests * 7.0)


def test_rows_of_several_data_sets_count_by_their_images(no_measurement):
    short = replace(SMALL, recipe="short")
    record(short, 500.0)
    record(replace(short, dataset="fashion-mnist"), 600.0)
    assert estimate(short) == pytest.approx(500.0)
    assert estimate(replace(short, dataset="svhn")) == pytest.approx(732.57)


def test_rows_of_networks_and_recipes_of_another_version_do_not_count(no_measurement):
    record(SMALL, 60.0)
    row = result_of(SMALL, device=HERE)
    results.append(replace(row, id="cifar10/ResNet-8-16~later/learnable/quick/seed0",
                           model="ResNet-8-16~later"))
    results.append(replace(row, id="cifar10/ResNet-18d/learnable/later/seed0", model="ResNet-18d",
                           profile="later", accuracy_top5=1.0))
    assert estimate(SMALL) == pytest.approx(60.0)


def test_another_network_takes_as_long_as_the_nearest_in_cost_by_their_costs(no_measurement):
    large = replace(SMALL, model="ResNet-20-64", recipe="short")
    for seed, seconds in enumerate([90.0, 100.0, 900.0]):
        record(replace(large, model="ResNet-8-64", seed=seed), seconds)
    record(replace(large, model="ResNet-8-8"), 99.0)
    record(replace(large, model="ResNet-20-48", recipe="quick"), 1.0)  # of another profile
    assert estimate(large) == pytest.approx(300.0)  # 18 layers, not 6


def test_without_rows_of_this_device_those_of_its_kind_count_and_else_ten_steps(
        store, monkeypatch):
    """A row names the number of threads, so a machine of its own may have none."""
    large, clock = replace(SMALL, model="ResNet-20-16"), iter(range(100))
    times = [7.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 9.0, 9.0, 9.0]  # the machine gets busy

    def perf_counter():
        step, ended = divmod(next(clock), 2)
        return 10.0 * step + ended * times[step]

    record(SMALL, 5.0, "NVIDIA H200")
    with monkeypatch.context() as patch:
        patch.setattr(hours.time, "perf_counter", perf_counter)
        seconds, source = hours.estimator(CPU)
    assert source == "ten steps of ResNet-8-16 just now"
    assert seconds(large) == pytest.approx(3 * 0.5 / 32 * 5_000 * 4)

    record(SMALL, 60.0, "2 x some CPU, 99 threads")
    seconds, source = hours.estimator(CPU)
    assert source == "rows of another CPU" and seconds(large) == pytest.approx(180.0)
    record(SMALL, 40.0, HERE)
    seconds, source = hours.estimator(CPU)
    assert source == "rows of this device" and seconds(large) == pytest.approx(120.0)
    monkeypatch.setattr(hours, "device_name", lambda device: "NVIDIA A100")
    record(SMALL, 5.0, "NVIDIA H200")
    seconds, source = hours.estimator(torch.device("cuda"))
    assert source == "rows of another GPU" and seconds(large) == pytest.approx(15.0)


def low(model):
    return lc.Run(model, "cifar10", True, 0, "quick")


@pytest.mark.parametrize("run", [
    *map(low, ["ResNet-14-16-k5", "ResNet-LC-8-16x99", "ResNet-LC-8-8x4+BN+ReLU", "ResNet-14"]),
    imagenet.ImageNetRun("ResNet-18d-LCx64", "imagenet", True, 0),
    imagenet.ImageNetRun("ResNet-18d-LCx64", "imagenet", True, 0, "short")],
    ids=lambda run: f"{run.model}-{run.recipe.profile}")
def test_the_cost_is_about_the_operations_of_the_network(run):
    size, batch = getattr(run.recipe, "image_size", 32), min(256, run.recipe.batch_size)
    on_images = isinstance(run, imagenet.ImageNetRun)
    build = imagenet.build_imagenet_model if on_images else lc.build_model
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(run.model).train()(torch.empty(batch, 3, size, size))
    assert hours.cost(run) == pytest.approx(counter.get_total_flops() / batch / size**2, rel=0.25)


def test_rows_of_ones_own_images_and_recipes_do_no_harm(no_measurement):
    own = [imagenet.ImageNetRun("ResNet-18d-LCx2", "flowers", False, 0, "smoke"),
           lc.Run("ResNet-8-8", "mine", True, 0, "quick"),
           lc.Run("ResNet-8-8", "digits", True, 0, lc.Recipe("own", epochs=1)),
           study.precisions("quick")[0],
           lc.Run("ResNet-8-8", "digits", False, 0, "smoke-decay1e-3")]
    for each in own:
        record(each, 60.0)
    assert [estimate(run) for run in own] == pytest.approx([60.0] * 5)


def test_hours_on_images_follow_their_number_and_size(no_measurement):
    plain, short, paper = study.table2("quick")[0], study.table2("short")[0], study.table2()[0]
    record(plain, 60.0)
    image = 60.0 / (1_540 * 5)  # seconds
    assert estimate(short) == pytest.approx(20_000 * 20 * image, rel=1e-3)
    larger = (224 / 64) ** 2
    assert estimate(paper) == pytest.approx(1_281_167 * 300 * image * larger, rel=0.01)


def test_one_line_says_runs_device_and_hours_and_that_smaller_profiles_take_less_on_a_cpu(
        no_measurement, capsys):
    runs = study.figure4("short", expansions=[1], seeds=[0])
    record(runs[0], 7200.0)
    expected = hours.announce(runs, CPU)
    said = capsys.readouterr().out
    assert said.startswith(f"4 runs on {said_name(CPU)}: about ")
    assert re.search(r"about \d\.\d hours, estimated from rows of this device\. "
                     r"A smaller profile takes less; `lc status` says how long\.\n$", said)
    assert expected[0] == pytest.approx(7200.0) and len(expected) == 4
    assert hours.announce(runs, CPU, workers=2) == pytest.approx([each / 2 for each in expected])
    assert ", by 2 workers: about " in capsys.readouterr().out
