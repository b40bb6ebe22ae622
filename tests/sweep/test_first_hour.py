"""What a GPU day begins with runs where little is installed."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lc import results
from lc.utils.files import ROOT

pytestmark = pytest.mark.slow
NEEDED = ("torch", "torchvision", "timm", "pandas", "scipy", "scikit-learn", "matplotlib",
          "filelock", "tqdm", "safetensors")
BLOCK = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {names!r}:
            return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


def required(names):
    """The names of installed distributions, with all that they require."""
    found, left = set(), [*names]
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            try:
                requires = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:  # of another platform
                continue
            found.add(name)
            left += [needed.name for needed in map(Requirement, requires)
                     if not needed.marker or needed.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def only(tmp_path):
    """Makes an environment in which Python can import `lc` and some packages alone."""
    def environment(*names):
        allowed = required(names) | {"lc-companion"}
        blocked = {module for module, owners in importlib.metadata.packages_distributions().items()
                   if not allowed & set(map(canonicalize_name, owners))}
        assert {"papermill", "nbformat", "nbconvert", "IPython", "seaborn"} <= blocked
        path = tmp_path / "path"
        path.mkdir()
        (path / "sitecustomize.py").write_text(BLOCK.format(names=blocked))
        return os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "PYTHON": sys.executable,
                             "LC_DATA_DIR": str(tmp_path), "LC_GIT": "0123456789"}

    return environment


def run(command, environment):
    return subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True,
                          text=True)


def test_it_proves_the_machine_measures_it_and_trains_and_packs_all_it_has(only, tmp_path):
    failing = {"BENCHMARK": "--device cpu --paths graph", "OUT": str(tmp_path / "out")}
    subprocess.run(["bash", "scripts/gpu_first_hour.sh", "20", "figure4", "--profile", "smoke",
                    "--device", "cpu", "--precision", "fp32", "--shard", "1/6"],
                   env=only(*NEEDED) | failing, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    unpacked = tmp_path / "unpacked"
    with tarfile.open(tmp_path / "first-hour.tar.gz") as archive:
        archive.extractall(unpacked, filter="data")
    logs = {path.stem: path.read_text() for path in unpacked.glob("*.log")}
    assert "cpu in auto: loss" in logs["doctor"] and "WRONG" not in logs["doctor"]
    assert "unknown path 'graph'" in logs["benchmark"] and "trained 1 runs" in logs["sweep"]
    (run_id, row), = results.load_rows(unpacked / "results").items()
    assert row["git"] == "0123456789" and results.load_arrays(run_id, unpacked / "results")


def test_its_benchmark_runs_there_too_and_its_options_are_taken(only, tmp_path):
    command = [sys.executable, "-m", "lc", "benchmark", "--device", "cpu", "--seconds", "0",
               "--batch", "2", "--results", str(tmp_path), "ResNet-LC-8-4x2"]
    done = run(command, only(*NEEDED))
    assert "loop" in done.stdout and not done.stderr
    script = (ROOT / "scripts" / "gpu_first_hour.sh").read_text()
    pattern = re.search(r"s/\^(.*?)//p", script)[1]
    assert pattern in (ROOT / "lc" / "benchmark" / "steps.py").read_text()


def test_gpu_tests_are_collected_with_pytest_alone_beside_these(only):
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q",
               "-p", "no:cacheprovider"]
    said = run(command, only(*NEEDED, "pytest") | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}).stdout
    assert "test_a_step_in_a_cuda_graph_equals_an_eager_one" in said and "error" not in said
