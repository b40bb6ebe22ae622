"""Training on every GPU at once: a process each, all of them on one store, whose claims let no run be trained twice."""

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from . import check, results, study
from .machine import resolve_device, resolve_precision
from .mps import multi_process_service
from .run import ROOT
from .training import TrainingError

LOGS = ROOT / "build" / "logs"


def sweep(experiments=(), profile="paper", folder=None, *, workers=None, data_dir=None, device="auto", precision="auto",
          fuse=False, time_limit=None, seeds=None, stop=None):
    """Train the runs of experiments that the store lacks, by several processes at once; by this one if one is enough.

    A line is printed for each run that ends. What a worker itself prints goes to its log, in a new folder of `build/logs`;
    one that dies costs no other.

    Args:
        experiments: names of `study.EXPERIMENTS`; all if there is none.
        folder: the store; by default $LC_RESULTS_DIR, else `results` of this project.
        workers: how many processes; by default one a visible GPU, and one on a CPU. Several on one GPU run at the same time
            where NVIDIA's Multi-Process Service can be had.
        time_limit: of each worker, in minutes, as for `study.train_missing`.
        seeds: a list of seeds in place of the profile's.
        stop: a function; when it says True, the workers are told to stop, and waited for.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: as `study.train_missing`, or for less than one worker, before any training.
        TrainingError: at the end, naming each worker that died or whose runs failed, and its log.
    """
    check.number("the time limit in minutes", time_limit or 0, 0, math.inf)
    _, missing = study.rows(study.everything(profile, experiments, seeds), folder)
    differences = environments(device, workers)[:len(missing)]
    if len(differences) < 2:
        return study.train_missing(missing, folder, data_dir=data_dir, device=device, precision=precision, fuse=fuse,
                                   time_limit=time_limit, stop=stop)
    resolve_precision(precision, torch.device("cpu"))  # the name alone: this process takes no memory of a GPU
    missing = study.available(missing, data_dir)
    command = [sys.executable, "-m", "lc", "sweep", *experiments, *["--fuse"] * fuse,
               *(["--seeds", *map(str, seeds)] if seeds else [])]
    for option, value in {"profile": profile, "workers": 1, "device": resolve_device(device).type, "precision": precision,
                          "data-dir": data_dir, "results": folder, "time-limit": time_limit}.items():
        command += [] if value is None else [f"--{option}", str(value)]
    LOGS.mkdir(parents=True, exist_ok=True)
    logs = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=LOGS))
    print(f"{len(missing)} runs, {len(differences)} workers; their logs: {logs}", flush=True)
    crew, gpus = [], {difference.get("CUDA_VISIBLE_DEVICES") for difference in differences} - {None}
    with multi_process_service(0 < len(gpus) < len(differences)) as shared:
        try:
            for i, difference in enumerate(differences, 1):
                crew.append(_start(command, difference | shared, logs / f"worker-{i}.log"))
            trained = _wait(crew, missing, folder, stop)
        finally:  # whatever happened here, nobody is left behind
            for worker in crew:
                worker.process.terminate()
                worker.process.wait()
    failed = [str(worker) for worker in crew if worker.process.returncode]
    if failed and not (stop and stop()):
        raise TrainingError("; ".join(failed))
    return trained


def environments(device="auto", workers=None):
    """The environment variables that set each worker apart: its GPU, dealt in turn, or its share of the CPU's threads.

    A list in $CUDA_VISIBLE_DEVICES is dealt as it stands. A device such as "cuda:1" is the one GPU of all workers.

    Raises:
        ValueError: for a bad device, or less than one worker.
    """
    if workers is not None:
        check.whole("workers", workers)
    device = resolve_device(device)
    if device.type == "cpu":
        workers = workers or 1
        return [{"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}] * workers
    count, listed = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [gpu.strip() for gpu in listed.split(",")][:count] if listed else [str(i) for i in range(count)]
    if device.index is not None:
        gpus = [gpus[device.index]]
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers or len(gpus))]


@dataclass
class Worker:
    process: subprocess.Popen
    log: Path

    def __str__(self):
        """How it ended: by its exit status, and the last line of its log."""
        code, lines = self.process.returncode, self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed ({lines[-1] if lines else code})"
        return f"{self.log.stem} {how}; log: {self.log}"


def _start(command, difference, log):
    """A worker that finds this `lc`, in a session of its own: a terminal's Ctrl-C reaches it through this process only."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | difference | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with open(log, "w", encoding="utf-8") as f:
        return Worker(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=environment,
                                       start_new_session=True), log)


def _wait(crew, runs, folder, stop):
    """Wait for the workers; returns the ids of those of `runs` that the store has got meanwhile."""
    waiting, trained, told, busy = {run.id for run in runs}, [], False, True
    with tqdm(total=len(runs), unit="run", smoothing=0, ncols=110, leave=False, disable=None) as bar:
        while busy:
            time.sleep(0.5)
            if not told and stop is not None and stop():
                told = True
                for worker in crew:
                    worker.process.terminate()
            busy = any([worker.process.poll() is None for worker in crew])  # before the rows: none is missed
            rows = results.read(folder)
            for run_id in sorted(waiting & rows.keys()):
                tqdm.write(f"{run_id}: {rows[run_id]['accuracy']:.2f} %, {rows[run_id]['seconds']:.0f} s")
                trained.append(run_id)
                bar.update()
            waiting -= rows.keys()
            bar.refresh()
    return trained
