"""What the commands of the command line do with their options `a`: see `lc.__main__`."""

import ast
import os
import sys
from contextlib import contextmanager, nullcontext

from . import fast, networks, results
from .run import Run, Stopped, check_part
from .sweep import doctor, status, workers
from .utils.device import git_version
from .utils.files import ROOT, expanded
from .utils.fresh_process import stop_on_signals


@contextmanager
def _claimed(run, again):
    """Claims a run. Raises ValueError if another process has it, or its row is there."""
    with results.claim(run.id) as mine:
        if not mine:
            raise ValueError(f"{run.id} is being trained by another process")
        row = results.load_rows().get(run.id)
        if row and not again:
            raise ValueError(f"{run.id} is in the results already; --again trains it anew")
        if row:
            print(f"The row is of commit {row['git']}, this is {git_version()}. Only the same "
                  "commit gives the same bits.")
        yield


def run_train(a):
    run = Run(a.model, a.dataset, a.frozen, a.seed, a.profile)
    if a.save:
        networks.check_file(a.save, a.again)
    with _claimed(run, a.again), stop_on_signals() as stop:
        result = fast.train(run, data_dir=a.data_dir, device=a.device, precision=a.precision,
                            fuse=a.fuse, checkpoint=results.checkpoint_path(run.id), stop=stop)
        if a.save:
            networks.save_network(result, a.save, a.unfolded)
        results.append(result)
    _print(result)


def run_imagenet(a):
    from .imagenet import ImageNetRun, images  # timm takes seconds to import
    from .imagenet.processes import rank, world
    from .imagenet.training import train_imagenet

    name = a.dataset or os.path.basename(os.path.abspath(expanded(a.data or "imagenet")))
    try:
        check_part(name)
    except ValueError as error:
        hint = "" if a.dataset else "; name the data set by --dataset"
        raise ValueError(f"{error}{hint}") from None
    run = ImageNetRun(a.model, name, a.frozen, a.seed, a.recipe)
    folder = expanded(a.data or images.find(name))
    kept = results.checkpoint_path(run.id)
    saved = kept.with_suffix(".safetensors")
    first = rank() == 0  # of the processes that torchrun started: it alone writes
    claimed = _claimed(run, a.again) if first else nullcontext()
    # several processes cannot stop at the same step
    stopping = stop_on_signals() if world() == 1 else nullcontext()
    with claimed, stopping as stop:
        result = train_imagenet(run, data=folder, device=a.device, precision=a.precision,
                                batch=a.batch, workers=a.workers, checkpoint=kept, stop=stop,
                                log=lambda line: print(line, flush=True))
        if first:
            networks.save_network(result, saved)
            results.append(result)
    if first:
        _print(result)
        print(f"network: {saved}")


def _print(result):
    for column, value in result.row().items():
        text = f"{value:.6g}" if isinstance(value, float) else value
        print(f"{column:22} {text}")


def run_sweep(a):
    with stop_on_signals() as stop:
        workers.sweep([*a.experiment, *a.only], a.profile, seeds=a.seeds, shard=a.shard,
                      workers=a.workers, data_dir=a.data_dir, device=a.device,
                      precision=a.precision, fuse=a.fuse, together=a.together,
                      time_limit=a.time_limit, save=a.save, unfolded=a.unfolded, stop=stop)
        if stop():
            raise Stopped


def run_notebooks(a):
    from .publish import notebooks  # a server that trains may lack papermill

    given = dict(profile=a.profile, train=a.train, data_dir=a.data_dir, device=a.device)
    given |= {name: literal(value) for name, value in a.parameters}
    parameters = {name: value for name, value in given.items() if value is not None}
    out = expanded(a.out) if a.out else ROOT / "build" / "notebooks"
    if out.resolve() == notebooks.NOTEBOOKS.resolve():
        raise ValueError(f"the notebooks in {out} would be overwritten; choose another folder")
    chosen = notebooks.chosen(a.names, parameters)
    out.mkdir(parents=True, exist_ok=True)
    # two read results at a time, but one trains after the other
    outcome = notebooks.execute(chosen, out, 1 if parameters.get("train") else 2)
    print(f"notebooks, pages and logs: {out}")
    if any(outcome.values()):
        sys.exit(f"lc: failed: {', '.join(name for name, error in outcome.items() if error)}")


def literal(text):
    """The value of a word on the command line: a literal of Python, such as a list, or text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def run_status(a):
    for line in status.report(a.experiment, a.profile, device=a.device):
        print(line, flush=True)


def run_benchmark(a):
    from .benchmark.steps import benchmark

    benchmark(a.device, a.precision, a.batch, a.models, a.paths, a.seconds)


def run_doctor(a):
    wrong = 0
    for right, line in doctor.examine(a.data_dir):
        print("ok   " if right else "WRONG", line, flush=True)
        wrong += not right
    if wrong:
        sys.exit(f"lc: {wrong} of this machine's parts cannot be used")


def run_merge(a):
    taken, differing = results.merge(a.source, replace=a.replace)
    print(f"took over {len(taken)} runs from {a.source}")
    done = "replaced" if a.replace else "kept as it was; --replace takes the other"
    for run_id in differing:
        print(f"differs: {run_id} ({done})")
