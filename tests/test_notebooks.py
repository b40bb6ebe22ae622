"""The notebooks on stores that they were not committed with: the paper's whole grid, single rows, one kind alone, none."""

import json
import warnings
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_results import result

from lc import results, study
from lc.data import save_npz
from lc.models import architecture
from lc.run import ROOT

matplotlib.use("Agg")
PATHS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if not path.stem.startswith("00")}


def fill(folder, runs):
    """A store of made-up numbers: what is drawn from it is thrown away."""
    rng, rows = np.random.default_rng(0), {}
    for i, run in enumerate(runs):
        k = architecture(run.model).kernel_size
        rows[run.id] = replace(result(), id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen, seed=run.seed,
                               profile=run.recipe.profile, accuracy=rng.uniform(50, 90), robust_accuracy=rng.uniform(20, 50),
                               learnable_parameters=1000 + i, seconds=100.0, energy=float("nan") if i % 2 else 5.0).row()
        save_npz(results.arrays_path(run.id, folder), first=rng.normal(size=(16, 3, k, k)), variance_map=rng.uniform(size=(k, k)))
    results._write(rows, folder)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    paper = study.everything("paper")
    chosen = {
        "whole": paper,
        "one row each": [runs[0] for runs in (experiment("paper") for experiment in study.EXPERIMENTS.values())],
        "frozen alone": [run for run in paper if run.frozen and run.seed < 2],
        "learnable alone": [run for run in paper if not run.frozen and run.seed == 0],
        "empty": [],
    }
    folders = {name: tmp_path_factory.mktemp("store") for name in chosen}
    for name, runs in chosen.items():
        fill(folders[name], runs)
    return folders


def execute(name, monkeypatch, tmp_path, store):
    """Run a notebook's cells one after another; returns its names."""
    monkeypatch.setenv("LC_RESULTS_DIR", str(store))
    monkeypatch.setenv("LC_FIGURES_DIR", str(tmp_path))
    names = {}
    try:
        for cell in json.loads(PATHS[name].read_text())["cells"]:
            if cell["cell_type"] == "code":
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    exec("".join(cell["source"]), names)
    finally:
        plt.close("all")
    return names


@pytest.mark.parametrize("store", ["whole", "one row each", "frozen alone", "learnable alone"])
@pytest.mark.parametrize("name", PATHS)
def test_notebooks_draw_whatever_rows_there_are(name, store, stores, monkeypatch, tmp_path, capsys):
    names = execute(name, monkeypatch, tmp_path, stores[store])
    assert set(names["table"]["profile"]) == {"paper"} and len(names["table"]) > 0
    said = capsys.readouterr().out
    assert "Profile paper: " in said and ("missing: " in said) == (store != "whole")


@pytest.mark.parametrize("name", PATHS)
def test_notebooks_say_what_to_do_when_there_is_no_row(name, stores, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="set train = True"):
        execute(name, monkeypatch, tmp_path, stores["empty"])


@pytest.mark.parametrize("name, lists", [
    ("03_expansion", "expansions = [1, 8]"), ("04_filter_diversity", "expansions = [2]"), ("05_width", "widths = [16, 64]"),
    ("06_depth", "depths = [20, 110]"), ("07_other_datasets", 'datasets = ["svhn"]'), ("01_off_the_shelf", 'networks = ["ResNet-50"]'),
    ("09_kernel_size", "kernel_sizes = [3, 9]"), ("10_combined_filters", "kernel_sizes = [5]"), ("11_variance_maps", "expansion = 8"),
    ("12_fve_by_kernel_size", "expansions = [4, 32]"), ("13_intermediate_operations", "expansion = 64"),
])
def test_changing_one_list_changes_the_figure(name, lists, stores, monkeypatch, tmp_path):
    parameter = lists.split(" = ")[0]
    cells = json.loads(PATHS[name].read_text())
    for cell in cells["cells"]:
        source = "".join(cell["source"]).splitlines()
        cell["source"] = "\n".join(lists if line.startswith(f"{parameter} = None") else line for line in source)
    changed = tmp_path / f"{name}.ipynb"
    changed.write_text(json.dumps(cells))
    whole = execute(name, monkeypatch, tmp_path, stores["whole"])
    monkeypatch.setitem(PATHS, name, changed)
    part = execute(name, monkeypatch, tmp_path, stores["whole"])
    if name == "13_intermediate_operations":  # the profile's own value
        pd.testing.assert_frame_equal(part["table"], whole["table"])
    else:
        assert 0 < len(part["table"]) < len(whole["table"])
