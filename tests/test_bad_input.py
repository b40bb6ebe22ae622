"""Bad input at every entry point: a named exception of one line, before anything is trained or written; no code is run."""

import inspect
import io
import math
import os
import pickle
import subprocess
import sys
import tarfile
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from bad_input import COMMANDS, LIBRARY, SHELL, USAGE
from helpers import append_many, edited, put, result
from torch import nn

import lc
from lc import benchmark, results, study
from lc.__main__ import main
from lc.sweep import status
from lc.training import Trainer
from lc.utils.checkpoint import CheckpointError
from lc.utils.files import ROOT, save_npz


class Payload:
    """Unpickled anywhere, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Given:
    """Makes the bad files of a folder, and knows whether anything else has appeared in it or changed."""

    def __init__(self, root, layout):
        self.root, self.other, self.layout, self.before = root, root / "other", layout, {}

    def file(self, name, content):
        """A file with this content; a folder for None."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
        self.before = self.there()
        return path

    def data(self, content="arrays", **changes):
        """A folder with a data set called `mine`."""
        if content != "arrays":
            return self.file("mine.npz", content).parent
        np.savez(self.root / "mine.npz", **self.layout() | changes)
        self.before = self.there()
        return self.root

    def rows(self, content="rows", edit=None):
        """A store of two runs, whose CSV has this content or is edited as a list of lists."""
        append_many(self.root / "store", range(2))
        if edit:
            edited(self.root / "store", edit)
        return self.file("store/runs.csv", (self.root / "store/runs.csv").read_bytes() if content == "rows" else content).parent

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
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file() and path.suffix != ".lock"}

    def unchanged(self):
        return self.there() == self.before


@pytest.fixture
def given(tmp_path, layout, monkeypatch):
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("LC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("a network was trained"))
    monkeypatch.chdir(tmp_path)
    return Given(tmp_path, layout)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """What the calls of the table are wrong about: a network, images, a run, and files that could be read."""
    root = tmp_path_factory.mktemp("good")
    append_many(root, range(2))
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (n, 8, 8), dtype=np.uint8) for name, n in (("x_train", 12), ("x_test", 6))}
    save_npz(root / "mine.npz", **images, y_train=np.arange(12) % 2, y_test=np.arange(6) % 2, classes=np.array(["a", "b"]))
    run = lc.Run("ResNet-8-8", "digits", True, 0, "smoke")
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return dict(lc=lc, nn=nn, np=np, torch=torch, results=results, study=study, status=status, benchmark=benchmark, put=put,
                result=result, nan=math.nan, inf=math.inf, network=network, images=torch.rand(6, 3, 8, 8),
                labels=torch.zeros(6, dtype=torch.int64), run=run,
                resume=lambda checkpoint: lc.train(run, device="cpu", checkpoint=checkpoint),
                text=(root / "runs.csv").read_bytes(), whole=(root / "mine.npz").read_bytes())


def test_what_the_calls_are_wrong_about_is_right_otherwise(good, given):
    lc.convert(lc.build_model("ResNet-8-8"), 1)
    assert 0 <= lc.fgsm_accuracy(good["network"], good["images"], good["labels"]) <= 100
    assert len(lc.load_data("mine", given.data(good["whole"])).x_train) == 12
    assert len(results.load_table(given.rows(good["text"]))) == 2 and given.unchanged()
    with pytest.raises(pytest.fail.Exception, match="a network was trained"):
        lc.train(good["run"], device="cpu")


@pytest.mark.parametrize("error, call, word", [
    pytest.param(error, call, word, id=call) for error, cases in LIBRARY.items() for call, word in cases.items()])
def test_the_library_names_what_is_wrong(error, call, word, good, given):
    helpers = {name: getattr(given, name) for name in ("root", "other", "file", "data", "rows", "arrays", "saved")}
    with pytest.raises(Exception) as raised:
        eval(call, good | helpers)
    text = str(raised.value)
    assert type(raised.value) is error, raised.value
    assert word in text and "\n" not in text and given.unchanged()


def on_the_command_line(given):
    given.file("junk/runs.csv", bytes(range(32)) * 9)
    given.file("data/page.npz", b"<!DOCTYPE html>")
    given.file("file", b"a file")


@pytest.mark.parametrize("line, word", COMMANDS.items(), ids=COMMANDS)
def test_the_command_line_answers_in_one_line(line, word, given):
    on_the_command_line(given)
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    text = stopped.value.code
    assert text.startswith("lc: ") and word in text and "\n" not in text and given.unchanged()


@pytest.mark.parametrize("line, word", USAGE.items(), ids=USAGE)
def test_the_command_line_says_how_it_is_used(line, word, given, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    usage, *_, last = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and usage.startswith("usage: python -m lc") and word in last and given.unchanged()


def test_a_shell_sees_no_traceback(given):
    on_the_command_line(given)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    processes = [subprocess.Popen([sys.executable, "-m", "lc", *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, env=os.environ | {"PYTHONPATH": path}) for line in SHELL]
    for line, process in zip(SHELL, processes):
        out, err = process.communicate()
        *usage, last = err.splitlines()
        assert (COMMANDS | USAGE)[line] in last and not out and "Traceback" not in err
        assert process.returncode == 2 if line in USAGE else (process.returncode == 1 and not usage)
    assert given.unchanged()


def test_pickled_code_is_never_run(given, good):
    ran = given.root / "ran"
    pickle.loads(pickle.dumps(Payload(ran)))
    assert ran.is_dir()
    ran.rmdir()
    code = np.array([Payload(ran), 1], dtype=object)
    np.save(given.root / "code.npy", code)
    bare = (given.root / "code.npy").read_bytes()
    readers = [
        (lc.DataError, lambda: lc.load_data("mine", given.data(classes=code))),
        (lc.DataError, lambda: lc.load_data("mine", given.data(bare))),
        (lc.DataError, lambda: lc.load_data("mine", given.data(pickle.dumps(Payload(ran))))),
        (lc.ResultsError, lambda: results.load_arrays(given.arrays(bare), given.root / "store")),
        (lc.ResultsError, lambda: results.load_arrays(given.arrays(pickle.dumps(Payload(ran))), given.root / "store")),
        (CheckpointError, lambda: good["resume"](given.saved(Payload(ran)))),
        (CheckpointError, lambda: good["resume"](given.file("run.pt", pickle.dumps(Payload(ran), 2)))),
    ]
    for error, read in readers:
        with pytest.raises(error) as raised:
            read()
        assert "\n" not in str(raised.value) and not ran.exists()


@pytest.mark.parametrize("known", [True, False], ids=["right checksum", "wrong checksum"])
@pytest.mark.parametrize("member", ["../outside", "/outside", "link/outside"])
def test_an_archive_cannot_write_outside_of_its_folder(member, known, given, monkeypatch):
    """Neither one that is not what torchvision expects, which is not even opened, nor one that is."""
    if known and "filter" not in inspect.getsource(torchvision.datasets.utils._extract_tar):
        pytest.skip("this torchvision trusts an archive of the right checksum")  # 0.26, for PyTorch 2.11
    downloads = given.root / "data" / "downloads"
    downloads.mkdir(parents=True)
    archive = downloads / torchvision.datasets.CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        if member.startswith("link"):
            tar.addfile(link)
        entry = tarfile.TarInfo(str(given.root) + member if member == "/outside" else member)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"code"))
    if known:
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", torchvision.datasets.utils.calculate_md5(archive))

    def no_network(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(lc.DataError, match="could not be downloaded" if known else "no network") as raised:
        lc.load_data("cifar10")
    assert "\n" not in str(raised.value)
    assert all(downloads in path.parents for path in given.root.rglob("outside"))
