"""Notebooks in batch: checks before, what a failure costs, and what is printed."""

import ast
import contextlib
import re
import subprocess
import sys
import time
from unittest import mock

import nbformat
import psutil
import pytest
from helpers import Terminal

from lc import results, study
from lc.__main__ import main
from lc.commands import literal
from lc.publish import notebooks

PARAMETERS = """\
profile: str = "paper"
train: bool = False
data_dir: str = ""
device: str = "auto"
size: float = 1.0
"""


def write(folder, name, *cells, parameters=PARAMETERS, kernel="python3"):
    cells = [nbformat.v4.new_code_cell(cell) for cell in (parameters, *cells)]
    cells[0].metadata["tags"] = ["parameters"]
    metadata = dict(kernelspec=dict(name=kernel, display_name="?", language="python"))
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def test_a_failing_notebook_stops_no_other_and_each_has_a_page_a_log_and_a_line(
        tmp_path, monkeypatch, capfd):
    sources, made = tmp_path / "notebooks", tmp_path / "out"
    for folder in (sources, made):
        folder.mkdir()
    write(sources, "1_error", "print('before')", "raise KeyError('what\\nis missing')")
    write(sources, "2_dead", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    write(sources, "3_stranger", "import sys; print(sys.executable)", "print(profile, size)",
          "get_ipython().kernel.log.error('caught in kernel')", kernel="no-such-kernel")
    (made / "2_dead.html").write_text("of last time")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", sources)
    with contextlib.redirect_stderr(Terminal()) as terminal, pytest.raises(SystemExit) as end:
        main(["notebooks", "--profile", "smoke", "-p", "size", "2", "--out", str(made)])
    out, err = capfd.readouterr()
    *lines, last = out.rstrip().splitlines()
    expected = ["1_error: KeyError: 'what", "2_dead: Kernel died", "3_stranger: done"]
    assert all(line.startswith(begin) for line, begin in zip(lines, expected, strict=True))
    assert last == f"notebooks, pages and logs: {made}"
    assert end.value.code == "lc: failed: 1_error, 2_dead"  # text: printed, and exit status 1
    assert re.search(r" 2/3 \[\d\d:\d\d<\d\d:\d\d", terminal.getvalue())  # how much is left
    assert "caught in kernel" not in err  # what kernels log is not shown

    names = "1_error", "2_dead", "3_stranger"
    assert {path.name for path in made.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("ipynb", "html", "log")}
    pages, logs = ([(made / f"{name}.{kind}").read_text() for name in names]
                   for kind in ("html", "log"))
    assert "before" in pages[0] and "of last time" not in pages[1] and "smoke 2" in pages[2]
    assert all(word in logs[0] for word in ("before", "Traceback", "raise KeyError"))
    assert "Kernel died" in logs[1] and "before" not in logs[2] and "Traceback" not in logs[2]
    assert f"{sys.executable}\n" in logs[2] and "smoke 2" in logs[2]  # not its own kernel
    for log in logs:
        assert re.match("Figures: /.* Rows: /", log.splitlines()[-1])


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two notebooks, the second with a parameter `seed`, which must not be executed."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder, "1_first")
    write(folder, "2_second", parameters=PARAMETERS + "seed: int = 0")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", folder)
    monkeypatch.setattr(notebooks.papermill, "execute_notebook",
                        lambda *_, **__: pytest.fail("something ran"))
    return folder


@pytest.mark.parametrize("arguments, message", [
    (["-p", "proflie", "quick"], "'proflie'; known: profile, train, data_dir, device, size"),
    (["-p", "seed", "3"], "1_first has no parameter 'seed'"),
    (["--out", "notebooks"], "overwritten"), (["3"], "no notebook '3'; known: 1_first, 2_second"),
])
def test_mistakes_are_answered_in_one_line_before_anything_runs(
        arguments, message, two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in two.iterdir()}
    with pytest.raises(SystemExit) as end:
        main(["notebooks", "--out", "out", *arguments])
    said = end.value.code
    assert said.startswith("lc: ") and message in said and "\n" not in said
    assert not (tmp_path / "out").exists()
    assert before == {path: path.read_bytes() for path in two.iterdir()}


def test_a_notebook_may_be_named_by_its_path(two):
    for name in (str(two / "2_second.ipynb"), "2_second.ipynb"):
        assert notebooks.chosen([name], {}) == notebooks.chosen(["2"], {})
    with pytest.raises(ValueError, match="out/2_second.ipynb is no notebook of"):
        notebooks.chosen(["out/2_second.ipynb"], {})


def test_a_value_on_the_command_line_is_a_literal_or_text():
    texts = "True", "3", "1e-2", "[1, 2]", "quick", "[1, 2", ""
    assert repr([*map(literal, texts)]) == repr([True, 3, 0.01, [1, 2], "quick", "[1, 2", ""])


def test_a_notebook_gets_the_common_parameters_that_it_has_and_trains_after_the_other(
        two, tmp_path, monkeypatch):
    write(two, "1_first", parameters="seed: int = 0")
    execute = mock.Mock(return_value={})
    monkeypatch.setattr(notebooks, "execute", execute)
    own = {"profile": "smoke", "device": "auto"}
    for options, trains, at_once in ([], {}, 2), (["--train"], {"train": True}, 1):
        main(["notebooks", "--profile", "smoke", "--out", str(tmp_path), *options])
        execute.assert_called_with(
            {two / "1_first.ipynb": {}, two / "2_second.ipynb": own | trains}, tmp_path, at_once)


def test_papermill_finds_every_parameter_with_its_type():
    for path in notebooks.NOTEBOOKS.glob("*.ipynb"):
        cell = next(cell for cell in nbformat.read(path, as_version=4).cells
                    if "parameters" in cell.metadata.get("tags", []))
        known = notebooks.papermill.inspect_notebook(path)
        assert {name: parameter["inferred_type_name"] for name, parameter in known.items()} == {
            node.target.id: node.annotation.id for node in ast.parse(cell.source).body}
        # two read no results
        assert notebooks.COMMON <= known.keys() or path.name.startswith(("00", "17"))


@pytest.fixture
def papermill(tmp_path, monkeypatch):
    """Starts papermill on notebook 03, as a user types it, with a results folder of its own."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("LC_FIGURES_DIR", str(tmp_path / "figures"))
    monkeypatch.setenv("PYTHONPATH", str(notebooks.ROOT))

    def start(*arguments):
        command = [sys.executable, "-m", "papermill", "03_expansion.ipynb",
                   str(tmp_path / "out.ipynb"), "-p", "train", "True", "-p", "profile", "smoke",
                   "-p", "device", "cpu", *arguments]
        with open(tmp_path / "log", "w") as log:
            return subprocess.Popen(command, cwd=notebooks.NOTEBOOKS, stdout=log, stderr=log)

    return start


@pytest.mark.slow
def test_under_papermill_the_log_says_which_run_is_on_and_a_cut_off_training_goes_on(
        papermill, tmp_path):
    first = papermill("-p", "expansions", "[1]")
    while not results.load_rows():
        time.sleep(0.1)
        assert first.poll() is None
    kernel = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    assert not psutil.wait_procs(kernel, timeout=60)[1]  # it ends by itself once it sees this
    figure, twins = study.figure4("smoke", expansions=[1]), study.twin("smoke")
    _, missing = study.found_and_missing(figure)
    assert 0 < len(missing) < len(figure)
    trained = len(missing), len(set(twins) - set(figure))
    assert papermill("-p", "expansions", "[1]").wait() == 0
    said = (tmp_path / "log").read_text()
    assert re.findall(r"run (\d) of (\d): \S+; the last ends at about 20", said) == [
        (str(i + 1), str(runs)) for runs in trained for i in range(runs)]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    stored = "".join(output.get("text", "") for cell in cells if "study.collect" in cell.source
                     for output in cell.outputs)
    assert re.findall(r"^(\d+) run|^(Shown)", stored, re.MULTILINE) == [
        (str(trained[0]), ""), ("", "Shown"), (str(trained[1]), ""), ("", "Shown")]


@pytest.mark.slow
@pytest.mark.parametrize("wrong, said", [
    (("-r", "seeds", "[0, 1"), "seeds must be a list"),
    (("-p", "seed", "0"), "no parameter 'seed'")])
def test_papermill_trains_nothing_with_a_wrong_parameter(wrong, said, papermill, tmp_path):
    assert papermill(*wrong).wait() != 0
    assert said in (tmp_path / "log").read_text() and not results.load_rows()


@pytest.mark.slow
def test_papermill_works_from_another_folder_with_files_of_parameters(papermill, tmp_path):
    """Nothing is written where papermill was started, nor where it executes the notebook."""
    (tmp_path / "parameters.yaml").write_text("train: true\nprofile: smoke\ndevice: cpu\n")
    (tmp_path / "server").mkdir()
    command = [sys.executable, "-m", "papermill", str(notebooks.NOTEBOOKS / "05_width.ipynb"),
               "made.ipynb", "--cwd", "server", "-f", "parameters.yaml",
               "-y", "{widths: [8], seeds: [0]}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {row["model"] for row in results.load_rows().values()} == {"ResNet-LC-8-8x1"}
    assert (tmp_path / "figures" / "figure_6a.png").exists()
    made = nbformat.read(tmp_path / "made.ipynb", as_version=4)
    assert made.metadata.papermill.exception is None and not any((tmp_path / "server").iterdir())
    assert f"\nFigures: {tmp_path / 'figures'}. Rows: {tmp_path / 'results'}.\n" in done.stderr
