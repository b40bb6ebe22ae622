"""The repository as a whole: its environments agree, its notebooks keep their rules, its README and results are true."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import yaml

import lc
from lc import filters, results
from lc.utils.files import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_environment_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    conda = [entry.replace("pytorch>", "torch>") for entry in environment if isinstance(entry, str)]
    assert f"python{PROJECT['requires-python']}" in conda and "--editable ." in pip
    listed = {*conda, *pip} - {f"python{PROJECT['requires-python']}", "pip", "--editable ."}
    assert listed == {*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]}


def test_constraints_pin_every_dependency():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    pins = {name.lower().replace("_", "-") for name in pins}
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    assert {re.split("[><=]", name)[0].lower() for name in needed} <= pins


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_their_rules(path):
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3" and "papermill" not in notebook["metadata"]
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells[0]["metadata"]["tags"] == ["parameters"]
    declared = "".join(cells[0]["source"])
    assert "no effect" not in declared and any("check_parameters(" in "".join(cell["source"]) for cell in cells[:2])
    if not path.name.startswith(("00", "17")):  # these two read no results
        for parameter in ('profile: str = "paper"', "train: bool = False", 'data_dir: str = ""', 'device: str = "auto"'):
            assert parameter + "  # " in declared
    for cell in cells:
        assert cell["execution_count"] and not "".join(cell["source"]).rstrip().endswith(";")
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("name") != "stderr"
            text = json.dumps(output.get("text", [])) + json.dumps(output.get("data", {}).get("text/plain", []))
            assert not re.search(r"0x[0-9a-f]{6,}|/(home|tmp|root|Users)/", text)


def test_the_repository_has_no_links_and_the_dockerfile_copies_what_is_there():
    """Git on Windows does not make symbolic links by default."""
    files = subprocess.run(["git", "ls-files", "--stage"], check=True, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert files and not [line for line in files if line.startswith("120000")]
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    copied = {name for _, *names, _ in lines for name in names}
    assert copied == {"pyproject.toml", "README.md", "lc", "results", "notebooks"} and all((ROOT / name).exists() for name in copied)


def test_results_are_whole():
    for run_id, row in results.load_rows(ROOT / "results").items():
        first = torch.from_numpy(results.load_arrays(run_id, ROOT / "results")["first"])
        if len(first) < filters.SHOWN:  # all of them
            assert np.isclose(lc.variance_entropy(first), row["fve_first"], rtol=1e-3), run_id
        assert results.arrays_path(run_id, ROOT / "results").stat().st_size < 30_000, run_id
        assert row["git"] and row["device"] and 0 <= row["robust_accuracy"] <= row["accuracy"] <= 100


def test_the_readmes_code_runs(capsys):
    code, = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope = {}
    exec(code, scope)
    assert len(capsys.readouterr().out.split(",")) == 17
    x = scope["torch"].randn(2, 3, 64, 64)
    scope["torch"].testing.assert_close(scope["deployed"].eval()(x), scope["model"].eval()(x), rtol=1e-3, atol=1e-4)


def test_the_readme_and_the_docs_link_to_what_is_there():
    guides = [page for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"]  # the site's start page lies above
    for page in (ROOT / "README.md", *guides):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
    for path in NOTEBOOKS:
        assert f"(notebooks/{path.name})" in (ROOT / "README.md").read_text()


def test_the_numbers_of_the_readme_and_the_guides_are_those_of_the_results():
    numbers = runpy.run_path(ROOT / "docs" / "fill_numbers.py")
    for page in numbers["PAGES"]:
        assert numbers["filled"](page.read_text()) == page.read_text()  # if not: make notebooks


def test_importing_lc_loads_pytorch_only_when_it_is_used():
    code = "import sys, lc; assert 'torch' not in sys.modules; lc.LCBlock, lc.train; import lc.study; assert callable(lc.train)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    import lc
    assert all(hasattr(lc, name) for name in lc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lc.nothing


def test_training_needs_no_notebook_software(tmp_path):
    """A GPU server has PyTorch, NumPy, SciPy, pandas and tqdm; what draws and executes notebooks may be elsewhere."""
    absent = ["papermill", "nbconvert", "nbformat", "matplotlib", "jupyterlab", "pynvml"]
    code = (f"import sys; sys.modules.update(dict.fromkeys({absent})); from lc.__main__ import main; "
            "main('train ResNet-8-8 --dataset digits --profile smoke --device cpu --results'.split() + [sys.argv[1]]); "
            "main('sweep table1 --profile smoke --time-limit 0 --device cpu --results'.split() + [sys.argv[1]]); "
            "main('status --profile smoke --device cpu --results'.split() + [sys.argv[1]])")
    said = subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    assert "accuracy" in said and "3 of 3 are still missing" in said and "estimated from rows of this device" in said


def test_the_readme_takes_five_minutes():
    text = re.sub("<!--.*?-->", "", (ROOT / "README.md").read_text())
    assert len(text.split()) <= 800


def test_make_works_in_a_folder_with_a_space_in_its_name(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    for target in ("notebooks", "reproduce", "site"):
        command = ["make", "--no-print-directory", "--dry-run", "--old-file", ".venv/installed", target]
        said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
        words = {word for word in shlex.split(said) if "folder" in word}
        assert words == {f"LC_FIGURES_DIR={folder}/figures"} or all(
            word.startswith(f"file://{tmp_path}/a%20folder/build/") for word in words)


@pytest.mark.slow
def test_the_readmes_commands_change_no_committed_file(tmp_path):
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("LC_RESULTS_DIR", "LC_FIGURES_DIR")}
    environment["PYTHONPATH"] = str(clone)
    python, make = [sys.executable, "-m"], ["make", "-o", ".venv/installed", f"BIN={Path(sys.executable).parent}"]
    said = {}
    for command in ([*make, "reproduce", "NOTEBOOKS=03"], [*make, "test", "TESTS=tests/utils/test_device.py notebooks/05_width.ipynb"],
                    [*make, "site"], [*python, "lc", "status"],
                    [*python, "papermill", "notebooks/03_expansion.ipynb", tmp_path / "out.ipynb", "-p", "train", "True",
                     "-p", "profile", "smoke", "-p", "expansions", "[1]"],
                    [*python, "lc", "sweep", "figure4", "--profile", "smoke", "--seeds", "1"]):
        done = subprocess.run(list(map(str, command)), cwd=clone, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        said[str(command[-1])] = done.stdout
        status = subprocess.run(["git", "status", "--porcelain"], check=True, cwd=clone, capture_output=True, text=True)
        assert status.stdout == "", command
    assert (clone / "build" / "results" / "runs.csv").exists()
    assert (clone / "build" / "figures" / "figure_4.png").exists()
    for last in (said["NOTEBOOKS=03"].splitlines()[-1], said["site"].splitlines()[-1]):
        path = Path(unquote(last.removeprefix("file://")))
        assert last.startswith("file:///") and path.is_relative_to(clone / "build") and path.exists()
    assert re.search(r"notebook +state +seconds +error\n(training.*\n)?03_expansion +done", said["NOTEBOOKS=03"])
    assert "ERROR" not in said["NOTEBOOKS=03"]
