"""Notebooks in batch: checks before, what a failure costs, and what is printed."""

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import time
import types
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


@contextlib.contextmanager
def stderr_of_processes(path):
    """Writes the standard error of this process and of those that it starts to a file."""
    kept = os.dup(2)
    with open(path, "w") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Four notebooks, of which two fail, executed once by the command line."""
    folder = tmp_path_factory.mktemp("batch")
    sources = folder / "notebooks"
    sources.mkdir()
    write(sources, "1_stranger", "import sys; print(sys.executable)", "print(profile, size)",
          kernel="no-such-kernel")
    write(sources, "2_error", "print('before')", "raise KeyError('what\\nis missing')",
          "print('after')")
    write(sources, "3_dead", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    write(sources, "5_last", "print('good')", "get_ipython().kernel.log.error('caught in kernel')")
    (folder / "out").mkdir()
    (folder / "out" / "3_dead.html").write_text("of last time")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(Terminal()) as terminal, \
            stderr_of_processes(folder / "stderr"), pytest.raises(SystemExit) as end:
        patch.setattr(notebooks, "NOTEBOOKS", sources)
        main(["notebooks", "--profile", "smoke", "-p", "size", "2", "--out", str(folder / "out")])
    return types.SimpleNamespace(
        out=folder / "out", end=end.value, text=out.getvalue(), terminal=terminal.getvalue(),
        stderr=(folder / "stderr").read_text())


def test_a_failing_notebook_stops_no_other_and_the_exit_status_says_so(session):
    assert session.end.code == "lc: failed: 2_error, 3_dead"  # text: printed, and exit status 1
    assert {path.name for path in session.out.iterdir()} == {
        f"{name}.{kind}" for name in ("1_stranger", "2_error", "3_dead", "5_last")
        for kind in ("ipynb", "html", "log")}
    assert "good" in (session.out / "5_last.html").read_text()
    assert "of last time" not in (session.out / "3_dead.html").read_text()
    stranger = nbformat.read(session.out / "1_stranger.ipynb", as_version=4)
    printed = [output.text for cell in stranger.cells for output in cell.get("outputs", [])]
    assert [text.strip() for text in printed] == [sys.executable, "smoke 2"]  # not its own kernel


def test_each_notebook_has_its_own_log_with_what_stopped_it(session):
    logs = {path.name[0]: path.read_text() for path in session.out.glob("*.log")}
    assert "smoke 2" in logs["1"] and "before" not in logs["1"]
    assert all(word in logs["2"] for word in ("before", "Traceback", "raise KeyError"))
    assert "Kernel died" in logs["3"] and "good" in logs["5"] and "Traceback" not in logs["5"]
    for log in logs.values():
        assert re.match("Figures: /.* Rows: /", log.splitlines()[-1])


def test_a_line_for_each_says_how_it_ended_and_a_terminal_how_much_time_is_left(session):
    *lines, last = session.text.rstrip().splitlines()
    expected = ["1_stranger: done", "2_error: KeyError: 'what", "3_dead: Kernel died",
                "5_last: done"]
    assert all(line.startswith(begin) for line, begin in zip(lines, expected, strict=True))
    assert last == f"notebooks, pages and logs: {session.out}"
    assert re.search(r" 3/4 \[\d\d:\d\d<\d\d:\d\d", session.terminal)
    assert "caught in kernel" not in session.stderr  # what kernels log is not shown


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


@pytest.mark.parametrize("text, value", [
    ("True", True), ("None", None), ("3", 3), ("1e-2", 0.01), ("[1, 2]", [1, 2]),
    ("quick", "quick"), ("", ""), ("[1, 2", "[1, 2")])
def test_a_value_on_the_command_line_is_a_literal_or_text(text, value):
    assert literal(text) == value and type(literal(text)) is type(value)


def test_a_notebook_gets_only_the_common_parameters_that_it_has(two, tmp_path, monkeypatch):
    write(two, "1_first", parameters="seed: int = 0")

    def execute(path, target, own, **_):
        given[path.stem] = own

    given = {}
    monkeypatch.setattr(notebooks.papermill, "execute_notebook", execute)
    main(["notebooks", "--profile", "smoke", "--out", str(tmp_path)])
    assert given == {"1_first": {}, "2_second": {"profile": "smoke", "device": "auto"}}


@pytest.mark.parametrize("options, at_once", [([], 2), (["--train"], 1)])
def test_two_notebooks_read_at_once_but_one_trains_after_the_other(
        options, at_once, two, tmp_path, monkeypatch):
    execute = mock.Mock(return_value={})
    monkeypatch.setattr(notebooks, "execute", execute)
    main(["notebooks", "--out", str(tmp_path), *options])
    assert execute.call_args.args[2] == at_once


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
def test_papermill_trains_nothing_with_a_wrong_parameter(papermill, tmp_path):
    assert papermill("-r", "seeds", "[0, 1").wait() != 0
    assert "seeds must be a list" in (tmp_path / "log").read_text() and not results.load_rows()


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
