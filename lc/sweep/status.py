"""What the results have, what they lack, and how long the rest would take on this device."""

from statistics import median

from .. import results, study
from ..run import Run
from ..utils.device import device_name, resolve_device, resolve_precision
from .operations import operations

TIMED = Run("ResNet-8-16", "cifar10", False, 0, "quick")


def report(experiments=(), profile=None, folder=None, device="auto"):
    """Yields the state of each experiment as lines of text. If a profile is named, also the ids of its missing runs.

    The hours are those of one run after another. Raises ValueError if a name is unknown or the results are damaged.
    """
    wanted = {(chosen, name): study.everything(chosen, [name])
              for chosen in ([profile] if profile else study.PROFILES) for name in experiments or study.EXPERIMENTS}
    device, rows = resolve_device(device), results.load_rows(folder)
    seconds, source = estimator(rows.values(), device, folder)
    yield f"{'experiment':12} {'profile':8} {'rows':>4} {'runs':>5} {'hours left':>11}"
    for (chosen, name), runs in wanted.items():
        missing = [run for run in runs if run.id not in rows]
        hours = f"{sum(map(seconds, missing)) / 3600:.2f}" if missing else "-"
        yield f"{name:12} {chosen:8} {len(runs) - len(missing):4} {len(runs):5} {hours:>11}"
        if profile:
            yield from (f"  missing: {text}" for text in study.by_seeds(missing))
    yield f"hours: on {device_name(device)}, from {source}"
    if not profile:
        yield "--profile NAME lists the missing runs"


def estimator(rows, device, folder=None):
    """A function that estimates the seconds of a run on a device, and what the estimate comes from.

    A run takes as long as a row of this device with the same network, data set and profile. Without such a row, its time is
    proportional to its floating-point operations. Their rate comes from other rows of this device, else from the device's
    rows in `speed.csv`, else from half a second of training.
    """
    name = device_name(device)
    known = {(row["model"], row["dataset"], row["profile"]): row["seconds"] for row in rows if row["device"] == name}
    runs = {_kind(run): run for profile in study.PROFILES for run in study.everything(profile)}
    rates, source = [seconds / _work(runs[kind]) for kind, seconds in known.items() if kind in runs], "its rows"
    if not rates:
        rates, source = _rates_of_benchmark(name, folder), "its benchmark in speed.csv"
    if not rates:
        rates, source = [_measured_rate(device)], f"half a second of training {TIMED.model} just now"
    rate = median(rates)
    return lambda run: known.get(_kind(run)) or rate * _work(run), source


def _kind(run):
    return run.model, run.dataset, run.recipe.profile


def _work(run):
    return operations(run) * run.training_images * run.recipe.epochs


def _rates_of_benchmark(name, folder):
    """Seconds per operation of each network in `speed.csv`, in the fastest of this project's own ways."""
    from ..benchmark.table import load_table

    table = load_table(folder)
    table = table[(table["device"] == name) & table["path"].isin(["eager", "graph", "fused"])]
    fastest = table.groupby("model")["images_per_second"].max()
    return [1 / (speed * operations(Run(model, "cifar10", False, 0))) for model, speed in fastest.items()]


def _measured_rate(device):
    """Seconds per operation of a small network's training step."""
    from ..benchmark.measure import seconds_of
    from ..benchmark.steps import make_step

    trainer, step = make_step(device, TIMED.model, False, "eager", TIMED.recipe.batch_size, resolve_precision("auto", device))
    if device.type == "cuda":
        trainer.capture()
    return seconds_of(step, device, 0.5) / TIMED.recipe.batch_size / operations(TIMED)
