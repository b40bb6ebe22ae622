"""Bad input at every entry point: a named exception of one line, before anything is trained."""

import io
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from bad_input import COMMANDS, LIBRARY, USAGE
from helpers import append_many, result
from torch import nn

import lc
from lc import benchmark, results, study
from lc.__main__ import main
from lc.sweep import status
from lc.training import Trainer
from lc.utils.checkpoint import CheckpointError
from lc.utils.files import ROOT


class Payload:
    """Unpickled anywhere, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Detached(nn.Module):
    """A network of two classes that gives its images no gradient, with a head that has weights."""

    def __init__(self, head=nn.Identity()):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head(x.flatten(1)[:, :2].detach())


class Given:
    """Makes the bad files of a folder, and knows whether anything else changed there."""

    def __init__(self, root):
        self.root, self.other, self.before = root, root / "other", {}

    def file(self, name, content):
        """A file with this content; a folder for None."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
        self.before = self.there()
        return path

    def data(self, content):
        """A folder with a data set called `mine`."""
        return self.file("mine.npz", content).parent

    def rows(self, content=None):
        """A store of two runs, whose CSV may have other content."""
        append_many(self.root / "store", range(2))
        own = (self.root / "store/runs.csv").read_bytes()
        return self.file("store/runs.csv", own if content is None else content).parent

    def arrays(self, content):
        """The id of a run whose arrays have this content."""
        self.file(f"store/filters/{result().id}.npz", content)
        return result().id

    def saved(self, value):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return self.file("run.pt", buffer.getvalue())

    def there(self):
        """All files, but for locks, with what is in them."""
        return {path: path.read_bytes() for path in self.root.rglob("*")
                if path.is_file() and path.suffix != ".lock"}

    def unchanged(self):
        return self.there() == self.before


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("LC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("a network was trained"))
    monkeypatch.chdir(tmp_path)
    return Given(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """What the calls of the table are wrong about: a network, images, a run and rows."""
    root = tmp_path_factory.mktemp("good")
    append_many(root, range(2))
    run = lc.Run("ResNet-8-8", "digits", True, 0, "smoke")
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                            nn.Flatten(), nn.Linear(4, 2))
    return dict(lc=lc, nn=nn, np=np, torch=torch, results=results, study=study, status=status,
                benchmark=benchmark, result=result, nan=math.nan, network=network, run=run,
                Detached=Detached,
                images=torch.rand(6, 3, 8, 8), labels=torch.zeros(6, dtype=torch.int64),
                resume=lambda checkpoint: lc.train(run, device="cpu", checkpoint=checkpoint),
                text=(root / "runs.csv").read_bytes())


def test_what_the_calls_are_wrong_about_is_right_otherwise(good, given):
    assert 0 <= lc.fgsm_accuracy(good["network"], good["images"], good["labels"]) <= 100
    assert len(results.load_table(given.rows(good["text"]))) == 2 and given.unchanged()
    with pytest.raises(pytest.fail.Exception, match="a network was trained"):
        lc.train(good["run"], device="cpu")


@pytest.mark.parametrize("error, call, word", [
    pytest.param(error, call, word, id=call)
    for error, cases in LIBRARY.items() for call, word in cases.items()])
def test_the_library_names_what_is_wrong(error, call, word, good, given):
    names = "root", "other", "file", "rows", "arrays", "saved"
    helpers = {name: getattr(given, name) for name in names}
    with pytest.raises(Exception) as raised:
        eval(call, good | helpers)
    text = str(raised.value)
    assert type(raised.value) is error, raised.value
    assert word in text and "\n" not in text and given.unchanged()


@pytest.mark.parametrize("line, word", COMMANDS.items(), ids=COMMANDS)
def test_the_command_line_answers_in_one_line(line, word, given):
    given.file("junk/runs.csv", bytes(range(32)) * 9)
    given.file("data/page.npz", b"<!DOCTYPE html>")
    given.file("file", b"a file")
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    text = stopped.value.code
    assert text.startswith("lc: ") and word in text and "\n" not in text and given.unchanged()


@pytest.mark.parametrize("line, word", USAGE.items(), ids=USAGE)
def test_the_command_line_says_how_it_is_used(line, word, given, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    usage, *_, last = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and usage.startswith("usage: python -m lc") and word in last
    assert given.unchanged()


def test_a_shell_sees_no_traceback(given):
    done = subprocess.run([sys.executable, "-m", "lc", "train", "VGG-16"], capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    line, = done.stderr.splitlines()
    assert line.startswith("lc: ") and "VGG-16" in line and not done.stdout
    assert done.returncode == 1 and given.unchanged()


def test_pickled_code_is_never_run(given, good, layout):
    ran = given.root / "ran"
    pickle.loads(pickle.dumps(Payload(ran)))
    assert ran.is_dir()
    ran.rmdir()
    code = np.array([Payload(ran), 1], dtype=object)
    files = [io.BytesIO(), io.BytesIO(), io.BytesIO(pickle.dumps(Payload(ran), 2))]
    np.save(files[0], code)
    np.savez(files[1], **layout() | {"classes": code})
    store = given.root / "store"
    readers = [
        (lc.DataError, lambda file: lc.load_data("mine", given.data(file))),
        (lc.ResultsError, lambda file: results.load_arrays(given.arrays(file), store)),
        (CheckpointError, lambda file: good["resume"](given.file("run.pt", file))),
        (CheckpointError, lambda file: good["resume"](given.saved(Payload(ran)))),
    ]
    for error, read in readers:
        for file in files:
            with pytest.raises(error) as raised:
                read(file.getvalue())
            assert "\n" not in str(raised.value) and not ran.exists()
