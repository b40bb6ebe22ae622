"""Trains with several workers at once: processes that share one results folder, whose claims let no run be trained twice."""

import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import networks, results, study
from ..training import TrainingError
from ..utils import check
from ..utils.device import resolve_device, resolve_precision
from ..utils.files import ROOT
from .mps import multi_process_service

LOGS = ROOT / "build" / "logs"


def sweep(experiments=(), profile="paper", folder=None, *, seeds=None, shard=None, workers=None, data_dir=None, device="auto",
          precision="auto", fuse=False, time_limit=None, save=None, unfolded=False, stop=None):
    """Trains the runs of experiments that the results lack, with several workers at once if that is asked for.

    It prints a line for each run of a worker, and at the end what the runs took. The output of a worker goes to its log in
    `build/logs`. If a worker dies, the others go on.

    Args:
        experiments: names of `study.EXPERIMENTS`; all if there is none.
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.
        seeds: a list of seeds in place of the profile's.
        shard: text such as "1/4": only the first of four parts of the runs, as equal as possible.
        workers: the number of processes; by default one for each visible GPU, or one on a CPU.
        data_dir, device, precision, fuse: as for `lc.train`.
        time_limit: of each worker, in minutes, as for `study.train_missing`.
        save, unfolded: as for `study.train_missing`.
        stop: a function that is called twice a second. If it returns True, the workers are told to stop, and waited for.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: before any training, as `study.train_missing`, or if there is not at least one worker or the shard is bad.
        TrainingError: at the end, naming each run that failed, or each worker that died or whose runs failed, and its log.
    """
    began = time.monotonic()
    check.number("the time limit in minutes", time_limit or 0, 0, math.inf)
    if save:
        networks.check_folder(save)
    runs = part(study.everything(profile, experiments, seeds), shard)
    _, missing = study.found_and_missing(runs, folder)
    environments = worker_environments(device, workers)[:len(missing)]
    if len(environments) < 2:
        trained = study.train_missing(missing, folder, data_dir=data_dir, device=device, precision=precision, fuse=fuse,
                                      time_limit=time_limit, save=save, unfolded=unfolded, stop=stop)
    else:
        resolve_precision(precision, torch.device("cpu"))  # checks the name and takes no memory of a GPU
        missing = study.available(missing, data_dir)
        command = [sys.executable, "-m", "lc", "sweep", *experiments, *["--fuse"] * fuse, *["--unfolded"] * unfolded]
        for option, value in {"profile": profile, "shard": shard, "workers": 1, "device": resolve_device(device).type,
                              "precision": precision, "data-dir": data_dir, "results": folder, "time-limit": time_limit,
                              "save": save}.items():
            command += [] if value is None else [f"--{option}", str(value)]
        command += ["--seeds", *map(str, seeds)] if seeds else []
        trained = _train_with(command, environments, missing, folder, stop)
    table, missing = study.found_and_missing(runs, folder)
    mine = table[table["id"].isin(trained)]
    setup, training = mine["setup_seconds"].sum(), (mine["epochs"] * mine["train_images"] / mine["images_per_second"]).sum()
    spent = f": set-up {setup:.0f} s, training {training:.0f} s, evaluation {mine['seconds'].sum() - setup - training:.0f} s"
    print(f"trained {len(trained)} runs in {timedelta(seconds=round(time.monotonic() - began))}{spent if trained else ''}; "
          f"{len(missing)} of {len(runs)} are still missing")
    return trained


def part(runs, shard):
    """The runs of a shard "I/N": every N-th run from the I-th on; all if it is None. Raises ValueError if it is another text."""
    if shard is None:
        return runs
    parsed = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", str(shard))
    if not parsed or int(parsed[1]) > int(parsed[2]):
        raise ValueError(f"a shard is I/N with I from 1 to N, such as 1/4, not {shard!r}")
    return runs[int(parsed[1]) - 1::int(parsed[2])]


def worker_environments(device="auto", workers=None):
    """The environment variables of each worker: its GPU, dealt in turn, or its share of the CPU's threads.

    The GPUs in $CUDA_VISIBLE_DEVICES are dealt in their order. A device such as "cuda:1" is the GPU of all workers. Raises
    ValueError if the device is bad, or there is not at least one worker.
    """
    if workers is not None:
        check.integer("workers", workers)
    device = resolve_device(device)
    if device.type == "cpu":
        workers = workers or 1
        return [{"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}] * workers
    count, listed = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [gpu.strip() for gpu in listed.split(",")][:count] if listed else [str(i) for i in range(count)]
    if device.index is not None:
        gpus = [gpus[device.index]]
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers or len(gpus))]


def _train_with(command, environments, runs, folder, stop):
    """Runs the command in all environments at once. Returns the ids of those of `runs` that were trained."""
    LOGS.mkdir(parents=True, exist_ok=True)
    logs = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=LOGS))
    print(f"{len(runs)} runs, {len(environments)} workers; their logs: {logs}", flush=True)
    workers, gpus = {}, {environment.get("CUDA_VISIBLE_DEVICES") for environment in environments} - {None}
    with multi_process_service(0 < len(gpus) < len(environments)) as shared:
        try:
            for i, environment in enumerate(environments, 1):
                log = logs / f"worker-{i}.log"
                workers[log] = _start(command, environment | shared, log)
            trained = _wait(workers.values(), runs, folder, stop)
        finally:  # after an error, too, no worker is left behind
            for worker in workers.values():
                worker.terminate()
                worker.wait()
    failed = [_failure(log, worker.returncode) for log, worker in workers.items() if worker.returncode]
    if failed and not (stop and stop()):
        raise TrainingError("; ".join(failed))
    return trained


def _start(command, environment, log):
    """Starts a worker with this `lc`, in a session of its own: Ctrl-C in a terminal reaches it through this process only."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | environment | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with open(log, "w", encoding="utf-8") as f:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, start_new_session=True, env=environment)


def _failure(log, status):
    """How a worker failed: by which signal, or the last line of its log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"failed ({lines[-1] if lines else status})"
    return f"{log.stem} {how}; log: {log}"


def _wait(workers, runs, folder, stop):
    """Waits for the workers, and tells them to stop if `stop` says so. Returns the ids of `runs` that were trained meanwhile."""
    waiting, trained, stopping, working = {run.id for run in runs}, [], False, True
    with tqdm(total=len(runs), unit="run", smoothing=0, leave=False, disable=None) as bar:
        while working:
            time.sleep(0.5)
            if not stopping and stop is not None and stop():
                stopping = True
                for worker in workers:
                    worker.send_signal(signal.SIGUSR1)  # a scheduler may have sent SIGTERM, and a second one would kill
            working = any(worker.poll() is None for worker in workers)  # before the rows are read, so that none is missed
            rows = results.load_rows(folder)
            for run_id in sorted(waiting & rows.keys()):
                tqdm.write(f"{run_id}: {rows[run_id]['accuracy']:.2f} %, {rows[run_id]['seconds']:.0f} s")
                trained.append(run_id)
                bar.update()
            waiting -= rows.keys()
            bar.refresh()
    return trained
