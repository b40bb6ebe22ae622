"""The store: what is written comes back, and no damage loses or invents a row."""

from pathlib import Path

import numpy as np
import pytest
from helpers import FILTERS, append_many, edited, put, result

import lc
from lc import results
from lc.run import COLUMNS


def test_rows_and_arrays_come_back(tmp_path):
    assert results.load_table(tmp_path / "none").empty
    append_many(tmp_path, (2, 0, 1))
    table = results.load_table(tmp_path)
    assert list(table["seed"]) == [0, 1, 2] and list(table.columns) == list(COLUMNS)
    row = table.iloc[0]
    assert row["id"] == "digits/ResNet-LC-8-8x2/frozen/smoke/seed0" and row["frozen"] is np.True_
    assert (row["accuracy"], row["device"]) == (87.5, "some CPU, 2 threads")
    assert np.isnan(row["fve_first_normalized"])
    arrays = results.load_arrays(row["id"], tmp_path)
    assert set(arrays) == {"variance_map", "first"} and np.array_equal(arrays["first"], FILTERS)
    results.append(result(1, accuracy=12.0), tmp_path)  # trained again
    assert list(results.load_table(tmp_path)["accuracy"]) == [87.5, 12.0, 87.5]
    assert set(table) >= {  # others read them
        "id", "model", "dataset", "frozen", "profile", "seed", "accuracy", "robust_accuracy",
        "learnable_parameters", "total_parameters", "fve_first", "fve_last", "fve_first_normalized",
        "fve_last_normalized", "seconds", "device", "torch", "git"}


@pytest.mark.parametrize("edit, message", [
    (put(2, "accuracy", "8x.5"), "line 3: accuracy .*'8x.5'"),
    (put(1, "frozen", "yes"), "line 2: frozen .*'yes'"),
    (put(2, "seed", "7"), "line 3: the id .* does not fit"),
    (lambda lines: lines[2].pop(), "line 3: 25 fields"),
    (lambda lines: lines.append(lines[1]), "line 4: a second row for digits/"),
    (lambda lines: [line.append(line[0]) for line in lines], "line 1: unknown column 'id'"),
    (lambda lines: [line.append("watts") for line in lines], "'watts'.* another version"),
    (lambda lines: [line.pop(-4) for line in lines], "missing column 'git'.* another version"),
    (lambda lines: lines.insert(0, ["<<<<<<< HEAD"]), "line 1: a merge conflict"),
    (lambda lines: lines.clear(), "runs.csv.*: the file is empty"),
])
def test_damage_is_reported_with_its_line_and_never_dropped(tmp_path, edit, message):
    edited(tmp_path, edit)
    before = (tmp_path / "runs.csv").read_bytes()
    for use in (lambda: results.load_table(tmp_path), lambda: results.append(result(5), tmp_path)):
        with pytest.raises(lc.ResultsError, match=message):
            use()
    assert (tmp_path / "runs.csv").read_bytes() == before


@pytest.mark.parametrize("lacking, energy", [
    (2, []), (3, ["energy", "", "7.5"])])  # a column that is not kept
def test_rows_of_earlier_versions_are_read_and_kept(energy, lacking, tmp_path):
    # in the order of their coming
    assert list(COLUMNS)[-3:] == ["accuracy_top5", "setup_seconds", "train_accuracy"]

    def age(lines):
        for i, line in enumerate(lines):
            line[-lacking:] = energy[i:i + 1]

    edited(tmp_path, age)
    assert results.load_table(tmp_path)["setup_seconds"].isna().tolist() == [True] * 2
    results.append(result(5), tmp_path)
    table = results.load_table(tmp_path).fillna(-1)
    assert list(table.columns) == list(COLUMNS) and table["accuracy"].tolist() == [87.5] * 3
    assert table["setup_seconds"].tolist() == [-1, -1, 0.05]
    assert table["train_accuracy"].tolist() == [-1, -1, 95.0]


def test_the_file_is_read_once_as_long_as_it_stays_the_same(tmp_path):
    append_many(tmp_path, range(2))
    results.load_rows(tmp_path).clear()  # what a caller does with the rows changes nothing
    read = results._read.cache_info().misses
    assert len(results.load_rows(tmp_path)) == len(results.load_table(tmp_path)) == 2
    assert results._read.cache_info().misses == read
    results.append(result(5), tmp_path)
    assert len(results.load_rows(tmp_path)) == 3


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("save", [
    lambda text: text.replace(",", ";").replace("87.5", "87,5").encode(),
    lambda text: text.replace(",", "\t").encode("utf-16"),
    lambda text: BOM + text.replace("True", "TRUE").encode(),
], ids=["semicolons", "UTF-16", "TRUE"])
def test_an_error_says_that_a_spreadsheet_may_have_saved_the_file(tmp_path, save):
    append_many(tmp_path, range(2))
    path = tmp_path / "runs.csv"
    text = path.read_text()
    path.write_bytes(BOM + text.encode())
    assert list(results.load_table(tmp_path)["seed"]) == [0, 1]  # a mark alone does no harm
    path.write_bytes(save(text))
    with pytest.raises(lc.ResultsError, match="runs.csv.* a spreadsheet "):
        results.load_table(tmp_path)


def test_merge_takes_over_what_is_missing_and_reports_what_differs(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    append_many(ours, range(2))
    append_many(theirs, range(1, 3))
    results.append(result(0, accuracy=1.0), theirs)
    taken, differing = results.merge(theirs, ours)
    assert [i[-1] for i in taken] == ["2"] and [i[-1] for i in differing] == ["0"]
    assert list(results.load_table(ours)["accuracy"]) == [87.5] * 3
    arrays = [results.arrays_path(taken[0], folder).read_bytes() for folder in (ours, theirs)]
    assert arrays[0] == arrays[1]
    results.merge(theirs, ours, replace=True)
    assert list(results.load_table(ours)["accuracy"]) == [1.0, 87.5, 87.5]


def test_smoke_rows_merge_into_the_folder_where_they_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("LC_RESULTS_DIR")
    committed, scratch = tmp_path / "committed", tmp_path / "scratch"
    monkeypatch.setattr(results, "results_folder", lambda folder=None: Path(folder or committed))
    monkeypatch.setattr(results, "SCRATCH", scratch)
    other = result(id="digits/ResNet-LC-8-8x2/frozen/short/seed0", profile="short")
    for each in (result(0), other):
        results.append(each, tmp_path / "theirs")
    taken, _ = results.merge(tmp_path / "theirs")
    assert set(taken) == {result(0).id, other.id} == set(results.load_rows())
    assert list(results.load_rows(scratch)) == [result(0).id]
    assert list(results.load_rows(committed)) == [other.id]
    assert all(results.load_arrays(run_id) for run_id in taken)
    with pytest.raises(lc.ResultsError, match="scratch is the results folder to merge into"):
        results.merge(scratch)


def test_a_merge_that_cannot_read_an_array_changes_nothing(tmp_path):
    append_many(tmp_path / "theirs", range(1))
    results.arrays_path(result().id, tmp_path / "theirs").write_bytes(b"PK damaged")
    with pytest.raises(lc.ResultsError, match="no readable arrays"):
        results.merge(tmp_path / "theirs", tmp_path / "ours")
    assert results.load_table(tmp_path / "ours").empty
