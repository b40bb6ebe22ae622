"""What several test files share."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A test starts from the same random numbers, and has no results folder of another one."""
    torch.manual_seed(0)
    monkeypatch.setenv("LC_RESULTS_DIR", "")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The results folder of a test, empty."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def layout():
    """Makes the arrays of a small data set in the layout that `load_data` reads."""
    rng = np.random.default_rng(0)

    def make(size=32, channels=(3,), classes=4):
        images = {f"x_{split}": rng.integers(0, 256, (n, size, size, *channels), dtype=np.uint8)
                  for split, n in (("train", 12), ("test", 6))}
        labels = {"y_train": np.arange(12) % classes, "y_test": np.arange(6)[::-1] % classes}
        return images | labels | {"classes": np.array([f"class {i}" for i in range(classes)])}

    return make


@pytest.fixture
def no_data_folder(monkeypatch, tmp_path):
    """Whatever data this machine has, a test must not see it."""
    monkeypatch.delenv("LC_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def flowers(tmp_path_factory):
    """An image folder, not to be changed: four classes, each of 8 training and 2 other images."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "flowers"
    for split, images in (("train", 8), ("val", 2)):
        for name in "abcd":
            (folder / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.JPEG")
    return folder


@pytest.fixture
def copied(flowers, tmp_path):
    """A copy of this folder that a test may change."""
    return shutil.copytree(flowers, tmp_path / "flowers")


def pytest_ignore_collect(collection_path, config):
    """`pytest -m gpu` opens only files with such tests: a GPU server may lack what others need."""
    if config.option.markexpr == "gpu" and collection_path.match("test_*.py"):
        return "mark.gpu" not in collection_path.read_text(encoding="utf-8") or None
