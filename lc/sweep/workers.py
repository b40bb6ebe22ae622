"""Trains with several processes at once. The claims of a results folder share the runs out."""

import multiprocessing
import os
import re
import signal
import time
from datetime import timedelta
from multiprocessing.connection import wait
from unittest import mock

import torch

from .. import hours, study
from ..run import TrainingError
from ..utils import check
from ..utils.device import resolve_device, resolve_precision
from ..utils.fresh_process import in_fresh_process
from ..utils.signals import stop_on_signals

GRACE = 60.0  # seconds that a worker has to write its checkpoint


def sweep(experiments=(), profile="paper", folder=None, *, seeds=None, shard=None, workers=None,
          data_dir=None, device="auto", precision="auto", stop=None, **options):
    """Trains the runs of experiments that the results lack, with one process or several.

    Most arguments are options of the command `lc sweep`, whose help describes them.

    Args:
        experiments: names of `study.EXPERIMENTS`; all if there is none.
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.
        stop: a function that is called often. If it returns True, the processes stop at their next
            step. The same sweep continues from there.
        options: those of `study.train_each`.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: before any training, as `study.train_missing`, or if there is not at least one
            worker or the shard is bad.
        TrainingError: at the end, naming each run that failed and each process that died.
    """
    began = time.monotonic()
    study.check_options(**options)
    runs = part(study.everything(profile, experiments, seeds), shard)
    _, missing = study.found_and_missing(runs, folder)
    environments = worker_environments(device, workers)[:len(missing)]
    where = resolve_device(device)
    if len(environments) < 2:
        trained = study.train_missing(missing, folder, data_dir=data_dir, device=device,
                                      precision=precision, stop=stop, **options)
    else:
        resolve_precision(precision, torch.device("cpu"))  # checks the name without a GPU's memory
        missing = study.available(missing, data_dir)
        gpus = len({environment.get("CUDA_VISIBLE_DEVICES") for environment in environments})
        about = missing, where, folder, len(environments), gpus
        on_gpu = where.type == "cuda"
        expected = in_fresh_process(hours.announce, *about) if on_gpu else hours.announce(*about)
        options |= dict(data_dir=data_dir, device=where.type, precision=precision, progress=False)
        trained = _train_with(environments, (missing, expected, folder), options, stop)
    _, missing = study.found_and_missing(runs, folder)
    print(f"trained {len(trained)} runs in {timedelta(seconds=round(time.monotonic() - began))}; "
          f"{len(missing)} of {len(runs)} are still missing")
    return trained


def part(runs, shard):
    """The runs of a shard "I/N": every N-th run from the I-th on; all if it is None.

    Raises:
        ValueError: if the shard is bad.
    """
    if shard is None:
        return runs
    parsed = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", str(shard))
    if not parsed or int(parsed[1]) > int(parsed[2]):
        raise ValueError(f"a shard is I/N with I from 1 to N, such as 1/4, not {shard!r}")
    return runs[int(parsed[1]) - 1::int(parsed[2])]


def worker_environments(device="auto", workers=None):
    """The environment variables of each worker: its GPU, in turn, or its share of the threads.

    A device such as "cuda:1" is the GPU of all workers.

    Raises:
        ValueError: if the device is bad, or there is not at least one worker.
    """
    if workers is not None:
        check.integer("workers", workers)
    device = resolve_device(device)
    if device.type == "cpu":
        workers = workers or 1
        return [{"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}] * workers
    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    gpus = [name.strip() for name in listed.split(",")]
    gpus = gpus[:count] if device.index is None else [gpus[device.index]]
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers or len(gpus))]


def _train_with(environments, arguments, options, stop):
    """Trains in a process for each environment. Returns the ids of the runs that were trained."""
    spawn, workers = multiprocessing.get_context("spawn"), {}
    try:
        for environment in environments:
            receiver, sender = spawn.Pipe(duplex=False)
            worker = spawn.Process(target=_work, args=(sender, arguments, options))
            with mock.patch.dict(os.environ, environment):  # read as the process imports PyTorch
                worker.start()
            sender.close()  # of this process; the worker's end closes with the worker
            workers[receiver] = worker
        return _outcome(workers, stop)
    finally:
        for worker in workers.values():
            worker.terminate()  # after an error, too, no worker is left behind
        for worker in workers.values():
            worker.join(GRACE)
            worker.kill()


def _work(sender, arguments, options):
    """A worker: trains what no other one trains, and sends the ids of its runs and what failed."""
    os.setsid()  # Ctrl-C in a terminal reaches it through the first process only
    with stop_on_signals() as stop:
        try:
            sender.send((study.train_each(*arguments, stop=stop, **options), None))
        except (TrainingError, ValueError, OSError) as error:
            sender.send(([], str(error)))


def _outcome(workers, stop):
    """Waits for the workers, `{connection: process}`, and tells them to stop if `stop` says so."""
    trained, failed, told, waiting = [], [], False, dict(workers)
    names = {receiver: f"worker {i}" for i, receiver in enumerate(workers, 1)}
    while waiting:
        if not told and stop is not None and stop():
            told = True
            for worker in waiting.values():
                # others may have sent SIGTERM, and a second one would kill
                os.kill(worker.pid, signal.SIGUSR1)
        for receiver in wait([*waiting], timeout=0.5):
            worker = waiting.pop(receiver)
            try:
                ids, failure = receiver.recv()
                trained += ids
            except EOFError:  # it has died
                worker.join()
                failure = f"ended with status {worker.exitcode}; the same command continues"
            if failure and not told:
                failed.append(f"{names[receiver]}: {failure}")
            worker.join()
    if failed:
        raise TrainingError("; ".join(failed))
    return trained
