"""What several test files share: made-up results, tiny runs, and trainers of them."""

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

import lc
from lc import imagenet, results
from lc.names import Architecture, architecture
from lc.run import COLUMNS
from lc.training import Trainer, finish
from lc.utils.files import ROOT

CPU = torch.device("cpu")
EXACT = {"rtol": 1e-9, "atol": 1e-11}  # another order of summation in float64, nothing else
FILTERS = np.arange(18, dtype=np.float16).reshape(2, 1, 3, 3)
MODELS = ["ResNet-LC-8-8x2", "ResNet-LC-8-8x2+BN+ReLU"]  # each kind of LC-Block
SHORT = lc.Recipe("tests", epochs=2, batch_size=24, train_images=64, test_images=40)  # six steps
TINY = lc.Recipe("tiny", epochs=1, batch_size=8, train_images=32, test_images=16)  # four steps
IMAGENET_TINY = replace(imagenet.RECIPES["a2"], profile="tiny", image_size=32, epochs=3,
                        batch_size=16, warmup_epochs=1, drop_path=0.5)


def result(seed=0, **changes):
    """A made-up result of a run on the digits."""
    run = lc.Run("ResNet-LC-8-8x2", "digits", True, seed, "smoke")
    return replace(lc.Result(
        id=run.id, model=run.model, dataset="digits", frozen=True, profile="smoke", seed=seed,
        accuracy=87.5, robust_accuracy=50.25, train_loss=1.5, learnable_parameters=100,
        total_parameters=200, fve_first=0.75, fve_last=0.5, fve_first_normalized=float("nan"),
        fve_last_normalized=1.0, epochs=4, train_images=512, seconds=3.5, images_per_second=600.0,
        device="some CPU, 2 threads", precision="fp32", torch="2.15.0", git="0123456789",
        setup_seconds=0.05, train_accuracy=95.0,
        arrays={"variance_map": np.ones((3, 3)), "first": FILTERS}), **changes)


def result_of(run, **changes):
    """The same of another run."""
    return result(run.seed, id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen,
                  profile=run.recipe.profile, **changes)


def append_many(folder, seeds):
    """Records a made-up result for each seed."""
    for seed in seeds:
        results.append(result(seed), folder)


def edited(folder, edit):
    """A results folder of two rows whose CSV file was edited as a list of lists of fields."""
    append_many(folder, range(2))
    with open(folder / "runs.csv", newline="") as f:
        lines = list(csv.reader(f))
    edit(lines)
    with open(folder / "runs.csv", "w", newline="") as f:
        csv.writer(f).writerows(lines)
    return folder


def put(line, column, value):
    """An edit for `edited`: puts a value into a line."""
    return lambda lines: lines[line].__setitem__(list(COLUMNS).index(column), value)


def rows(*runs, dataset="cifar10"):
    """Rows of (model, frozen, seed, accuracy), as `study.found_and_missing` returns them."""
    table = pd.DataFrame(runs, columns=["model", "frozen", "seed", "accuracy"])
    table = table.assign(dataset=dataset, profile="quick", epochs=4, learnable_parameters=10,
                         id=[str(run) for run in runs])
    shapes = [architecture(name) for name in table["model"]]
    return table.join(pd.DataFrame(shapes, columns=Architecture._fields))


def short_run(model="ResNet-LC-8-8x2", frozen=True, seed=0, **changes):
    """A run of six steps on the digits."""
    return lc.Run(model, "digits", frozen, seed, replace(SHORT, **changes))


def trainer_of(run, device=CPU, precision="fp32", dtype=torch.float32, kind=Trainer, **options):
    """The trainer of a run before its first step, augmented as for CIFAR.

    Args:
        kind: the class, such as `lc.fast.FastTrainer`, which takes `options`.
    """
    data = replace(lc.load_data(run.dataset), augment=True)
    torch.manual_seed(run.seed)
    network = lc.build_model(run.model, len(data.classes), data.channels)
    if run.frozen:
        lc.freeze_spatial(network)
    return kind(network.to(dtype), data, run.recipe, run.seed, device, precision, **options)


def epoch(trainer):
    """Trains an epoch; returns its mean loss."""
    return finish(trainer.steps())


def epochs(trainer):
    """The same of all epochs."""
    return [epoch(trainer) for _ in range(trainer.recipe.epochs)]


def same_bits(result, expected):
    """Checks that two trainings left the same accuracy, loss, arrays and network."""
    assert result.accuracy == expected.accuracy and result.train_loss == expected.train_loss
    for ours, theirs in ((result.arrays, expected.arrays),
                         (result.network.state_dict(), expected.network.state_dict())):
        torch.testing.assert_close({**ours}, {**theirs}, rtol=0, atol=0)


def counts(network):
    """The number of all parameters, and of those that are learned."""
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def at_once(function):
    """A generator function for `study.stepwise_run` that only calls a function."""
    def steps(*arguments, **options):
        return function(*arguments, **options)
        yield

    return steps


def torchrun(script, *arguments):
    """What a script prints in two processes, which find `lc` and this folder of tests."""
    folders = ROOT, ROOT / "tests", ROOT / "tests" / "imagenet"
    path = os.pathsep.join(map(str, folders))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, script, *arguments], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


class After:
    """A `stop` that says yes when it is asked for the n-th time."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left <= 0


class Terminal(io.StringIO):
    """A text file that says it is a terminal."""

    def isatty(self):
        return True
