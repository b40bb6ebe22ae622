"""How one gets the project and opens it elsewhere: its address, and a copy from a wheel."""

import os
import re
import runpy
import shutil
import subprocess
import sys

import nbformat
import pytest
from helpers import append_many

from lc.utils.files import ROOT

ADDRESS = "https://github.com/OWNER/NAME"
NUMBERS = runpy.run_path(str(ROOT / "docs" / "fill_numbers.py"))


def test_all_pages_take_the_address_from_pyproject():
    citation = NUMBERS["CITATION"].read_text()
    assert NUMBERS["cited"](citation) == citation  # if not: make notebooks
    assert f'repository-code: "{ADDRESS}"' in NUMBERS["cited"](citation, ADDRESS)
    without = NUMBERS["cited"](citation, None)
    assert NUMBERS["cited"](NUMBERS["cited"](citation, ADDRESS), None) == without
    told = {page.name: NUMBERS["filled"](page.read_text(), ADDRESS) for page in NUMBERS["PAGES"]}
    for name in ("README.md", "gpu_server.md"):
        assert f"git clone {ADDRESS} && cd NAME" in told[name]
    for name in ("README.md", "index.md"):
        assert "//colab.research.google.com/github/OWNER/NAME" in told[name]
        assert "//mybinder.org/v2/gh/OWNER/NAME" in told[name]
    elsewhere = NUMBERS["filled"]((ROOT / "README.md").read_text(), "https://example.org/NAME")
    assert "git clone https://example.org/NAME" in elsewhere and "colab" not in elsewhere
    if not NUMBERS["URLS"]:
        text = "".join(path.read_text() for path in [*NUMBERS["PAGES"], NUMBERS["CITATION"]])
        assert not re.search(r"git clone|colab|mybinder|repository-code|REPOSITORY", text)


@pytest.mark.slow
def test_the_site_has_the_buttons_of_an_address_and_none_without(tmp_path):
    pytest.importorskip("sphinx_book_theme", reason="the extra `docs` is not installed")
    (tmp_path / "docs").mkdir()
    for name in ("conf.py", "site.css"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    for urls in "", f'[project.urls]\nRepository = "{ADDRESS}"\n':
        (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "1"\n{urls}')
        options = runpy.run_path(str(tmp_path / "docs" / "conf.py"))["html_theme_options"]
        assert options.get("repository_url") == (ADDRESS if urls else None)
    (tmp_path / "pages" / "notebooks").mkdir(parents=True)
    toctree = "```{toctree}\nnotebooks/03_expansion\n```\n"
    (tmp_path / "pages" / "index.md").write_text(f"# Title\n\n{toctree}")
    shutil.copy(ROOT / "notebooks" / "03_expansion.ipynb", tmp_path / "pages" / "notebooks")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-c", "docs", "pages", "site"],
                   cwd=tmp_path, check=True, capture_output=True)
    page = (tmp_path / "site" / "notebooks" / "03_expansion.html").read_text()
    colab = "https://colab.research.google.com/github/OWNER/NAME/blob/main"
    for button in (f'href="{ADDRESS}"', f"{ADDRESS}/edit/main/notebooks/03_expansion.ipynb",
                   "https://mybinder.org/v2/gh/OWNER/NAME/main",
                   f"{colab}/notebooks/03_expansion.ipynb"):
        assert button in page
    start = (tmp_path / "site" / "index.html").read_text()
    assert f"{ADDRESS}/edit/main/docs/index.md" in start and "/edit/main/index.md" not in start


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with `lc` as `pip install FOLDER` copies it there from a wheel."""
    sources = tmp_path_factory.mktemp("copy")  # a build leaves files in its folder
    shutil.copytree(ROOT / "lc", sources / "lc", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    site = tmp_path_factory.mktemp("site-packages")
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check",
                    "install", "--no-deps", "--no-build-isolation", "--target", site, sources],
                   check=True)
    return site


@pytest.fixture
def python(installed, tmp_path):
    """Runs Python with this `lc`, in a folder without one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
    environment["PYTHONPATH"] = str(installed)

    def run(*arguments, **variables):
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, text=True,
                              env=environment | variables, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name, arguments", [
    ("17_your_own_network", ["-p", "epochs", "1", "-p", "expansions", "[1]"]),
    ("03_expansion", []), ("00_linear_combinations", [])])
def test_a_notebook_runs_where_lc_was_installed_from_a_wheel(
        name, arguments, installed, python, tmp_path):
    """The two lines for Colab: install a copy of the project, and say where its results are."""
    shutil.copytree(ROOT / "results", tmp_path / "results")
    variables = {"LC_RESULTS_DIR": "results"} if name.startswith("03") else {}
    notebook, out = ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out.ipynb"
    python("-m", "papermill", notebook, out, "-k", "python3", *arguments, **variables)
    made, stored = ([bool(cell.outputs) for cell in nbformat.read(path, as_version=4).cells
                     if cell.cell_type == "code"] for path in (out, notebook))
    assert sum(made) == sum(stored)
    said = python("-c", "import lc; print(lc.__file__)").stdout
    assert said.startswith(str(installed))


COMMANDS = """if True:
    import sys
    from lc.__main__ import main
    for line in ("status --profile smoke --device cpu", "merge rows", "notebooks 03",
                 "train ResNet-8-8 --dataset digits --profile smoke --device cpu"):
        try:
            main(line.split())
        except SystemExit as error:
            print(error)
"""
LIBRARY = """if True:
    import torch, lc, lc.utils.device, lc.utils.files
    block = lc.convert(torch.nn.Conv2d(3, 4, 3), 2)
    lc.fold(block), lc.build_model("ResNet-LC-8-4x2"), lc.load_data("digits")
    print(lc.utils.device.git_version(), lc.utils.files.figures_folder())
    from lc.__main__ import main
    main("status table1 --profile smoke --device cpu".split())
"""


@pytest.mark.slow
def test_installed_without_e_the_commands_say_what_to_do_and_the_library_works(python, tmp_path):
    append_many(tmp_path / "rows", range(1))
    before = {*tmp_path.rglob("*")}
    done = python("-c", COMMANDS)
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and not done.stderr
    for line in lines:
        assert "is no folder of the project" in line and "pip install -e ." in line
        assert ("LC_RESULTS_DIR" in line) == (line != lines[2])
    done = python("-c", LIBRARY, LC_RESULTS_DIR="rows")
    assert done.stdout.startswith("unknown rows/build/figures\n") and "table1" in done.stdout
    assert not done.stderr and {*tmp_path.rglob("*")} == before
