"""What the pages to play with show: filters, and errors."""

import base64
import json
import re

import numpy as np
import pytest
from helpers import result_of

import lc
from lc import interactive, results
from lc.interactive.least_squares import errors_of
from lc.interactive.page import packed


def test_images_are_packed_on_their_own_scale_and_faint_ones_stay_faint():
    images = np.stack([np.full((2, 2), -3.0), np.full((2, 2), 1.5), np.full((2, 2), 0.03)])
    values = np.frombuffer(base64.b64decode(packed(images)), np.uint8)
    assert values.reshape(3, 4).tolist() == [[1] * 4, [255] * 4, [128 + round(127 * 0.1)] * 4]


def test_the_errors_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    target, bank = rng.normal(size=(3, 3)), rng.normal(size=(9, 3, 3))
    for n, error in enumerate(errors_of(target, bank), 1):
        basis = bank[:n].reshape(n, 9).T
        rest = basis @ np.linalg.lstsq(basis, target.ravel())[0] - target.ravel()
        assert error == pytest.approx((rest @ rest) / (target**2).sum(), abs=1e-9)
    page = interactive.least_squares({"x": target}, {3: bank})
    assert f"n=9: {0:.2f}" in repr(page) and page._repr_html_().count("<script>") == 1


def record(*runs):
    for i, (name, frozen, profile, seed) in enumerate(runs):
        first = np.full((4, 3, 3, 3), float(i + 1)) * np.arange(1, 5).reshape(4, 1, 1, 1)
        run = lc.Run(name, "cifar10", frozen, seed, profile)
        arrays = {"first": first, "last": first[:, :1].reshape(4, 3, 3)}
        results.append(result_of(run, accuracy=50.0 + i, robust_accuracy=1.0, arrays=arrays))


def test_the_slider_takes_the_networks_with_the_most_expansions(store):
    assert "No frozen LC network" in repr(interactive.filters(results.load_table()))
    record(("ResNet-8-4", False, "quick", 0), ("ResNet-LC-8-4x1", True, "quick", 0),
           ("ResNet-LC-8-4x2", True, "quick", 0), ("ResNet-LC-8-4x2", True, "quick", 1),
           ("ResNet-LC-8-4x4", False, "quick", 0), ("ResNet-20-4", False, "short", 0),
           ("ResNet-LC-20-4x1", True, "short", 0), ("ResNet-LC-8-4x8+BN", True, "quick", 0))
    page = interactive.filters(results.load_table())
    (data,) = re.findall(r"data = (\{.*\});", page.html)
    assert list(data := json.loads(data)) == ["3"] and data["3"]["network"] == "ResNet-8-4"
    shown = [(row["E"], row.get("accuracy")) for row in data["3"]["frozen"]]
    assert shown == [(0, None), (1, 51.0), (2, 52.0)]
    assert data["3"]["frozen"][1]["similarity"] == pytest.approx(1) and "52.0" in repr(page)
