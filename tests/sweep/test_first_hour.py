"""What a GPU day begins with runs where no notebook software is installed."""

import os
import pty
import re
import subprocess
import sys
import tarfile
import time
from contextlib import suppress

import pytest

from lc import results
from lc.utils.files import ROOT

pytestmark = pytest.mark.slow
ABSENT = "papermill", "nbconvert", "nbformat", "ipykernel", "jupyterlab", "seaborn", "pynvml"


@pytest.fixture
def environment(tmp_path):
    """An environment in which Python cannot import what a GPU server may lack."""
    path = tmp_path / "path"
    path.mkdir()
    absent = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))"
    (path / "sitecustomize.py").write_text(absent)
    return os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "PYTHON": sys.executable,
                         "LC_DATA_DIR": str(tmp_path), "LC_GIT": "0123456789"}


def run(command, environment):
    return subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True,
                          text=True)


def test_it_proves_the_machine_measures_it_and_trains_and_packs_all_it_has(environment, tmp_path):
    failing = {"BENCHMARK": "--device cpu --paths graph", "OUT": str(tmp_path / "out")}
    run(["bash", "scripts/gpu_first_hour.sh", "20", "figure4", "--profile", "smoke", "--device",
         "cpu", "--precision", "fp32", "--shard", "1/6"], environment | failing)
    unpacked = tmp_path / "unpacked"
    with tarfile.open(tmp_path / "first-hour.tar.gz") as archive:
        archive.extractall(unpacked, filter="data")
    logs = {path.stem: path.read_text() for path in unpacked.glob("*.log")}
    assert "cpu in auto: loss" in logs["doctor"] and "WRONG" not in logs["doctor"]
    assert "unknown path 'graph'" in logs["benchmark"] and "trained 1 runs" in logs["sweep"]
    (run_id, row), = results.load_rows(unpacked / "results").items()
    assert row["git"] == "0123456789" and results.load_arrays(run_id, unpacked / "results")


def test_ctrl_c_reaches_the_training_and_what_there_is_is_packed(tmp_path):
    python = tmp_path / "python"  # a sweep that lasts for 20 seconds
    python.write_text("""#!/bin/bash
        [ "$3" = sweep ] || exit 0
        trap 'echo stopped in time; exit 1' INT
        for i in {1..200}; do sleep 0.1; done; echo too late""")
    python.chmod(0o755)
    process, terminal = pty.fork()
    if not process:
        os.chdir(ROOT)
        os.execvpe("bash", ["bash", "scripts/gpu_first_hour.sh", "20"], os.environ | {
            "PYTHON": str(python), "OUT": str(tmp_path / "out")})
    said = b""
    with suppress(OSError):  # which is how a terminal's end shows
        while part := os.read(terminal, 1000):
            said += part
            if b"lc sweep" in part:
                time.sleep(0.5)
                os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert b"stopped in time" in said and said.count(b"lc sweep") == 1
    assert (tmp_path / "first-hour.tar.gz").exists()


def test_its_benchmark_runs_there_too_and_its_options_are_taken(environment, tmp_path):
    command = [sys.executable, "-m", "lc", "benchmark", "--device", "cpu", "--seconds", "0",
               "--batch", "2", "--results", str(tmp_path), "ResNet-LC-8-4x2"]
    done = run(command, environment)
    assert "loop" in done.stdout and not done.stderr
    script = (ROOT / "scripts" / "gpu_first_hour.sh").read_text()
    pattern = re.search(r"s/\^(.*?)//p", script)[1]
    assert pattern in (ROOT / "lc" / "benchmark" / "steps.py").read_text()


def test_gpu_tests_are_collected_with_pytest_alone_beside_these(environment):
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q",
               "-p", "no:cacheprovider"]
    said = run(command, environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}).stdout
    assert "test_a_step_in_a_cuda_graph_equals_an_eager_one" in said and "error" not in said
