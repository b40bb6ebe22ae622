"""What a file is after it was replaced, and where files lie: in the project, or where one says."""

import errno
import os
import stat
import sys
import types
from contextlib import suppress

import matplotlib.pyplot as plt
import pytest
from helpers import append_many, result

import lc
from lc import plots, results
from lc.benchmark import table
from lc.utils.checkpoint import Checkpoint
from lc.utils.files import replacing


def write(path, content=b"new"):
    with replacing(path) as f:
        f.write(content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_replaced_file_keeps_its_mode_group_and_attributes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    with suppress(OSError):  # not on all file systems
        os.setxattr(path, "user.note", b"kept")
    attributes = os.listxattr(path)
    os.utime(path, (0, 0))
    before = path.stat()
    write(path)
    there = path.stat()
    assert path.read_bytes() == b"new" and there.st_mtime > before.st_mtime
    for name in ("st_mode", "st_uid", "st_gid"):
        assert getattr(there, name) == getattr(before, name)
    assert os.listxattr(path) == attributes


def test_a_link_stays_a_link_and_its_file_is_replaced_but_not_what_a_kill_left(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("file", "elsewhere"):
        (tmp_path / "disk" / name).write_bytes(b"old")
    (tmp_path / "disk" / "file.partial").symlink_to("elsewhere")
    (tmp_path / "link").symlink_to("disk/file")
    (tmp_path / "dangling").symlink_to("disk/none")
    for name, target in (("link", "file"), ("dangling", "none")):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "disk" / target).read_bytes() == b"new"
    assert names(tmp_path) == ["dangling", "disk", "link"]
    assert names(tmp_path / "disk") == ["elsewhere", "file", "none"]
    assert (tmp_path / "disk" / "elsewhere").read_bytes() == b"old"


def test_what_must_not_be_replaced_is_refused(tmp_path):
    for name in ("read-only", "one name"):
        (tmp_path / name).write_bytes(b"old")
    (tmp_path / "read-only").chmod(0o444)
    (tmp_path / "other name").hardlink_to(tmp_path / "one name")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, number in (("read-only", errno.EACCES), ("one name", errno.EMLINK),
                         ("folder", errno.EISDIR), ("pipe", errno.EINVAL)):
        with pytest.raises(OSError) as error:
            write(tmp_path / name)
        assert error.value.errno == number and name in str(error.value)
    assert "pipe.partial" not in names(tmp_path)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert (tmp_path / "read-only").read_bytes() == (tmp_path / "one name").read_bytes() == b"old"
    with pytest.raises(OSError, match="no regular file"):
        write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_read_only_rows_or_arrays_are_said_before_any_training(tmp_path):
    append_many(tmp_path, range(1))
    for path in (tmp_path / "runs.csv", results.arrays_path(result().id, tmp_path)):
        before = path.read_bytes()
        path.chmod(0o444)
        for use in (lambda: results.append(result(accuracy=1.0), tmp_path),
                    results.claim(result().id, tmp_path).__enter__):
            with pytest.raises(lc.ResultsError, match=f"{path} cannot be written: Permission"):
                use()
        assert path.read_bytes() == before
        path.chmod(0o644)


@pytest.mark.parametrize("name, theirs", [("runs.csv.lock", True), (".claims", False)])
def test_a_lock_that_cannot_be_opened_is_named(name, theirs, tmp_path, monkeypatch):
    append_many(tmp_path, range(1))
    opened = os.open

    def refuse(path, flags, *others, **more):
        if name in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *others, **more)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + theirs)
    with pytest.raises(lc.ResultsError, match=rf"{name}\S* cannot be written: Permission") as error:
        with results.claim(result().id, tmp_path):
            results.append(result(1), tmp_path)
    assert ("umask 002" in str(error.value)) == theirs


def test_one_rule_for_the_home_folder_in_all_paths(tmp_path, monkeypatch, layout):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    append_many("~/rows", range(1))
    monkeypatch.setenv("LC_RESULTS_DIR", "~/rows")
    assert len(results.load_rows()) == len(results.load_rows("~/rows")) == 1
    assert results.merge("~/rows", "~/other")[0] == [result().id]
    table.save([dict.fromkeys(table.COLUMNS, "ResNet-20-16")])
    network = lc.build_model("ResNet-LC-8-8x2", in_channels=1)
    trained = result(network=network, classes=tuple("0123456789"), mean=(0.5,), std=(0.5,))
    lc.save_network(trained, "~/n.st")
    assert lc.load_network("~/n.st").row["seed"] == 0
    Checkpoint("~/c.pt", "x").save({})
    monkeypatch.setenv("LC_FIGURES_DIR", "~/figures")
    plots.save(plt.figure(), "f")
    plt.close()
    assert names(tmp_path) == ["c.pt", "figures", "n.st", "other", "rows"]
    assert {"runs.csv", "speed.csv"} <= {*names(tmp_path / "rows")}
    assert "f.pdf" in names(tmp_path / "figures")


def test_without_a_home_folder_the_digits_are_there_and_the_rest_says_what_to_set(monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "LC_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pwd", types.SimpleNamespace(getpwuid=lambda uid: {}[uid]))
    assert len(lc.load_data("digits").classes) == 10
    for use in (lambda: lc.load_data("cifar10"), lambda: lc.load_data("mine", "~/data")):
        with pytest.raises(lc.DataError, match="set LC_DATA_DIR"):
            use()
    with pytest.raises(ValueError, match="~/results: the home folder is not known"):
        results.load_rows("~/results")


def test_a_figure_that_cannot_be_kept_is_drawn(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LC_FIGURES_DIR", str(tmp_path / "file" / "figures"))
    plots.save(plt.figure(), "figure_4")
    plt.close()
    said = capsys.readouterr().out
    assert "figure_4 is drawn and not kept" in said and "LC_FIGURES_DIR" in said
    assert said.count("\n") == 1
