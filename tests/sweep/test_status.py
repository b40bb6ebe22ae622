"""What the results have and lack, and how long the rest would take."""

import math
from dataclasses import replace

import pytest

from lc import results, status, study
from lc.utils.device import device_name, resolve_device
from lc.run import Result
from lc.training import train

HERE = device_name(resolve_device("cpu"))


def row(run, seconds, device=HERE):
    return Result(run.id, run.model, run.dataset, run.frozen, run.recipe.profile, run.seed, *[1.0] * 3, 1, 1, *[1.0] * 4,
                  epochs=run.recipe.epochs, train_images=getattr(run.recipe, "train_images", None) or 50_000, seconds=seconds,
                  images_per_second=1.0, device=device, precision="fp32", torch="2", git="0")


def lines(*arguments, **options):
    return list(status.report(*arguments, device="cpu", **options))


def test_rows_are_counted_by_experiment_and_profile_and_missing_runs_named(tmp_path):
    runs = study.figure4("quick")
    for run in runs[:-1]:
        results.append(row(run, 60.0), tmp_path)
    table = lines(["figure4"], folder=tmp_path)
    assert [line.split()[:4] for line in table[1:4]] == [["figure4", "paper", "0", "80"], ["figure4", "quick", "23", "24"],
                                                         ["figure4", "smoke", "0", "6"]]
    one = lines(["figure4"], "quick", tmp_path)
    assert one[1].split() == ["figure4", "quick", "23", "24", f"{60 / 3600:.2f}"]
    assert one[2].strip() == f"missing: {runs[-1].id}" and len(one) == 4


def test_hours_come_from_the_same_network_else_in_proportion_to_its_operations(tmp_path):
    small, large = study.pairs(["ResNet-8-16", "ResNet-20-16"], "cifar10", "quick", [0])[::2]
    seconds = status._Seconds([row(small, 60.0).row()])
    assert seconds(small) == 60.0
    assert seconds(large) == pytest.approx(60.0 * status.flops("ResNet-20-16") / status.flops("ResNet-8-16"))
    paper = study.pairs(["ResNet-8-16"], "cifar10", "paper", [0])[0]
    assert seconds(paper) == pytest.approx(60.0 * 75 * 50_000 / (4 * 5_000))


def test_operations_are_those_of_the_network():
    height = 32
    macs, channels = 9 * 3 * 16 * height ** 2, 16
    for stage in range(3):
        width = 16 << stage
        height = 32 >> stage
        macs += (9 * channels * width + 9 * width * width + channels * width * (stage > 0)) * height ** 2
        channels = width
    assert status.flops("ResNet-8-16") == 2 * (macs + 64 * 10)


def test_hours_of_photographs_follow_their_number_size_and_batch():
    (plain, *_, large), short = study.table2("quick")[::2], study.table2("short")[0]
    seconds = status._Seconds([replace(row(plain, 60.0), train_images=1540).row()])
    assert seconds(plain) == 60.0 and 3 < seconds(large) / 60 < 100
    same_work = 60.0 * (20_000 * 20) / (1_540 * 5)
    assert seconds(short) == pytest.approx(same_work, rel=1e-3)
    assert status._images(study.table2("smoke")[0]) == 160 and status._images(study.table2()[0]) == 1_281_167


def test_another_devices_rows_say_nothing_about_this_one(tmp_path):
    results.append(row(study.figure4("quick")[0], 60.0, "NVIDIA H200"), tmp_path)
    table = lines(["figure4"], "quick", tmp_path)
    assert table[1].split()[-1] == "?" and f"no row is of this device ({HERE})" in table[-1]
    assert math.isnan(status._Seconds([])(study.figure4("quick")[0]))


def test_an_unknown_experiment_is_named():
    with pytest.raises(ValueError, match="unknown experiment 'figure5'; known: figure4, table1"):
        lines(["figure5"])


def test_a_trained_run_is_of_this_device(tmp_path):
    run = study.pairs(["ResNet-8-8"], "digits", "smoke", [0])[0]
    results.append(train(run, device="cpu", progress=False), tmp_path)
    assert "from its rows" in lines(["figure4"], "smoke", folder=tmp_path)[-1]
