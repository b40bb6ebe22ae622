"""Data sets that are unknown, cannot be had or are damaged: errors that say what to do."""

from threading import Thread
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

import lc
from lc import data
from lc.data import KNOWN, DataUnavailable, save_npz
from lc.imagenet import images as folders


def images(*shape):
    return np.zeros(shape, np.uint8)


def test_several_at_once_download_once(tmp_path, monkeypatch, layout):
    def download(name, path):
        made.append(name)
        save_npz(path, **layout())

    made = []
    monkeypatch.setattr(data, "_download", download)
    threads = [Thread(target=lc.load_data, args=("cifar10", tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["cifar10"] and (tmp_path / "cifar10.npz").exists()


def test_a_set_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(lc.DataError, match="cifar10.npz is missing.*no network.*LC_DATA_DIR"):
        lc.load_data("cifar10", tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("find, name", [
    (lc.load_data, "cifar10"), (folders.find, "digits-folder")])
def test_a_set_that_cannot_be_written_is_unavailable_so_that_a_sweep_goes_on(
        find, name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataUnavailable, match=f"{name}.* is missing, and .* cannot be written"):
        find(name, tmp_path / "file")


def test_unknown_sets_list_the_known(tmp_path):
    with pytest.raises(lc.DataError, match="unknown data set 'imagenet'") as error:
        lc.load_data("imagenet", tmp_path / "none")
    for known in (*KNOWN, "digits", str(tmp_path / "none" / "imagenet.npz")):
        assert known in str(error.value)
    assert isinstance(error.value, ValueError) and not (tmp_path / "none").exists()


@pytest.mark.parametrize("change, message", [
    (dict(y_test=None), "y_test"), (dict(classes=None), "classes"),
    (dict(x_train=np.zeros((12, 32, 32, 3), np.float32)), r"float32 \[12, 32, 32, 3\]"),
    (dict(x_test=images(6, 32, 30, 3)), r"x_test is uint8 \[6, 32, 30, 3\]"),
    (dict(x_train=images(12, 32, 32, 4)), r"x_train .*\[12, 32, 32, 4\]"),
    (dict(x_test=images(0, 32, 32, 3), y_test=np.zeros(0, int)), r"x_test .*\[0, 32, 32, 3\]"),
    (dict(x_test=images(6, 28, 28, 3)), "differ in shape"),
    (dict(y_train=np.arange(12) % 5), "y_train has labels 0 to 4, for 4 classes"),
    (dict(y_test=np.arange(6) % 4 - 1), "y_test has labels -1 to 2"),
    (dict(y_train=np.arange(11) % 4), "y_train is int64 .*12 images"),
    (dict(y_test=np.zeros(6)), "y_test is float64"),
    (dict(classes=np.array(["a", "b", "c", {}], dtype=object)), "pickle"),
    (dict(classes=np.array("abcd")), "classes"),
], ids=lambda value: " ".join(value) if isinstance(value, dict) else "")
def test_files_not_in_the_layout(tmp_path, layout, change, message):
    arrays = {name: a for name, a in (layout() | change).items() if a is not None}
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(lc.DataError, match=message) as error:
        lc.load_data("mine", tmp_path)
    assert str(tmp_path / "mine.npz") in str(error.value) and "delete" not in str(error.value)


@pytest.mark.parametrize("dtype", ["U7", "S7", int], ids=["text", "bytes", "numbers"])
def test_names_of_classes_are_text(tmp_path, layout, dtype):
    names = ["Äpfel", "b", "c", "d"] if dtype != int else ["1", "2", "3", "4"]
    classes = np.array([name.encode() for name in names] if dtype == "S7" else names).astype(dtype)
    np.savez(tmp_path / "mine.npz", **layout() | {"classes": classes})
    assert lc.load_data("mine", tmp_path).classes == tuple(names)


@pytest.mark.parametrize("name, advice, content", [
    ("mine", "x_train and x_test", b""), ("mine", "x_train and x_test", b"x_train = 1"),
    ("mine", "x_train and x_test", None), ("cifar10", "delete it", b"PK\3\4 cut off")],
    ids=["empty", "text", "folder", "truncated"])
def test_files_that_are_no_npz(tmp_path, name, advice, content):
    path = tmp_path / f"{name}.npz"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(lc.DataError, match=f"{name}.npz is damaged.*{advice}") as error:
        lc.load_data(name, tmp_path)
    assert ("delete" in str(error.value)) == (name == "cifar10")  # which lc can make again


def test_a_known_set_with_other_channels(tmp_path, layout):
    save_npz(tmp_path / "cifar10.npz", **layout(channels=(1,)))
    with pytest.raises(lc.DataError, match=r"cifar10 has 3 channels, but.*cifar10.npz have 1"):
        lc.load_data("cifar10", tmp_path)
