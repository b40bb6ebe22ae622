"""The notebooks on other stores: the paper's whole grid, single rows, one kind alone, none."""

import functools
import json
import re
import warnings
from unittest.mock import Mock

import IPython.display
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import result_of
from safetensors.torch import load_file

from lc import plots, results, study
from lc.utils.files import ROOT

matplotlib.use("Agg")
PATHS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
         if not path.stem.startswith("00")}
ON_RESULTS = [name for name in PATHS if not name.startswith("17")]
# A list of a reader's own for each notebook, with values that the paper does not have
LISTS = [
    ("01_off_the_shelf", study.figure1a, dict(networks=["ResNet-50", "ResNet-26-16"])),
    ("03_expansion", study.figure4, dict(expansions=[1, 512])),
    ("04_filter_diversity", study.figure4, dict(expansions=[512])),
    ("05_width", study.figure6a, dict(widths=[16, 24])),
    ("06_depth", study.figure6b, dict(depths=[20, 26])),
    ("02_off_the_shelf_imagenet", study.figure1b, dict(networks=["ResNet-18d", "MobileNet-v2"])),
    ("08_imagenet", study.table2, dict(expansions=[1, 4])),
    ("07_other_datasets", study.table1, dict(datasets=["svhn", "my-own"], expansion=8)),
    ("09_kernel_size", study.figure8, dict(kernel_sizes=[3, 11], expansions=[1, 3])),
    ("10_combined_filters", study.figure8, dict(kernel_sizes=[11], expansions=[1, 3])),
    ("11_variance_maps", study.figure8, dict(kernel_sizes=[3, 11])),
    ("12_fve_by_kernel_size", study.figure8, dict(kernel_sizes=[11], expansions=[1, 3])),
    ("13_intermediate_operations", study.table3, dict(expansion=8)),
    ("16_spatial_initialisation", study.initialisation,
     dict(kernel_sizes=[3, 11], expansions=[3])),
    ("18_weight_decay", study.decay, dict(decays=["1e-2", "3e-3"])),
]


def fill(folder, runs):
    """A store of made-up numbers: what is drawn from it is thrown away."""
    rng, rows = np.random.default_rng(0), {}
    for i, run in enumerate(runs):
        k = run.architecture.kernel_size
        rows[run.id] = result_of(
            run, precision="bf16" if "bf16" in run.recipe.profile else "fp32",
            accuracy=rng.uniform(50, 90), robust_accuracy=rng.uniform(20, 50),
            accuracy_top5=rng.uniform(90, 99), learnable_parameters=1000 + i, seconds=100.0,
            epochs=run.recipe.epochs).row()
        path = results.arrays_path(run.id, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, first=rng.normal(size=(16, 3, k, k)), variance_map=rng.uniform(size=(k, k)),
                 singular_values=np.sort(rng.uniform(size=64))[::-1])
    results._write(rows, folder)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Makes a store of one of these kinds, once."""
    paper = study.everything("paper")
    kinds = {
        "whole": paper,
        "one row each": [experiment("paper")[0] for experiment in study.EXPERIMENTS.values()],
        "frozen alone": [run for run in paper if run.frozen and run.seed < 2],
        "learnable alone": [run for run in paper if not run.frozen and run.seed == 0],
    }

    @functools.cache
    def make(kind):
        folder = tmp_path_factory.mktemp("store")
        fill(folder, kinds[kind])
        return folder

    return make


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Runs a notebook's cells one after another; returns its names."""
    def run(name, store=tmp_path, **parameters):
        monkeypatch.setenv("LC_RESULTS_DIR", str(store))
        monkeypatch.setenv("LC_FIGURES_DIR", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        names = {}
        for cell in json.loads(PATHS[name].read_text())["cells"]:
            if cell["cell_type"] == "code":
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    exec("".join(cell["source"]), names)
                if "parameters" in cell["metadata"].get("tags", ()):
                    assert parameters.keys() <= names.keys()
                    names |= parameters  # as papermill does
        return names

    yield run
    plt.close("all")


def drawn(names):
    """The rows that a notebook draws as curves, from its variables."""
    found = next(names[name] for name in ("table", "curves", "rows") if name in names)
    return found.curves if isinstance(found, study.Rows) else found


@pytest.mark.parametrize("store, name", [
    pytest.param(store, name, marks=[pytest.mark.slow] * (
        # the others draw a few rows in `test_a_list_of_a_readers_own_is_drawn`
        store != "one row each" or name in [name for name, *_ in LISTS]))
    for store in ("one row each", "whole", "frozen alone", "learnable alone")
    for name in ON_RESULTS])
def test_notebooks_draw_whatever_rows_there_are(name, store, stores, execute, capsys):
    shown = drawn(execute(name, stores(store)))
    profiles = {re.sub(r"-(fp32|bf16|decay.*)", "", name) for name in shown["profile"]}
    assert profiles <= {"paper", "a2"} and len(shown) > 0
    of, runs = re.search(r"Shown: .* (\d+) of (\d+) runs", capsys.readouterr().out).groups()
    assert (of == runs) == (store == "whole")


def test_figures_by_kernel_size_have_room_for_rows_that_only_some_sizes_have(execute, tmp_path):
    small = [run for run in study.figure8("short", seeds=[0]) if run.architecture.expansion < 64]
    fill(tmp_path, small + study.figure8("short", kernel_sizes=[3], expansions=[64], seeds=[0]))
    first, *_, last = execute("12_fve_by_kernel_size")["axes"][-1]
    for axis, ticks in (first, ["1", "8", "64"]), (last, ["1", "8"]):
        assert [label.get_text() for label in axis.get_xticklabels()] == ticks
        assert axis.get_xlim()[1] > float(ticks[-1])
    assert len(execute("11_variance_maps")["maps"]) == 8


def test_table_3_has_an_axis_for_each_recipe_of_the_same_span(execute, tmp_path):
    fill(tmp_path, study.table3("short", seeds=[0]) + study.table3("paper", seeds=[0])[:1])
    axes = execute("13_intermediate_operations")["axes"]
    left, right = ({each.lines[0].get_xdata()[0] for each in axis.containers} for axis in axes)
    assert len(left) == 8 and {91.71, 94.72} < right and len(right) == 9
    assert np.isclose(*(np.ptp(axis.get_xlim()) for axis in axes))
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == ["nothing", "ReLU", "BatchNorm", "BatchNorm + ReLU"]
    colors = dict(zip(*axes[1].get_legend_handles_labels()[::-1]))
    assert colors["Frozen random"].get_color() == plots.FROZEN
    assert colors["Learnable"].get_color() == plots.LEARNABLE


def test_the_notebook_on_your_own_network_takes_a_folder_of_images(
        flowers, execute, monkeypatch, tmp_path, capsys):
    shown = Mock()
    monkeypatch.setattr(IPython.display, "display", shown)
    names = execute("17_your_own_network", images=str(flowers / "train"), epochs=2, expansions=[2])
    said = capsys.readouterr().out
    assert "4 classes; 25 images to train on, 7 to test on, each [3, 32, 32]" in said
    assert [len(curve) for curve in names["curves"].values()] == [2, 2, 2] and names["same"]
    assert shown.call_count == 1
    assert shown.return_value.update.call_count == 6  # the curves grow with each epoch
    weights = load_file(tmp_path / "your_network.safetensors")
    assert weights["0.weight"].shape == (8, 3, 9, 9)
    assert not any("pointwise" in name for name in weights)


@pytest.mark.parametrize("parameters, message", [
    (dict(expansions=[1, 0]), "each of expansions must be an integer of at least 1, not 0"),
    (dict(expansions=8), "expansions must be a list"),
    (dict(save="folder"), "folder exists already; name another")])
def test_the_notebook_on_your_own_network_checks_before_it_trains(
        parameters, message, execute, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=message):
        execute("17_your_own_network", **parameters)


@pytest.mark.parametrize("name", ON_RESULTS)
def test_no_markdown_cell_speaks_of_what_depends_on_the_rows(name):
    published = set(re.findall(r"\d+\.\d+", (ROOT / "lc" / "paper.py").read_text()))
    for cell in json.loads(PATHS[name].read_text())["cells"]:
        text = " ".join("".join(cell["source"]).split())
        if cell["cell_type"] == "markdown":
            assert not re.search(r"In the `|these rows show", text), text
            numbers = re.findall(r"\d+\.\d+", re.sub(r"Section \d\.\d|(?<=\d),", "", text))
            assert name > "16" or set(numbers) <= published, text


@pytest.mark.parametrize("name", ON_RESULTS)
def test_notebooks_say_what_to_do_when_there_is_no_row(name, execute):
    with pytest.raises(ValueError, match="set train = True"):
        execute(name)


@pytest.mark.parametrize("name, experiment, lists", LISTS, ids=[name for name, *_ in LISTS])
def test_a_list_of_a_readers_own_is_drawn(name, experiment, lists, execute, tmp_path):
    runs = [run for run in experiment(**lists) if run.seed == 0]
    fill(tmp_path, runs)
    assert set(drawn(execute(name, **lists))["id"]) == {run.id for run in runs}
    assert list(tmp_path.glob("*.png")) or name.startswith(("07", "13"))
