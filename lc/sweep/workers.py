"""Trains with several processes at once. The claims of a results folder share the runs out."""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import torch

from .. import hours, study
from ..run import TrainingError
from ..utils import check
from ..utils.device import resolve_device, resolve_precision
from ..utils.fresh_process import in_fresh_process


def sweep(experiments=(), profile="paper", *, seeds=None, shard=None, workers=None,
          data_dir=None, device="auto", precision="auto", stop=None, **options):
    """Trains what the results lack of experiments, with one process or several; returns the ids.

    The arguments are those of the command `lc sweep` and of `study.train_missing`, which says what
    is raised. TrainingError also names each process that died.
    """
    began = time.monotonic()
    study.check_options(**options)
    runs = part(study.everything(profile, experiments, seeds), shard)
    _, missing = study.found_and_missing(runs)
    environments = worker_environments(device, workers)[:len(missing)]
    where = resolve_device(device)
    if len(environments) < 2:
        trained = study.train_missing(missing, data_dir=data_dir, device=device,
                                      precision=precision, stop=stop, **options)
    else:
        resolve_precision(precision, torch.device("cpu"))  # checks the name without a GPU's memory
        missing = study.available(missing, data_dir)
        gpus = len({environment.get("CUDA_VISIBLE_DEVICES") for environment in environments})
        about = missing, torch.device(where.type), len(environments), gpus
        expected = in_fresh_process(hours.announce, *about, environment=environments[0])
        trained = _train_with(environments, stop, missing, expected=expected, data_dir=data_dir,
                              device=where.type, precision=precision, progress=False, **options)
    _, missing = study.found_and_missing(runs)
    print(f"trained {len(trained)} runs in {timedelta(seconds=round(time.monotonic() - began))}; "
          f"{len(missing)} of {len(runs)} are still missing")
    return trained


def part(runs, shard):
    """The runs of a shard "I/N": every N-th run from the I-th on; all if it is None."""
    if shard is None:
        return runs
    parsed = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", str(shard))
    if not parsed or int(parsed[1]) > int(parsed[2]):
        raise ValueError(f"a shard is I/N with I from 1 to N, such as 1/4, not {shard!r}")
    return runs[int(parsed[1]) - 1::int(parsed[2])]


def worker_environments(device="auto", workers=None):
    """The environment variables of each worker: its GPU, in turn, or its share of the threads.

    A device such as "cuda:1" is the GPU of all workers.
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


def _train_with(environments, stop, runs, **options):
    """Trains in a process for each environment. Returns the ids of the runs that were trained."""
    trained, failed = [], []
    with ThreadPoolExecutor(len(environments)) as pool:
        workers = [pool.submit(in_fresh_process, study.train_missing, runs, stop=stop,
                               environment=environment, **options) for environment in environments]
    for i, worker in enumerate(workers, 1):
        try:
            trained += worker.result()
        except (TrainingError, ValueError, OSError) as error:  # OSError also if it died
            failed.append(f"worker {i}: {error}; the same command continues")
    if failed:
        raise TrainingError("; ".join(failed))
    return trained
