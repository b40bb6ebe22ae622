"""Notebooks executed by papermill: what is checked before, what a failure costs, what is said, what is trained first."""

import contextlib
import io
import os
import re
import signal
import sys
import types

import nbformat
import pytest

from lc import batch, study, workers
from lc.__main__ import main
from lc.training import Stopped, TrainingError

PARAMETERS = 'profile: str = "paper"\ntrain: bool = False\ndata_dir: str = ""\ndevice: str = "auto"\nsize: float = 1.0\n'


class Terminal(io.StringIO):
    def isatty(self):
        return True


def write(folder, name, *cells, parameters=PARAMETERS, **metadata):
    cells = [nbformat.v4.new_code_cell(cell) for cell in (parameters, *cells)]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Five notebooks, of which three fail, executed once by the command line: its folder, exit status, output, terminal."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "notebooks").mkdir()
    stranger = dict(kernelspec=dict(name="no-such-kernel", display_name="?", language="julia"), language_info=dict(name="julia"))
    write(folder / "notebooks", "1_stranger", "import sys; print(sys.executable)", "print(profile, size)", **stranger)
    write(folder / "notebooks", "2_error", "print('before')", "raise KeyError('what\\nis missing')", "print('after')")
    write(folder / "notebooks", "3_dead", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    (folder / "notebooks" / "4_torn.ipynb").write_text('{"cells": [')
    write(folder / "notebooks", "5_last", "print('good')")
    (folder / "out").mkdir()
    (folder / "out" / "3_dead-smoke.html").write_text("of last time")
    line = ["notebooks", "--profile", "smoke", "-p", "size", "2", "--out", str(folder / "out"), "--pattern", "{name}-{profile}"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(Terminal()) as terminal, pytest.raises(SystemExit) as end:
        patch.setattr(batch, "NOTEBOOKS", folder / "notebooks")
        main(line)
    return types.SimpleNamespace(out=folder / "out", end=end.value, text=out.getvalue(), terminal=terminal.getvalue())


def test_a_failing_notebook_stops_no_other_and_the_exit_status_says_so(session):
    assert session.end.code == "lc: failed: 2_error, 3_dead, 4_torn"  # text: printed, and exit status 1
    assert {path.name for path in session.out.iterdir()} == {
        f"{name}-smoke.{kind}" for name in ("1_stranger", "2_error", "3_dead", "5_last") for kind in ("ipynb", "html", "log")}
    assert "good" in (session.out / "5_last-smoke.html").read_text()
    assert "of last time" not in (session.out / "3_dead-smoke.html").read_text()


def test_the_kernel_is_this_python_whatever_the_notebook_says(session):
    stranger = nbformat.read(session.out / "1_stranger-smoke.ipynb", as_version=4)
    printed = [output.text for cell in stranger.cells for output in cell.get("outputs", [])]
    assert [text.strip() for text in printed] == [sys.executable, "smoke 2"]


def test_each_notebook_has_its_own_log_with_what_stopped_it(session):
    logs = {path.name[0]: path.read_text() for path in session.out.glob("*.log")}
    assert sys.executable in logs["1"] and "smoke 2" in logs["1"] and "before" not in logs["1"]
    assert "before" in logs["2"] and "Traceback" in logs["2"] and "raise KeyError" in logs["2"] and "good" not in logs["2"]
    assert "Kernel died" in logs["3"] and "good" in logs["5"] and "Traceback" not in logs["5"]


def test_a_table_ends_it(session):
    lines = session.text.rstrip().splitlines()[-6:]
    assert re.fullmatch(r"notebook +state +seconds +output, or error", lines[0])
    expected = [("1_stranger", "done", str(session.out / "1_stranger-smoke.ipynb")), ("2_error", "failed", "KeyError: "),
                ("3_dead", "failed", "Kernel died"), ("4_torn", "failed", "unreadable: "),
                ("5_last", "done", str(session.out / "5_last-smoke.ipynb"))]
    for line, (name, state, what) in zip(lines[1:], expected, strict=True):
        assert re.match(rf"{name} +{state} +\d+\.\d  {re.escape(what)}", line)


def test_a_terminal_sees_how_many_are_done_and_the_time_that_is_left(session):
    assert re.search(r" 0/4 \[", session.terminal) and re.search(r" 3/4 \[\d\d:\d\d<\d\d:\d\d", session.terminal)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two notebooks, the second with a parameter `seed`, which must not be executed."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder, "1_first", "study.collect(study.table1, profile)")
    write(folder, "2_second", "x = study.collect(\n    study.figure4, profile)", parameters=PARAMETERS + "seed: int = 0")
    monkeypatch.setattr(batch, "NOTEBOOKS", folder)
    monkeypatch.setattr(batch.papermill, "execute_notebook", lambda *_, **__: pytest.fail("something ran"))
    return folder


@pytest.mark.parametrize("arguments, message", [
    (["-p", "proflie", "quick"], "1_first has no parameter 'proflie'; known: profile, train, data_dir, device, size"),
    (["-p", "seed", "3"], "1_first has no parameter 'seed'; known: profile"),
    (["2", "-p", "seed", "three"], "parameter seed of 2_second must be of type int, not 'three'"),
    (["2", "-p", "seed", "true"], "parameter seed of 2_second must be of type int, not True"),
    (["-p", "train", "1"], "parameter train of 1_first must be of type bool, not 1"),
    (["--pattern", "{nmae}"], "'{nmae}' gives 1_first no name; its fields: name, profile, train, data_dir, device, size"),
    (["--pattern", "{name}-{seed}"], "'{name}-{seed}' gives 1_first no name; its fields: name"),
    (["--pattern", "{name"], "'{name' gives 1_first no name"), (["--pattern", ""], "'' gives 1_first no name in"),
    (["--pattern", "{profile}/"], "gives 1_first no name in"), (["--pattern", "../{name}"], "gives 1_first no name in"),
    (["--pattern", "/tmp/{name}"], "gives 1_first no name in"),
    (["--pattern", "{profile}"], "2_second would overwrite another notebook"),
    (["--out", "notebooks"], "1_first would overwrite another notebook"),
    (["1", "--out", "notebooks", "--pattern", "2_second"], "1_first would overwrite another notebook"),
    (["3"], "no notebook '3'; known: 1_first, 2_second"),
])
def test_mistakes_are_answered_in_one_line_before_anything_runs(arguments, message, two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in two.iterdir()}
    with pytest.raises(SystemExit) as end:
        main(["notebooks", *arguments, *(() if "--out" in arguments else ("--out", "out"))])
    assert end.value.code.startswith("lc: ") and message in end.value.code and "\n" not in end.value.code
    assert not (tmp_path / "out").exists() and before == {path: path.read_bytes() for path in two.iterdir()}


@pytest.mark.parametrize("text, value", [
    ("true", True), ("False", False), ("null", None), ("3", 3), ("1e-2", 0.01), (".5", 0.5), ("[1, 2]", [1, 2]),
    ('{"a": 1}', {"a": 1}), ("quick", "quick"), ("", ""), ('"3"', "3"), ("[1, 2", "[1, 2"), ("2024-01-01", "2024-01-01"),
])
def test_a_value_on_the_command_line_is_a_literal_or_text(text, value):
    assert batch.literal(text) == value and type(batch.literal(text)) is type(value)


@pytest.fixture
def trained(two, tmp_path, monkeypatch):
    """What the sweep before the notebooks was asked for; none is executed."""
    asked = []
    monkeypatch.setattr(workers, "sweep", lambda experiments, profile, **options: asked.append((experiments, profile, options)))
    monkeypatch.setattr(batch, "_run", lambda jobs, parameters: asked.append([job.name for job in jobs]))
    return asked


def test_what_the_notebooks_collect_is_trained_before_they_are_executed(trained, two, tmp_path):
    arguments = ["notebooks", "--train", "--profile", "smoke", "--workers", "3", "--data-dir", "d", "--out", str(tmp_path)]
    main(arguments)
    (experiments, profile, options), executed = trained
    assert (experiments, profile, executed) == (["figure4", "table1"], "smoke", ["1_first", "2_second"])
    assert (options["workers"], options["data_dir"], options["device"]) == (3, "d", "auto") and not options["stop"]()
    trained.clear()
    write(two, "1_first", "study.collect(study.everything, profile)")
    main([*arguments, "1"])
    assert trained[0][0] == list(study.EXPERIMENTS)
    trained.clear()
    write(two, "1_first", "1 + 1")
    main([*arguments, "1"])
    assert trained == [["1_first"]]
    main(["notebooks", "2", "--out", str(tmp_path)])
    assert trained == [["1_first"], ["2_second"]]


def test_a_training_that_fails_is_told_and_one_that_is_stopped_ends_it(trained, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise TrainingError("worker-1 was killed by SIGKILL; log: x")

    monkeypatch.setattr(workers, "sweep", fail)
    outcome = batch.execute(["1"], tmp_path, train=True)
    assert outcome == {"training": "worker-1 was killed by SIGKILL; log: x", "1_first": None} and trained == [["1_first"]]
    assert re.search(r"training +failed +\d+\.\d  worker-1 was killed", capsys.readouterr().out)
    monkeypatch.setattr(workers, "sweep", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        batch.execute(["1"], tmp_path, train=True)
    assert trained == [["1_first"]]


def test_the_committed_notebooks_experiments_are_found(tmp_path):
    jobs = batch._jobs(batch._chosen(()), tmp_path, "{name}", {})
    collects = {job.name[:2]: set(job.collects) for job in jobs}
    assert collects.pop("00") == set() and collects.pop("14") == {"everything", "precision"}
    assert all(len(names) == 1 for names in collects.values())
    assert set.union(*collects.values()) == {*study.EXPERIMENTS} - {"precision"}
