"""Trains with several workers at once: processes that share one results folder, whose claims let no run be trained twice."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import hours, results, study
from ..training import TrainingError
from ..utils import check
from ..utils.device import resolve_device, resolve_precision
from ..utils.files import ROOT
from .mps import multi_process_service

LOGS = ROOT / "build" / "logs"
STARTS = 3  # of a worker that dies
PAUSE = 5.0  # seconds before it starts again: after a fault, MPS takes no new client until the old ones have ended
SILENCE = 3600.0  # seconds without a line in its log after which a worker counts as hung; a run writes one every ten minutes
GRACE = 60.0  # seconds that a worker has to end


def sweep(experiments=(), profile="paper", folder=None, *, seeds=None, shard=None, workers=None, data_dir=None, device="auto",
          precision="auto", stop=None, **options):
    """Trains the runs of experiments that the results lack, with several workers at once if that is asked for.

    It prints about how long they take, and a line for each run of a worker. The output of a worker goes to its log in
    `build/logs`. A worker that dies or hangs is started again, at most twice.

    Args:
        experiments: names of `study.EXPERIMENTS`; all if there is none.
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.
        seeds: a list of seeds in place of the profile's.
        shard: text such as "1/4": only the first of four parts of the runs, as equal as possible.
        workers: the number of processes; by default one for each visible GPU, or one on a CPU.
        data_dir, device, precision: as for `lc.train`.
        stop: a function that is called twice a second. If it returns True, the workers are told to stop, and waited for.
        options: `fuse`, `time_limit` of each worker in minutes, `save` and `unfolded`, as for `study.train_missing`.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: before any training, as `study.train_missing`, or if there is not at least one worker or the shard is bad.
        TrainingError: at the end, naming each run that failed, or each worker that died or whose runs failed, and its log.
    """
    began = time.monotonic()
    study.check_options(**options)
    runs = part(study.everything(profile, experiments, seeds), shard)
    _, missing = study.found_and_missing(runs, folder)
    environments = worker_environments(device, workers)[:len(missing)]
    if len(environments) < 2:
        trained = study.train_missing(missing, folder, data_dir=data_dir, device=device, precision=precision, stop=stop,
                                      **options)
    else:
        resolve_precision(precision, torch.device("cpu"))  # checks the name and takes no memory of a GPU
        missing = study.available(missing, data_dir)
        where = resolve_device(device)
        command = [sys.executable, "-m", "lc", "sweep", *experiments]
        for option, value in {"profile": profile, "shard": shard, "workers": 1, "device": where.type, "precision": precision,
                              "data_dir": data_dir, "results": folder, **options}.items():
            if value is not None and value is not False:
                command += [f"--{option.replace('_', '-')}", *([] if value is True else [str(value)])]
        command += ["--seeds", *map(str, seeds)] if seeds else []
        trained = _train_with(command, environments, missing, where, folder, stop)
    _, missing = study.found_and_missing(runs, folder)
    print(f"trained {len(trained)} runs in {timedelta(seconds=round(time.monotonic() - began))}; "
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

    A device such as "cuda:1" is the GPU of all workers. Raises ValueError if the device is bad, or there is not at least one
    worker.
    """
    if workers is not None:
        check.integer("workers", workers)
    device = resolve_device(device)
    if device.type == "cpu":
        workers = workers or 1
        return [{"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}] * workers
    gpus = _gpus()
    if device.index is not None:
        gpus = [gpus[device.index]]
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers or len(gpus))]


def _gpus():
    """What stands for each visible GPU in $CUDA_VISIBLE_DEVICES: its UUID, or for a part of a GPU (MIG) what stands there now.

    Numbers would not do: MPS numbers its GPUs anew.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")  # a process sees one part of a GPU at most
    seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [listed[0].strip() if "MIG" in gpu.name else f"GPU-{gpu.uuid}" for gpu in seen]


def _train_with(command, environments, runs, device, folder, stop):
    """Runs the command in all environments at once. Returns the ids of those of `runs` that were trained."""
    LOGS.mkdir(parents=True, exist_ok=True)
    logs = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=LOGS))
    gpus = list(dict.fromkeys(environment.get("CUDA_VISIBLE_DEVICES", "") for environment in environments))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:  # this process takes no memory of a GPU
        apart.submit(hours.announce, runs, device, folder, len(gpus)).result()
    print(f"{len(environments)} workers; their logs: {logs}", flush=True)
    with multi_process_service(gpus if 1 <= len(gpus) < len(environments) and any(gpus) else []) as shared:
        starts = {logs / f"worker-{i}.log": partial(_start, command, environment | shared)
                  for i, environment in enumerate(environments, 1)}
        workers = {}
        try:
            workers |= {log: start(log) for log, start in starts.items()}
            return _wait(workers, starts, runs, folder, stop)
        finally:  # after an error, too, no worker is left behind
            for worker in workers.values():
                worker.terminate()
            for worker in workers.values():
                _end(worker)


def _start(command, environment, log):
    """Starts a worker with this `lc`, in a session of its own: Ctrl-C in a terminal reaches it through this process only."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | environment | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with open(log, "a", encoding="utf-8") as f:
        os.utime(log)  # its silence begins now
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, start_new_session=True, env=environment)


def _end(worker):
    """Waits for a worker that was told to end, and kills it if it does not. Even then, a driver may not let it go."""
    with suppress(subprocess.TimeoutExpired):
        worker.wait(GRACE)
    worker.kill()


def _failure(log, status):
    """How a worker failed: by which signal, or the last error in its log."""
    errors = re.findall(r"^(?:lc: |[\w.]+Error\b).*", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"failed ({errors[-1] if errors else status})"
    return f"{log.stem} {how}; log: {log}"


def _wait(workers, starts, runs, folder, stop):
    """Waits for the workers, and tells them to stop if `stop` says so. Starts those again that died.

    Returns:
        The ids of `runs` that were trained meanwhile.
    """
    waiting, trained, failed, started, stopping = {run.id for run in runs}, [], [], dict.fromkeys(starts, 1), False
    with tqdm(total=len(runs), unit="run", smoothing=0, leave=False, disable=None) as bar:
        while workers:
            time.sleep(0.5)
            if not stopping and stop is not None and stop():
                stopping = True
                for worker in workers.values():
                    worker.send_signal(signal.SIGUSR1)  # a scheduler may have sent SIGTERM, and a second one would kill
            for log, worker in list(workers.items()):
                status = worker.poll()
                if status is None and time.time() - log.stat().st_mtime < SILENCE:
                    continue
                if status is None:
                    tqdm.write(f"{log.stem} has written nothing for {SILENCE / 60:.0f} minutes and is killed")
                    worker.kill()
                    status = -signal.SIGKILL
                del workers[log]
                how = status and _failure(log, status)
                if how and started[log] < STARTS and not stopping and "failed (lc: " not in how:  # that is a run's failure
                    tqdm.write(f"{how}; it starts again")
                    started[log] += 1
                    time.sleep(PAUSE)
                    workers[log] = starts[log](log)
                elif how:
                    failed.append(how)
            rows = results.load_rows(folder)  # after the workers were asked, so that none of their last rows is missed
            for run_id in sorted(waiting & rows.keys()):
                tqdm.write(f"{run_id}: {rows[run_id]['accuracy']:.2f} %, {rows[run_id]['seconds']:.0f} s")
                trained.append(run_id)
                bar.update()
            waiting -= rows.keys()
            bar.refresh()
    if failed and not stopping:
        raise TrainingError("; ".join(failed))
    return trained
