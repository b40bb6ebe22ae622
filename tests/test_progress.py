"""The progress line: the time that is left where a person watches, nothing anywhere else, nothing left behind."""

import nbformat
import papermill

from lc import progress
from lc.progress import Progress
from lc.run import ROOT


def test_a_terminal_sees_the_time_that_is_left_and_then_a_clean_line(capsys, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress(4000, "1/3 some/run", show=True) as bar:
        bar.update(1000)
    text = capsys.readouterr().err
    assert "1/3 some/run:  25%" in text and "<00:30" in text
    assert text.endswith("\r\033[K")


def test_without_a_terminal_nothing_is_printed(capsys):
    with Progress(10, "run") as bar:
        bar.update(10)
    assert capsys.readouterr() == ("", "")


def test_a_stored_notebook_keeps_no_trace(tmp_path):
    code = """
from lc.progress import Progress
with Progress(10, "run") as bar:
    assert bar.show
    bar.update(10)
print("after")
"""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel)
    nbformat.write(notebook, tmp_path / "in.ipynb")
    executed = papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False, cwd=ROOT)
    assert [output["text"] for output in executed.cells[0]["outputs"]] == ["after\n"]
