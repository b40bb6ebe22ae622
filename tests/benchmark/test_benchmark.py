"""The benchmark prints and keeps every case with its ratios; how fast they are is not tested."""

import pandas as pd
import pytest
import torch
from helpers import CPU

import lc
from lc.__main__ import main
from lc.benchmark import benchmark, steps, table
from lc.training import Trainer


def test_every_case_is_printed_with_its_ratios_and_kept(capsys, store):
    plain, combined = "ResNet-8-8", "ResNet-LC-8-8x2"
    rows = benchmark("cpu", "fp32", 2, [plain, combined], seconds=0)
    found = {(row.model, row.frozen, row.path): row for row in rows.itertuples()}
    paths = {plain: ("eager", "loop"), combined: ("eager", "unfolded", "loop")}
    assert set(found) == {(model, frozen, path) for model in paths for frozen in (False, True)
                          for path in paths[model]}
    assert all(row.images_per_second > 0 and row.memory_mib > 0 for row in found.values())

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    printed = {tuple(line[:3]): line[-4:] for line in lines if line and line[0] in paths}
    ours, unfolded = found[combined, True, "eager"], found[combined, True, "unfolded"]
    assert ours.of_unfolded == pytest.approx(ours.images_per_second / unfolded.images_per_second)
    ratios = [f"{getattr(ours, ratio):.2f}" for ratio in table.RATIOS]
    assert printed[combined, "frozen", "eager"] == ratios

    kept = pd.read_csv(store / "speed.csv")
    assert list(kept.columns) == table.COLUMNS and len(kept) == len(found)
    for row in kept.itertuples():
        case = found[row.model, row.frozen, row.path]
        assert row.milliseconds == pytest.approx(case.milliseconds, rel=1e-5)
        assert row.device == case.device
    # cases measured again are replaced, and all others stay
    again = kept.assign(started="now").to_dict("records")[::2]
    table.save([*again, kept.to_dict("records")[0] | {"device": "another device"}])
    stored = pd.read_csv(store / "speed.csv")
    assert len(stored) == len(kept) + 1 and (stored["started"] == "now").sum() == len(again)


def test_only_what_was_measured_together_is_compared(store, tmp_path):
    columns = "started", "model", "path", "memory_mib", "images_per_second"
    rows = [(1, "ResNet-20-16", "eager", 200.0, 100.0), (1, "ResNet-20-64", "eager", 800.0, 50.0),
            (1, "ResNet-LC-20-16x8", "eager", 300.0, 80.0),
            (1, "ResNet-LC-20-16x8", "loop", 300.0, 10.0),
            (2, "ResNet-LC-20-16x8", "graph", 300.0, 160.0),
            (2, "MobileNet-v2", "graph", 300.0, 7.0)]
    same = dict(device="a GPU", torch="2", git="0", precision="bf16", frozen=False, batch=256)
    table.save([same | dict(zip(columns, row)) for row in rows])
    found = table.with_ratios(table.load_table()).fillna(-1)
    assert found["of_plain"].tolist() == pytest.approx([1, 1, 0.8, -1, -1, 1])
    assert found["memory_of_plain"].tolist() == [1, 1, 1.5, -1, -1, 1]
    assert found["of_loop"].tolist() == pytest.approx([-1, -1, 8, 1, -1, -1])
    assert (found["of_unfolded"] == -1).all()
    none = table.load_table(tmp_path / "none")
    assert none.empty and table.with_ratios(none).empty


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n4,5,6,7\n", b"a,b\n1,2\n"])
def test_a_damaged_table_is_said_with_its_path(content, tmp_path):
    (tmp_path / "speed.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"speed\.csv .*move it away"):
        table.load_table(tmp_path)


def test_a_case_that_does_not_fit_is_said_and_left_out(monkeypatch, capsys, store):
    def unfold(network):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(steps, "unfold", unfold)
    main(["benchmark", "ResNet-LC-8-4x2", "--device", "cpu", "--batch", "2", "--seconds", "0",
          "--paths", "eager", "unfolded", "--results", str(store)])
    assert set(table.load_table()["path"]) == {"eager"}
    said = capsys.readouterr().out
    assert "ResNet-LC-8-4x2 frozen, unfolded: 2 images do not fit on cpu" in said


@pytest.mark.parametrize("arguments, message", [
    (dict(paths=["graph"]), "unknown path 'graph'; known on cpu: eager, unfolded, loop"),
    (dict(models=["ResNet-9-8"]), "depth must be"),
    ({}, "speed.csv has other columns than this version of lc writes"),
])
def test_mistakes_are_said_before_anything_is_measured(arguments, message, monkeypatch, store):
    monkeypatch.setattr(steps, "_measure", None)
    store.mkdir()
    (store / "speed.csv").write_text("device,speed\na,1\n")
    with pytest.raises(ValueError, match=message):
        benchmark(**{"device": "cpu"} | arguments)


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(steps, "_measure", None)
    (tmp_path / "file").touch()
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "file" / "store"))
    with pytest.raises(lc.ResultsError, match="cannot be written"):
        benchmark(device="cpu")


def test_a_cpu_is_measured_with_the_step_that_trains_there():
    case = dict(model="ResNet-LC-8-4x2", frozen=True, batch=2, precision="fp32", path="eager")
    assert type(steps.make_step(case, CPU)[0]) is Trainer


def test_networks_in_turn_take_a_step_each(monkeypatch):
    trainers, case = [], dict(model="ResNet-8-4", frozen=True, batch=2, precision="fp32")
    monkeypatch.setattr(steps.FastTrainer, "capture", lambda self: trainers.append(self))
    monkeypatch.setattr(steps, "Trainer", steps.FastTrainer)
    alone, _ = steps._set_up(case | {"path": "graph"}, CPU)
    trainers.clear()
    memory, step = steps._set_up(case | {"path": "graphs-4", "batch": 8}, CPU)
    before = [trainer.count.item() for trainer in trainers]
    step()
    assert [trainer.count.item() - count for trainer, count in zip(trainers, before)] == [1] * 4
    assert memory == pytest.approx(4 * alone, rel=0.1)


@pytest.mark.parametrize("speeds, options", [
    (dict(eager=1), ""),
    (dict(graph=100, fused=101), ""),
    ({"graph": 100, "graphs-2": 150, "graphs-4": 170, "graphs-8": 160, "fused": 50},
     "--together 4"),
    ({"graph": 100, "graphs-2": 150, "fused": 120}, "--fuse --together 2"),
])
def test_the_options_that_train_most_images_a_second(speeds, options):
    rows = pd.DataFrame([(model, False, *item) for model in "ab" for item in speeds.items()],
                        columns=["model", "frozen", "path", "images_per_second"])
    assert table.sweep_options(rows) == options
    one_missing = rows[(rows["model"] == "b") | (rows["path"] == "graph")]
    assert table.sweep_options(one_missing) == ""


def test_memory_is_that_of_the_tensors_alive_at_once():
    a, b = torch.zeros(1000), torch.ones(1000)

    def step():
        c = a + b
        c.view(10, 100).mul_(2)
        return c.sum()

    assert 4000 <= steps.peak_memory(step, CPU) < 4200
