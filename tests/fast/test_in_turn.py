"""Several trainings in one process."""

import pytest
import torch
from helpers import CPU, After, short_run

from lc import training
from lc.fast import FastTrainer
from lc.fast.in_turn import in_turn
from lc.run import Stopped

RUNS = [  # the first has dropout
    short_run("MobileNet-v2", False, 0, train_images=24, test_images=8),
    short_run("ResNet-LC-8-8x2", True, 1),
    short_run("ResNet-8-8", False, 2),
    short_run("ResNet-LC-8-8x2+BN+ReLU", True, 3),
]
OPTIONS = dict(device="cpu", precision="fp32", progress=False)


def alone(run, **options):
    return training.finish(training.stepwise(FastTrainer, run, **options, **OPTIONS))


@pytest.mark.parametrize("n", [2, 5])
def test_each_trains_to_the_bits_that_it_has_alone(n):
    found, order = {}, []

    def one(run):
        steps = training.stepwise(FastTrainer, run, stop=lambda: order.append(run.id), **OPTIONS)
        found[run.id] = yield from steps

    before = torch.get_rng_state()
    in_turn(map(one, RUNS), n, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert order[:4] == [run.id for run in (RUNS[:2] * 2 if n == 2 else RUNS)]
    for run in RUNS:
        mine, expected = found[run.id], alone(run)
        assert (mine.train_loss, mine.accuracy) == (expected.train_loss, expected.accuracy)
        weights = mine.network.state_dict()
        for name, value in expected.network.state_dict().items():
            assert torch.equal(weights[name], value), name


def test_an_error_closes_the_others_and_no_other_begins():
    closed, begun = [], []

    def one(name):
        begun.append(name)
        try:
            yield
            if name == "b":
                raise KeyError(name)
            yield
        finally:
            closed.append(name)

    with pytest.raises(KeyError, match="b"):
        in_turn(map(one, "abc"), 2, CPU)
    assert begun == ["a", "b"] and sorted(closed) == ["a", "b"]


def test_all_that_are_running_are_stopped_at_a_step_of_their_own(tmp_path):
    stop, stopped = After(5), []

    def one(run):
        options = dict(stop=stop, checkpoint=tmp_path / f"{run.seed}.pt") | OPTIONS
        try:
            yield from training.stepwise(FastTrainer, run, **options)
        except Stopped:
            stopped.append(run.seed)

    in_turn(map(one, RUNS[1:3]), 2, CPU)
    assert sorted(stopped) == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"1.pt", "2.pt"}
    again, expected = alone(RUNS[1], checkpoint=tmp_path / "1.pt"), alone(RUNS[1])
    assert (again.train_loss, again.accuracy) == (expected.train_loss, expected.accuracy)
