"""A sweep as jobs of a cluster: of Slurm, through submitit; where there is no Slurm, of this machine.

The runs that the store lacks are dealt into chunks of one shape, each a job with a store of its own (`jobs`), so that no
two nodes ever write to one file. A job that is preempted leaves the run in training as a checkpoint, is requeued and goes on
from there. What a job leaves is merged as it ends, by the process that submitted it or else by the next sweep.
"""

import os
import shlex
import shutil
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from . import jobs, results, study
from .jobs import Job, submitit
from .machine import resolve_device, resolve_precision
from .run import ROOT, results_folder
from .training import TrainingError
from .workers import environments

# What --slurm understands: the type of each value, and what stands where none is given
OPTIONS = {
    "partition": (str, None), "account": (str, None), "qos": (str, None), "constraint": (str, None),
    "time": (int, 60),  # minutes; a job that needs more is requeued
    "gpus": (int, None), "cpus": (int, None), "mem": (int, None),  # of a job; GB
    "chunk": (int, 8),  # runs a job, at most
    "jobs": (int, 256),  # at a time, at most
}
TIMEOUTS = 20  # how often a job whose time has run out is requeued
LAG = 30.0  # seconds until what one node wrote is surely seen by another: so long NFS may remember a folder


def parse(text):
    """The options of `--slurm`, such as "partition=gpu,time=60,gpus=1", as a dict with all of them.

    Raises:
        ValueError: for an unknown option, or a value that it cannot have.
    """
    options = {name: default for name, (_, default) in OPTIONS.items()}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = map(str.strip, part.partition("="))
        if name not in OPTIONS:
            raise ValueError(f"unknown option {name!r} of --slurm; known: {', '.join(OPTIONS)}")
        kind, _ = OPTIONS[name]
        if not value or kind is int and not (value.isdecimal() and int(value)):
            wanted = "a whole number of at least 1" if kind is int else "text"
            raise ValueError(f"{name} of --slurm must be {wanted}, not {value!r}")
        options[name] = kind(value)
    return options


def chunks(runs, size):
    """Deal runs into lists of at most `size`, each of one shape, so that a job captures one kind of CUDA graph."""
    shapes = {}
    for run in runs:
        a = run.architecture
        shape = run.dataset, a.depth, a.width, a.kernel_size, run.frozen, "" if a.depth else run.model
        shapes.setdefault(shape, []).append(run)
    return [same[i:i + size] for same in shapes.values() for i in range(0, len(same), size)]


def sweep(runs, options, folder=None, *, data_dir=None, device="auto", precision="auto", fuse=False, stop=None):
    """Train the runs that the store lacks, but for those under way, as jobs; wait for them, and merge what they leave.

    Args:
        options: as `parse` gives them.
        folder: the store, on a file system that all nodes share; by default $LC_RESULTS_DIR, else `results` of this project.
        stop: a function; when it says True, jobs of Slurm are left to themselves, those of this machine end.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: without submitit, for a bad device or precision, if no data set can be had, or if Slurm refuses the jobs.
        TrainingError: at the end, naming each job that left runs untrained, with its log.
    """
    submitit()
    folder, slurm = Path(folder or results_folder()).absolute(), shutil.which("srun")
    if not (slurm and device.startswith("cuda")):  # a GPU of the nodes, which this machine need not have
        resolve_device(device)
    resolve_precision(precision, resolve_device("cpu"))
    arguments = {"data_dir": data_dir and str(Path(data_dir).absolute()), "device": device, "precision": precision,
                 "fuse": fuse}
    with jobs.lock(folder):
        under_way = jobs.take_over(folder)
        _, missing = study.rows([run for run in runs if run.id not in under_way], folder)
        if not missing:
            return []
        missing = study.available(missing, data_dir)
        name = "-".join(["slurm" if slurm else "local", time.strftime("%Y%m%d-%H%M%S"), socket.gethostname(), str(os.getpid())])
        submission = folder / ".jobs" / name
        chunked = [Job(chunk, submission / jobs.number(i), arguments)
                   for i, chunk in enumerate(chunks(missing, options["chunk"]))]
        try:
            for job in chunked:
                jobs.record(job)
                for run in job.runs:
                    jobs.move_checkpoint(run.id, folder, job.store)
            submitted = (_Slurm if slurm else _Local)(submission, chunked, options, device)
        except BaseException:
            for job in chunked:
                jobs.settle(job.store, folder)
            shutil.rmtree(submission, ignore_errors=True)
            raise
    print(f"{len(missing)} runs in {len(chunked)} jobs {submitted.where}; logs: {submission / 'log'}", flush=True)
    try:
        return _wait(chunked, submitted, folder, stop)
    finally:
        submitted.close()


def take_over(runs, folder=None):
    """Merge what jobs have left that ended with nobody waiting for them, before `runs` are trained in another way.

    Raises:
        ValueError: if one of the runs is under way in a job.
    """
    folder = Path(folder or results_folder()).absolute()
    if not (folder / ".jobs").exists():
        return
    with jobs.lock(folder):
        under_way = jobs.take_over(folder) & {run.id for run in runs}
    if under_way:
        raise ValueError(f"{len(under_way)} of these runs are under way in jobs; wait for them, or train the others with --slurm")


class _Slurm:
    """Jobs as one array, which is called what the submission's folder is called."""

    where, lag = "of Slurm", LAG

    def __init__(self, submission, chunked, options, device):
        self.submission = submission
        executor = submitit().SlurmExecutor(submission / "log", TIMEOUTS, python=_python())
        cpus, mem = options["cpus"], options["mem"]
        parameters = {"job_name": submission.name, "stderr_to_stdout": True, "array_parallelism": options["jobs"],
                      "gpus_per_node": options["gpus"], "cpus_per_task": cpus, "mem": mem and f"{mem}GB",
                      "srun_args": cpus and [f"--cpus-per-task={cpus}"],  # srun does not take it from sbatch
                      **{name: options[name] for name in ("partition", "account", "qos", "constraint", "time")}}
        executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
        try:
            handles = executor.submit_array(chunked)
        except submitit().core.utils.UncompletedJobError as error:
            raise ValueError(f"Slurm refused the jobs: {' '.join(str(error).split())}") from None
        for job, handle in zip(chunked, handles):
            jobs.record(job, handle.job_id)

    def under_way(self):
        return jobs.under_way(self.submission)

    def stop(self):
        """Leave the jobs to themselves; whether there is anything to wait for then."""
        print(f"the jobs go on, and the next sweep takes over what they leave; scancel --name={self.submission.name} ends them")
        return False

    def close(self):
        pass


class _Local:
    """Jobs on this machine, one at a time on each GPU; on a CPU, one at a time."""

    where, lag = "of this machine, which has no Slurm", 0.0

    def __init__(self, submission, chunked, options, device):
        self.queue, self.running, self.free = list(chunked), {}, []
        for environment in environments(device)[:options["jobs"]]:
            executor = submitit().LocalExecutor(submission / "log", python=_python(environment))
            executor.update_parameters(timeout_min=10 ** 6, stderr_to_stdout=True)
            self.free.append(executor)
        self.held = ExitStack()
        self.held.enter_context(results.claim("submission", submission))

    def under_way(self):
        """Start the jobs that there is room for; the stores of those that have not ended."""
        for job, (handle, executor) in list(self.running.items()):
            if handle.done():
                del self.running[job]
                self.free.append(executor)
        while self.queue and self.free:
            job, executor = self.queue.pop(0), self.free.pop()
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # jobs inherit this: Ctrl-C is for this process alone
            handle = executor.submit(job)
            signal.signal(signal.SIGINT, before)
            jobs.record(job, handle.job_id)
            self.running[job] = handle, executor
        return {job.store for job in [*self.queue, *self.running]}

    def stop(self):
        """End the jobs, with what they have; whether there is anything to wait for then."""
        self.queue.clear()
        for handle, _ in self.running.values():
            if not handle.done():
                os.kill(int(handle.job_id), signal.SIGTERM)  # of submitit's process, which passes it on
        while self.under_way():
            time.sleep(0.2)
        return True

    def close(self):
        self.stop()
        self.held.close()


def _wait(chunked, submitted, folder, stop):
    """Merge what each job leaves as it ends, until all have."""
    waiting, trained, complaints, ended, began = list(chunked), [], [], {}, time.monotonic()
    stopped = False
    while waiting:
        if stop is not None and stop() and not stopped:
            stopped = True
            if not submitted.stop():
                return trained
        under_way, now = submitted.under_way(), time.monotonic()
        for job in [job for job in waiting if job.store not in under_way]:
            lacking = study.rows(job.runs, job.store)[1]
            if lacking and now - ended.setdefault(job, now) < submitted.lag:
                continue
            waiting.remove(job)
            with jobs.lock(folder):
                name, ids, complaint = jobs.settle(job.store, folder)
            trained += ids
            complaints += filter(None, [complaint])
            print(f"job {name}: {len(ids)} of {len(job.runs)} runs; {len(waiting)} of {len(chunked)} jobs to go", flush=True)
        if waiting:
            time.sleep(min(30.0, 0.5 + (time.monotonic() - began) / 20))
    if complaints and not stopped:
        raise TrainingError("; ".join(complaints))
    shutil.rmtree(chunked[0].store.parent, ignore_errors=True)
    return trained


def _python(environment=None):
    """The command that starts a job's Python, which is to find this `lc` wherever it lies."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"PYTHONPATH": path, **(environment or {})}
    return shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), sys.executable])
