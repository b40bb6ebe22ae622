"""The repository as a whole: environments, notebooks' rules, and a true README and results."""

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
from lc.__main__ import HELP, parser
from lc.utils.files import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(command, folder, **options):
    """What a command prints. It must not fail."""
    done = subprocess.run(list(map(str, command)), cwd=folder, text=True, capture_output=True,
                          **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_conda_environment_equals_pyproject_and_constraints_pin_all_of_it():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    conda = [entry.replace("pytorch>", "torch>") for entry in environment if isinstance(entry, str)]
    assert f"python{PROJECT['requires-python']}" in conda and "--editable ." in pip
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    listed = {*conda, *pip} - {f"python{PROJECT['requires-python']}", "pip", "--editable ."}
    assert listed == {*needed}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert {re.split("[><=]", name)[0].lower() for name in listed} <= pins


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_their_rules(path):
    notebook = json.loads(path.read_text())
    metadata = notebook["metadata"]
    assert metadata["kernelspec"]["name"] == "python3" and "papermill" not in metadata
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells[0]["metadata"]["tags"] == ["parameters"]
    declared = "".join(cells[0]["source"])
    first = declared + "".join(cells[1]["source"])
    assert "no effect" not in declared and "check_parameters(" in first
    if not path.name.startswith(("00", "17")):  # these two read no results
        for parameter in ('profile: str = "paper"', "train: bool = False", 'data_dir: str = ""',
                          'device: str = "auto"'):
            assert parameter + "  # " in declared
    code = "\n".join("".join(cell["source"]) for cell in cells)
    trained, judged = ([found.start() for found in re.finditer(pattern, code)] for pattern in (
        r"study\.(collect|train_if)\(", r"claims\.(box|verdicts)\("))
    assert not judged or max(trained) < min(judged)  # verdicts are of what was trained
    for cell in cells:
        assert cell["execution_count"] and not "".join(cell["source"]).rstrip().endswith(";")
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("name") != "stderr"
            text = json.dumps([output.get("text"), output.get("data", {}).get("text/plain")])
            assert not re.search(r"0x[0-9a-f]{6,}|/(home|tmp|root|Users)/", text)


def test_the_repository_has_no_links_and_the_dockerfile_copies_what_is_there():
    """Git on Windows does not make symbolic links by default."""
    files = run(["git", "ls-files", "--stage"], ROOT).splitlines()
    assert files and not [line for line in files if line.startswith("120000")]
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    copied = {name for first, *names in lines if first == "COPY" for name in names[:-1]}
    assert copied == {"pyproject.toml", "README.md", "lc", "results", "notebooks"}
    assert all((ROOT / name).exists() for name in copied)


def test_results_are_whole():
    folder = ROOT / "results"
    for run_id, row in results.load_rows(folder).items():
        first = torch.from_numpy(results.load_arrays(run_id, folder)["first"])
        if len(first) < filters.SHOWN:  # all of them
            assert np.isclose(lc.variance_entropy(first), row["fve_first"], rtol=1e-3), run_id
        assert results.arrays_path(run_id, folder).stat().st_size < 30_000, run_id
        assert row["git"] and row["device"]
        assert 0 <= row["robust_accuracy"] <= row["accuracy"] <= 100


def test_the_readmes_code_runs(capsys):
    code, = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope = {}
    exec(code, scope)
    assert len(capsys.readouterr().out.split(",")) == 17
    x = torch.randn(2, 3, 64, 64)
    deployed, model = scope["deployed"].eval(), scope["model"].eval()
    torch.testing.assert_close(deployed(x), model(x), rtol=1e-3, atol=1e-4)


def test_the_code_of_the_guide_to_your_own_network_runs(capsys):
    guide = (ROOT / "docs" / "own_network.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert "variance_entropy" in blocks[1]
    exec("".join(blocks[:3]), {})
    assert len(capsys.readouterr().out.splitlines()) == 17


def test_the_documented_commands_are_known_and_train_what_has_no_row():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join([HELP, *(page.read_text() for page in pages)])
    known = "train|sweep|notebooks|imagenet|status"
    commands = re.findall(rf"python -m lc ((?:{known})(?: [^\s`]+)*)", text)
    assert sum(each.startswith("train") for each in commands) > 2
    for each in commands:
        a = parser().parse_args(shlex.split(each))
        if a.command == "train":
            run = lc.Run(a.model, a.dataset, a.frozen, a.seed, a.profile)
            assert run.id not in results.load_rows(ROOT / "results"), run.id


def test_the_readme_and_the_docs_link_to_what_is_there():
    # the site's start page lies above
    guides = [page for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"]
    for page in (ROOT / "README.md", *guides):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), target
    readme = (ROOT / "README.md").read_text()
    assert all(f"(notebooks/{path.name})" in readme for path in NOTEBOOKS)
    assert len(re.sub("<!--.*?-->", "", readme).split()) <= 800  # five minutes


def test_the_numbers_of_the_readme_and_the_guides_are_those_of_the_results():
    numbers = runpy.run_path(ROOT / "docs" / "fill_numbers.py")
    for page in numbers["PAGES"]:
        assert numbers["filled"](page.read_text()) == page.read_text()  # if not: make notebooks


def test_make_works_in_a_folder_with_a_space_in_its_name(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    for target in ("notebooks", "reproduce", "site"):
        said = run(["make", "--no-print-directory", "--dry-run", "--old-file", ".venv/installed",
                    target], folder)
        words = {word for word in shlex.split(said) if "folder" in word}
        if target == "notebooks":
            assert words == {f"LC_FIGURES_DIR={folder}/figures"}
        else:
            assert words and all(
                word.startswith(f"file://{tmp_path}/a%20folder/build/") for word in words)


@pytest.mark.slow
def test_the_readmes_commands_change_no_committed_file(tmp_path):
    clone = tmp_path / "a clone"
    run(["git", "clone", "--quiet", ROOT, clone], tmp_path)
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("LC_RESULTS_DIR", "LC_FIGURES_DIR")}
    environment["PYTHONPATH"] = str(clone)
    python = [sys.executable, "-m"]
    make = ["make", "-o", ".venv/installed", f"BIN={Path(sys.executable).parent}"]
    said = {}
    for name, command in {
        "reproduce": [*make, "reproduce", "NOTEBOOKS=03"],
        "test": [*make, "test", "TESTS=tests/utils/test_device.py notebooks/05_width.ipynb"],
        "site": [*make, "site"],
        "status": [*python, "lc", "status"],
        "papermill": [*python, "papermill", "notebooks/03_expansion.ipynb", tmp_path / "out.ipynb",
                      "-p", "train", "True", "-p", "profile", "smoke", "-p", "expansions", "[1]"],
        "sweep": [*python, "lc", "sweep", "figure4", "--profile", "smoke", "--seeds", "1"],
    }.items():
        said[name] = run(command, clone, env=environment)
        assert run(["git", "status", "--porcelain"], clone) == "", command
    assert (clone / "build" / "results" / "runs.csv").exists()
    assert (clone / "build" / "figures" / "figure_4.png").exists()
    for name in ("reproduce", "site"):
        last = said[name].splitlines()[-1]
        path = Path(unquote(last.removeprefix("file://")))
        assert last.startswith("file:///") and path.is_relative_to(clone / "build")
        assert path.exists()
    assert "03_expansion: done" in said["reproduce"] and "ERROR" not in said["reproduce"]
