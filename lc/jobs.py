"""A job of a cluster: a chunk of runs with a store of its own, and how what it leaves comes into the store of all.

A job's store is `RESULTS/.jobs/<submission>/<number>/`, with `job.json`, its name and the ids of its runs, beside the rows.
It is removed when the job has ended and what it left is merged; until then its runs are under way.
"""

import json
import os
import shutil
import signal
import subprocess
import sys

from . import files, results, study
from .files import replacing
from .interrupt import stop_on_signals
from .training import TrainingError

# The states of Slurm that a job does not come back from; from PREEMPTED and NODE_FAIL it may
ENDED = {"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}


class Job:
    """What a node does: submitit pickles it, calls it there, and calls it again after a requeue.

    Args:
        runs: a chunk.
        store: the job's own.
        arguments: for `study.train_missing`.
    """

    def __init__(self, runs, store, arguments):
        self.runs, self.store, self.arguments = runs, store, arguments

    def __call__(self):
        if not self.store.exists():
            raise FileNotFoundError(f"{self.store} was taken over already; submit the sweep again")
        preemption = getattr(signal, f"SIG{submitit().JobEnvironment.USR_SIG}")
        with results.claim("job", self.store), stop_on_signals(signal.SIGTERM, signal.SIGUSR1, preemption) as stop:
            try:
                study.train_missing(self.runs, self.store, **self.arguments, stop=stop)
            except TrainingError:
                if not stop():
                    raise
        if stop() and study.rows(self.runs, self.store)[1]:
            if os.environ["SUBMITIT_EXECUTOR"] == "slurm" and _runs_on():
                signal.raise_signal(preemption)  # over to submitit, which asks Slurm to requeue the job, and exits
            sys.exit("stopped by a signal; what was done is kept")

    def checkpoint(self):
        """What submitit is to call after a requeue: the same, since all that was done is in the store."""
        return submitit().helpers.DelayedSubmission(self)


def _runs_on():
    """Whether Slurm has not ended or requeued this job by itself; a job that was cancelled would be revived by a requeue."""
    return squeue("--jobs", os.environ["SLURM_JOB_ID"], "--format=%T") == ["RUNNING"]


def record(job, name=None):
    """Write down that the runs of a job are under way; its store is there from then on."""
    with replacing(job.store / "job.json") as f:
        f.write(json.dumps({"name": name, "runs": [run.id for run in job.runs]}).encode())


def take_over(folder):
    """Merge what jobs have left that ended with nobody waiting for them, and say so. Call it under the `lock`.

    The logs of jobs that failed stay until they have been told of once.

    Returns:
        The ids of the runs that are under way in other jobs.
    """
    ids = set()
    for submission in sorted(path for path in (folder / ".jobs").glob("*") if path.is_dir()):
        stores, complaints = _stores(submission), []
        running = stores & under_way(submission)
        for store in sorted(stores - running):
            name, taken, complaint = settle(store, folder)
            complaints += filter(None, [complaint])
            print(f"took over {len(taken)} runs of job {name}", *filter(None, [complaint]), sep="; ", flush=True)
        ids.update(*(_read(store)["runs"] for store in running))
        if not running and not complaints:
            shutil.rmtree(submission)
    if ids:
        print(f"{len(ids)} runs are under way in other jobs", flush=True)
    return ids


def settle(store, folder):
    """Merge the store of a job that has ended, move its checkpoints, and remove it. Call it under the `lock`.

    Returns:
        The job's name, the ids of its rows, and a complaint if there are fewer than there should be, else "".
    """
    if not store.exists():
        return "that another sweep took over", [], ""
    job, rows = _read(store), results.read(store)
    if rows:
        results.merge(store, folder)
    lacking = [run_id for run_id in job["runs"] if run_id not in rows]
    for run_id in lacking:
        move_checkpoint(run_id, store, folder)
    shutil.rmtree(store)
    log = store.parent / "log" / f"{job['name']}_0_log.out"
    complaint = f"job {job['name']} left {len(lacking)} of {len(job['runs'])} runs untrained ({_last_line(log)}); log: {log}"
    return job["name"], list(rows), complaint if lacking else ""


def under_way(submission):
    """The stores of a submission's jobs that have not ended, or may not have."""
    stores = _stores(submission)
    if not stores:
        return stores
    if submission.name.startswith("local-"):
        return stores if _held("submission", submission) else {store for store in stores if _held("job", store)}
    try:
        lines = squeue("--array", "--states=all", f"--name={submission.name}", "--format=%i %T")
    except OSError as error:
        print(f"{submission.name} is taken to be under way: squeue does not answer ({error})", file=sys.stderr, flush=True)
        return stores
    states = dict(line.split() for line in lines)
    return {submission / number(int(name.partition("_")[2] or 0)) for name, state in states.items() if state not in ENDED}


def number(i):
    """The name of a store in its submission."""
    return f"{i:04}"


def squeue(*options):
    """The lines that Slurm answers with.

    Raises:
        OSError: if it does not, or is not there.
    """
    done = subprocess.run(["squeue", "--all", "--noheader", *options], capture_output=True, text=True)
    if done.returncode:
        raise OSError(" ".join(done.stderr.split()))
    return done.stdout.splitlines()


def move_checkpoint(run_id, source, target):
    """From one store to another, if there is one."""
    path, target = results.checkpoint_path(run_id, source), results.checkpoint_path(run_id, target)
    if path.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def lock(folder):
    """Held by a process while it submits or merges jobs; the jobs themselves lock nothing but their own store."""
    path = folder / ".jobs" / "submitting.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return files.lock(path)


def submitit():
    """The module.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError("--slurm needs submitit: pip install submitit") from None
    return submitit


def _stores(submission):
    return {path.parent for path in submission.glob("*/job.json")}


def _read(store):
    path = store / "job.json"
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise results.ResultsError(f"{path}: damaged ({error}); merge the rows in {store} and delete it") from None


def _held(name, folder):
    with results.claim(name, folder) as free:
        return not free


def _last_line(log):
    """What a job said last; what submitit and srun say of it does not count."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip() and not line.startswith(("submitit ", "srun: "))),
                "it said nothing")
