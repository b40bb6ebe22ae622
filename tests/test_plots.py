"""What is drawn and tabulated is what the rows say: kinds not swapped, numbers in their places."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import rows

from lc import analysis, paper, plots
from lc.paper import Published

matplotlib.use("Agg")


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


TABLE = rows(*[("ResNet-20-16", False, seed, 80.0 + seed) for seed in (0, 1)],
             *[(f"ResNet-LC-20-16x{e}", frozen, seed, 70.0 - 20 * frozen + e + seed)
               for e in (1, 8) for frozen in (False, True) for seed in (0, 1)])


def test_curves_are_the_means_in_their_colours(axes):
    plots.against(axes, analysis.summary(TABLE, "accuracy"), "expansion", "accuracy", "%")
    curves = {container.get_label(): container.lines[0] for container in axes.containers}
    assert set(curves) == {"Frozen random", "Learnable"}
    for label, color, first in (("Frozen random", plots.FROZEN, 51.5), ("Learnable", plots.LEARNABLE, 71.5)):
        assert curves[label].get_color() == color
        assert list(curves[label].get_xdata()) == [1, 8] and list(curves[label].get_ydata()) == [first, first + 7]
    baseline, = (line for line in axes.lines if line.get_label().startswith("Baseline"))
    assert set(baseline.get_ydata()) == {80.5}
    assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [1, 8]


def test_networks_stand_side_by_side_with_their_gap_and_the_divider_between(axes):
    table = rows(("ResNet-50", False, 0, 90.0), ("ResNet-50", True, 0, 88.0), ("ResNet-18", False, 0, 91.0),
                 ("ResNet-18", True, 0, 61.5), ("MobileNet-v2", True, 0, 70.0))
    plots.by_network(axes, analysis.summary(table, "accuracy"), analysis.gaps(table))
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[0] == "ResNet-18" and set(names[1:]) == {"ResNet-50", "MobileNet-v2"}
    heights = {container.get_label(): [bar.get_height() for bar in container] for container in axes.containers
               if hasattr(container, "patches")}
    at = names.index("ResNet-50")
    assert heights["Frozen random"][0] == 61.5 and heights["Learnable"][0] == 91
    assert heights["Frozen random"][at] == 88 and heights["Learnable"][at] == 90
    assert {text.get_text(): text.xy[0] for text in axes.texts} == {"−29.5": 0, "−2.0": at}
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [0.5]


def test_gaps_have_a_curve_for_each_kernel_size(axes):
    table = rows(*[(f"ResNet-LC-20-16x{e}{k}", frozen, 0, 80.0 - frozen * (10 + len(k)) / e)
                   for k in ("", "-k9") for e in (1, 2) for frozen in (False, True)])
    plots.gaps_by_kernel(axes, analysis.gaps(table))
    assert {c.get_label(): list(c.lines[0].get_ydata()) for c in axes.containers} == {"k = 3": [10, 5], "k = 9": [13, 6.5]}


def test_filters_are_drawn_in_rows_in_rgb_with_grey_for_zero(axes):
    filters = np.zeros((4, 3, 5, 5))
    filters[2, 0, 1, 3] = 2.0  # third filter, red, second line, fourth column
    filters[0, 1] = -1.0
    plots.filter_rows(axes, [np.ones((4, 3, 5, 5)), filters], ["x1", "x2"])
    image = axes.images[0].get_array()
    assert image.shape == (11, 23, 3) and (image[5] == 1).all() and (image[:, 5] == 1).all()
    assert list(image[6 + 1, 12 + 3]) == [1, 0.5, 0.5] and list(image[6, 0]) == [0.5, 0.25, 0.5]
    assert (image[6:, 6:11] == 0.5).all() and (image[0, 0] == 1).all()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x1", "x2"]


def test_heat_maps_have_learned_above_frozen_on_one_scale():
    figure, axes = plt.subplots(2, 2)
    maps = {(k, frozen): np.full((k, k), k + 10.0 * frozen) for k in (3, 5) for frozen in (False, True)}
    plots.heat_maps(figure, axes, maps)
    for column, k in enumerate((3, 5)):
        assert axes[0, column].get_title() == f"k = {k}"
        for row, frozen in enumerate((False, True)):
            image = axes[row, column].images[0]
            assert (image.get_array() == maps[k, frozen]).all() and image.get_clim() == (0, 15)
    assert (axes[0, 0].get_ylabel(), axes[1, 0].get_ylabel()) == ("Learnable", "Frozen random")
    plt.close(figure)


def test_side_by_side():
    means = analysis.summary(TABLE, "accuracy")
    table = plots.side_by_side(means, "accuracy", "expansion", gaps=analysis.gaps(TABLE))
    assert list(table.columns) == ["Frozen random", "Learnable", "Gap"] and list(table.index) == [0, 1, 8]
    assert list(table.loc[8]) == ["58.50 ± 0.71", "78.50 ± 0.71", "20.00 ± 0.00"]
    assert list(table.loc[0]) == ["–", "80.50 ± 0.71", "–"]
    means = analysis.summary(TABLE, "accuracy", "seed")
    several = plots.side_by_side(means, {"a": "accuracy", "b": "seed"}, "kernel_size", "expansion")
    assert list(several.columns) == ["Frozen random, a", "Learnable, a", "Frozen random, b", "Learnable, b"]
    assert list(several.loc[3, 1]) == ["51.50 ± 0.71", "71.50 ± 0.71", "0.50 ± 0.71", "0.50 ± 0.71"]


def test_beside_the_paper_every_run_of_either_and_a_star_outside_both_spreads():
    published = {("cifar10", "ResNet-20-16", False): Published(80.0, 0.1), ("svhn", "ResNet-20-16", False): Published(95.0, 0.1),
                 ("cifar10", "ResNet-LC-20-16x1", False): Published(75.0, 0.2)}
    table = plots.beside_paper(analysis.summary(TABLE, "accuracy"), published)
    assert list(table.loc["CIFAR-10", "ResNet-20-16", "Learnable"]) == ["80.50 ± 0.71", "80.00 ± 0.10"]
    assert list(table.loc["SVHN", "ResNet-20-16", "Learnable"]) == ["missing", "95.00 ± 0.10"]
    assert list(table.loc["CIFAR-10", "ResNet-LC-20-16x1", "Learnable"]) == ["71.50 ± 0.71 *", "75.00 ± 0.20"]
    assert list(table.loc["CIFAR-10", "ResNet-LC-20-16x8", "Frozen random"]) == ["58.50 ± 0.71", ""]
    assert len(table) == 6 and isinstance(table, pd.DataFrame)


def test_the_papers_tables_by_run():
    assert len(paper.table_1()) == 12 and len(paper.table_3()) == 8
    assert str(paper.table_1()["cifar100", "ResNet-LC-20-16x128", True]) == "61.31 ± 0.74"
    assert str(paper.table_1()["svhn", "ResNet-20-16", False]) == "96.36 ± 0.04"
    assert str(paper.table_3()["cifar10", "ResNet-LC-20-16x64+BN+ReLU", False]) == "94.72 ± 0.16"
    assert str(paper.table_3()["cifar10", "ResNet-LC-20-16x64", True]) == "91.71 ± 0.08"
