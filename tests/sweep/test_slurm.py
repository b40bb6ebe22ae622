"""scripts/sweep.sbatch, with stand-ins for Slurm's commands."""

import os
import signal
import subprocess
import time

import pytest

from lc.utils.files import ROOT


@pytest.mark.parametrize("sent, state, restarts, requeued", [
    ("USR1", "RUNNING", "0", True), ("TERM", "RUNNING", "3", True),
    ("TERM", "COMPLETING", "0", False),  # the task was cancelled, or Slurm requeues it itself
    ("USR1", "RUNNING", "20", False),
    (None, "RUNNING", "0", False),  # a run failed
])
def test_a_task_goes_back_to_the_queue_only_if_it_was_stopped_and_slurm_does_not_see_to_it(
        tmp_path, monkeypatch, sent, state, restarts, requeued):
    python = """echo "$*" >> calls
        [ "$3" = merge ] && exit
        trap "sleep 0.5; echo checkpoint >> calls; exit 1" USR1
        touch training
        """ + ("while true; do sleep 0.1; done" if sent else "exit 1")
    for name, code in {"squeue": f"echo {state}", "scontrol": 'echo "scontrol $*" >> calls',
                       "python": python}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    for name, value in {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python",
            "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4",
            "SLURM_RESTART_COUNT": restarts, "LC_RESULTS_DIR": str(tmp_path / "store")}.items():
        monkeypatch.setenv(name, value)
    store = tmp_path / "store"
    store.mkdir()
    (store / "runs.csv").touch()
    with subprocess.Popen(["bash", ROOT / "scripts" / "sweep.sbatch", "figure4", "--fuse"],
                          cwd=tmp_path) as script:
        while script.poll() is None and not (tmp_path / "training").exists():
            time.sleep(0.1)
        if sent:
            script.send_signal(signal.Signals[f"SIG{sent}"])
    shard = store / ".shards" / "shard-2"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"-m lc merge {store} --results {shard}",
        f"-m lc sweep figure4 --fuse --results {shard} --shard 2/4",
        *["checkpoint"] * bool(sent), *["scontrol requeue 7_2"] * requeued]
    assert script.returncode == 1
