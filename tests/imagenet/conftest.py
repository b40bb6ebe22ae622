"""What the tests of ImageNet training share."""

import shutil

import pytest


@pytest.fixture
def copied(flowers, tmp_path):
    """A copy of the image folder that a test may change."""
    return shutil.copytree(flowers, tmp_path / "flowers")
