"""Several trainings in one process."""

import functools

import pytest
import torch
from helpers import CPU, After, same_bits, short_run

from lc import training
from lc.fast import FastTrainer
from lc.fast.in_turn import in_turn
from lc.run import Stopped

RUNS = [  # the first has dropout
    short_run("MobileNet-v2", False, 0, train_images=24, test_images=8),
    short_run("ResNet-LC-8-8x2", True, 1),
    short_run("ResNet-8-8", False, 2),
]
OPTIONS = dict(device="cpu", precision="fp32", progress=False)


@functools.cache
def alone(run):
    return training.finish(training.stepwise(FastTrainer, run, **OPTIONS))


def test_each_trains_to_the_bits_that_it_has_alone():
    found, order = {}, []

    def one(run):
        steps = training.stepwise(FastTrainer, run, stop=lambda: order.append(run), **OPTIONS)
        found[run] = yield from steps

    before = torch.get_rng_state()
    in_turn(map(one, RUNS), 2, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    # two steps of the first; once it is evaluated, the third begins
    assert order[:7] == [*RUNS[:2], *RUNS[:2], RUNS[1], *RUNS[1:]] and list(found) == RUNS
    for run in RUNS:
        same_bits(found[run], alone(run))


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

    def one(run, **options):
        path = tmp_path / f"{run.seed}.pt"
        try:
            return (yield from training.stepwise(
                FastTrainer, run, checkpoint=path, **options, **OPTIONS))
        except Stopped:
            stopped.append(run.seed)

    in_turn((one(run, stop=stop) for run in RUNS[1:]), 2, CPU)
    assert sorted(stopped) == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"1.pt", "2.pt"}
    same_bits(training.finish(one(RUNS[1])), alone(RUNS[1]))
