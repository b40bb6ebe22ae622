"""What is drawn and tabulated is what the rows say: kinds not swapped, numbers in their places."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import rows
from matplotlib.colors import same_color, to_hex

from lc import analysis, dots, paper, plots, tables
from lc.effects import Crossing, of_seeds

matplotlib.use("Agg")


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


PLAIN, LC = "ResNet-20-16", "ResNet-LC-20-16x8"
TABLE = rows(*[(PLAIN, False, seed, 80.0 + seed) for seed in (0, 1)],
             *[(f"ResNet-LC-20-16x{e}", frozen, seed, 70.0 - 20 * frozen + e + seed)
               for e in (1, 8) for frozen in (False, True) for seed in (0, 1)])


def draw(axes, table, larger=None, x="expansion"):
    plots.against(axes, table, x, "accuracy", "%", larger)


def with_marker(axes, *markers):
    return [line for line in axes.lines if line.get_marker() in markers]


def test_curves_are_the_means_in_their_colours(axes):
    draw(axes, pd.concat([TABLE, rows((PLAIN, True, 0, 25.0))]))
    for color, first in ((plots.FROZEN, 51.5), (plots.LEARNABLE, 71.5)):
        curve, = (line for line in with_marker(axes, "o") if same_color(line.get_color(), color)
                  and list(line.get_xdata()) == [1, 8])
        assert list(curve.get_ydata()) == [first, first + 7]
    plain = {line.get_label(): (set(line.get_ydata()), line.get_linestyle(), line.get_color())
             for line in axes.lines if "Plain" in line.get_label()}
    assert plain == {"Plain network, learnable": ({80.5}, "--", plots.BASELINE),
                     "Plain network, frozen random": ({25}, ":", plots.FROZEN)}
    assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [1, 8]
    assert axes.get_legend() is None


def test_rows_of_each_larger_profile_have_marks_of_their_own_and_are_never_averaged(axes):
    longest = rows((PLAIN, False, 0, 91.0), (LC, True, 0, 92.0), (LC, True, 1, 94.0))
    short = rows((LC, True, 0, 88.0)).assign(profile="short")
    draw(axes, TABLE, pd.concat([longest.assign(profile="paper", epochs=75), short]))
    for_legend, plain, lc = with_marker(axes, "*")
    assert for_legend.get_label() == "75 epochs, n = 1 or 2" and not len(for_legend.get_xdata())
    assert (lc.get_xdata()[0], lc.get_ydata()[0], lc.get_color()) == (8, 93, plots.FROZEN)
    assert (plain.get_ydata()[0], plain.get_color()) == (91, plots.BASELINE)
    assert [list(line.get_ydata()) for line in with_marker(axes, "P")] == [[], [88]]


def test_marks_stand_at_their_parameters_and_diamonds_have_a_name(axes):
    plain = rows((PLAIN, False, 0, 91.0))
    larger = pd.concat([plain, rows(*[(LC, frozen, 0, 92.0) for frozen in (True, False)])])
    draw(axes, TABLE, larger.assign(profile="paper"), x="learnable_parameters")
    _, grey, learnable, frozen = with_marker(axes, "*")
    assert grey.get_color() == plots.BASELINE  # the first, at the back
    places = [line.get_transform().transform((10, 92))[0] for line in (frozen, grey, learnable)]
    assert len(set(places)) == 1
    assert "Plain network" in axes.get_legend_handles_labels()[1]


@pytest.mark.parametrize("shape, said", [("32-16", "depth 32, "), ("20-32", "width 32, "),
                                         ("32-32", "depth 32, width 32, "), ("20-16", "")])
def test_a_depth_or_width_that_marks_alone_have_is_said(axes, shape, said):
    larger = rows((f"ResNet-LC-{shape}x8", True, 0, 92.0)).assign(profile="paper", epochs=75)
    draw(axes, TABLE, larger)
    assert f"{said}75 epochs, n = 1" in axes.get_legend_handles_labels()[1]


def test_the_axis_is_broken_where_the_plain_frozen_network_lies_far_below(axes):
    plain = rows((PLAIN, True, 0, 20.0))
    draw(axes, pd.concat([TABLE, plain]))
    ends = [axes.transData.transform((1, y)) for y in (20, 51.5, 81)]
    low, first, top = axes.transAxes.inverted().transform(ends)[:, 1]
    assert 0 < low < 0.15 and 0.15 < first < 0.3 and 0.8 < top < 1
    assert axes.get_yticks()[0] == 20 and axes.get_yticks()[1] > 45
    axes.clear()
    draw(axes, pd.concat([TABLE, plain]), plain.assign(accuracy=28.0, profile="paper"))
    assert list(axes.get_yticks()[:2]) == [20, 28] and axes.get_yticks()[2] > 45
    places = axes.transAxes.inverted().transform(axes.transData.transform([(1, 28), (1, 51.5)]))
    assert 0.1 < places[0, 1] < 0.2 and places[1, 1] < 0.4
    axes.clear()
    draw(axes, pd.concat([TABLE, plain.assign(accuracy=45.0)]))
    assert axes.get_yscale() == "linear"


def test_labels_of_many_expansions_do_not_touch():
    figure, axes = plt.subplots(figsize=(2, 2))
    many = rows(*[(f"ResNet-LC-20-16x{2 ** i}", frozen, 0, 80.0 + i)
                  for i in range(9) for frozen in (False, True)])
    draw(axes, many)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[-2:] == ["\n128", "256"] and labels[0].strip() == "1"
    for second in (False, True):
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()
                 if label.get_text() and label.get_text().startswith("\n") == second]
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))
    plt.close(figure)


def test_a_break_even_is_a_line_or_words(axes):
    for gaps, said in (({45: 2.0, 90: -2.0}, "64"), ({4: 2.0, 16: -2.0}, "between 4 and 16"),
                       ({45: 2.0}, "beyond the largest tested"),
                       ({}, "unknown, since no network has both runs")):
        plots.break_even(axes, Crossing({x: of_seeds({0: gap}) for x, gap in gaps.items()}))
        assert axes.get_title(loc="right") == f"break-even: {said}"
    (line,) = axes.lines
    assert line.get_xdata()[0] == pytest.approx(45 * 2 ** 0.5)


def test_networks_stand_below_each_other_with_their_gap_and_the_divider_between(axes):
    table = rows(("ResNet-50", False, 0, 90.0), ("ResNet-50", True, 0, 88.0),
                 ("ResNet-18", False, 0, 91.0), ("ResNet-18", True, 0, 61.5),
                 ("MobileNet-v2", True, 0, 70.0))
    larger = rows(("ResNet-18", True, 0, 55.0), ("ResNet-101", True, 0, 66.0))
    dots.by_network(axes, table, larger.assign(profile="short"))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[2] == "ResNet-18" and set(names[:2]) == {"ResNet-50", "MobileNet-v2"}
    y = names.index("ResNet-50")
    changes = {text.get_text(): text.xy for text in axes.texts}
    assert changes == {"−29.5": (76.25, 2), "−2.0": (89, y)}
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [1.5]
    points = {(to_hex(line.get_color()).upper(), x, round(at)) for line in with_marker(axes, "o")
              for x, at in zip(*line.get_data()) if not np.isnan(x)}
    assert {(plots.FROZEN, 61.5, 2), (plots.LEARNABLE, 91, 2), (plots.FROZEN, 88, y)} <= points
    for_legend, star = with_marker(axes, "P")
    assert not len(for_legend.get_xdata()) and (*star.get_xdata(), *star.get_ydata()) == (55, 2)


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


def test_side_by_side():
    table = tables.side_by_side(TABLE, "accuracy", "expansion", gaps=True)
    assert list(table.columns) == ["Frozen random", "Learnable", "Gap"]
    assert list(table.index) == [(4, 0), (4, 1), (4, 8)]
    assert list(table.loc[4, 8]) == ["58.50 ± 0.71", "78.50 ± 0.71", "20.00 ± 0.00"]
    assert list(table.loc[4, 0]) == ["–", "80.50 ± 0.71", "–"]
    longer = rows((LC, True, 0, 92.0)).assign(profile="paper", epochs=75)
    found = tables.side_by_side(pd.concat([TABLE, longer]), "accuracy", "model")
    assert found.index[0] == (75, LC) and (4, PLAIN) in found.index
    assert found.loc[(75, LC), "Frozen random"] == "92.00"
    columns = {"a": "accuracy", "b": "seed"}
    several = tables.side_by_side(TABLE, columns, "kernel_size", "expansion")
    assert several.loc[4, 3, 1].to_dict() == {
        "Frozen random, a": "51.50 ± 0.71", "Learnable, a": "71.50 ± 0.71",
        "Frozen random, b": "0.50 ± 0.71", "Learnable, b": "0.50 ± 0.71"}


HERE = "here, 75 epochs, n = 1", "here, 4 epochs, n = 2"
THERE = "the paper, 75 epochs, n = 4"


def role(row):
    if not row["expansion"]:
        return "Plain"
    return "LC, frozen random" if row["frozen"] else "LC, learnable"


@pytest.fixture
def here():
    larger = rows((PLAIN, False, 0, 91.7)).assign(profile="paper", epochs=75)
    table = pd.concat([TABLE[TABLE["expansion"] != 1].assign(profile="short"), larger])
    table = table.assign(row=table["dataset"], role=table.apply(role, axis=1))
    return analysis.summary(table, "accuracy", by=["row", "role", "profile", "epochs"])


def test_the_papers_tables_stand_below_the_rows_here_keyed_by_role(here):
    table = tables.paper_table(here, paper.table_1())
    assert list(table.columns) == ["Plain", "LC, learnable", "LC, frozen random"]
    assert list(table.index) == [
        *(("CIFAR-10", source) for source in (*HERE, THERE)),
        *((name, THERE) for name in ("CIFAR-100", "Fashion-MNIST", "SVHN"))]
    assert list(table.loc["CIFAR-10", HERE[0]]) == ["91.70", "–", "–"]
    assert list(table.loc["CIFAR-10", HERE[1]]) == ["80.50 ± 0.71", "78.50 ± 0.71", "58.50 ± 0.71"]
    assert list(table.loc["CIFAR-10", THERE]) == ["91.60 ± 0.23", "91.39 ± 0.29", "91.89 ± 0.10"]
    other = tables.paper_table(here.assign(row=""), paper.table_3())
    assert other.index[-1] == ("BatchNorm + ReLU", "the paper, 75 epochs, n not stated")


def test_the_papers_tables_are_drawn_filled_here_and_open_there(here, axes):
    both = tables.beside(here, paper.table_1())
    for row in both[both["row"] == "cifar10"].itertuples():
        dots.dot(axes, row, 0)
    points = {(dot.get_xdata()[0], dot.get_color(), dot.get_markerfacecolor(), dot.get_marker())
              for dot, *_ in (each.lines for each in axes.containers)}
    assert {(91.6, plots.BASELINE, "white", "o"), (91.7, plots.BASELINE, plots.BASELINE, "*"),
            (58.5, plots.FROZEN, plots.FROZEN, "o")} < points and len(points) == 7


def test_a_table_that_unfolds_has_a_twin_in_text():
    table = tables.fold_out(TABLE, lambda rows: analysis.summary(rows, "accuracy"))
    assert "<details>" in table._repr_html_() and LC in repr(table)
    assert all("rows (4 epochs, n = 2)" in text for text in (repr(table), table._repr_html_()))
    assert tables.fold_out(TABLE[:0], None) is None


def test_numbers_as_text():
    means = pd.DataFrame({"gap": [2.5, 3.0, np.nan], "gap_std": [0.707, np.nan, np.nan]})
    assert tables.plus_minus(means, "gap") == ["2.50 ± 0.71", "3.00", "–"]
    assert tables.span([0.652, np.nan, 0.58]) == "0.58 to 0.65"
    assert tables.span([0.5, 0.501]) == "0.50" and tables.span([np.nan]) == "–"


@pytest.mark.parametrize("seeds, said", [([2, 2], "2"), ([2, 1], "1 or 2"), ([3, 1, 2], "1 to 3")])
def test_numbers_of_seeds_as_text(seeds, said):
    assert tables.epochs_and_seeds([15, 4], seeds) == f"4 or 15 epochs, n = {said}"


def test_a_caption_names_network_data_epochs_and_seeds():
    caption = tables.caption(TABLE, tables.family(TABLE, "expansion"))
    assert caption == "ResNet-LC-20-16x{E}, CIFAR-10, 4 epochs, n = 2"
    one = rows(("ResNet-LC-20-64x1-k9", True, 0, 50.0))
    assert tables.family(one, "width") == "ResNet-LC-20-{W}x1-k9"
    caption = tables.caption(one.assign(dataset="tiny-imagenet-40"), "X")
    assert caption == "X, Tiny-ImageNet, 10 classes, 4 epochs, n = 1"


def test_published_numbers_are_the_papers():
    tables = pd.concat([paper.table_1(), paper.table_3()])
    cells = {*map(tuple, tables[["row", "role", "accuracy", "accuracy_std"]].values)}
    assert len(cells) == 20 and {
        ("cifar100", "LC, frozen random", 61.31, 0.74), ("svhn", "Plain", 96.36, 0.04),
        ("+BN+ReLU", "Learnable", 94.72, 0.16), ("", "Frozen random", 91.71, 0.08)} < cells
    assert paper.TABLE_2["ResNet-18d-LCx64", True] == (72.46, 90.57) and len(paper.TABLE_2) == 9
