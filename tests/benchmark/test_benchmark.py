"""The benchmark prints and keeps every case with its ratios; how fast they are is not tested."""

import subprocess
import sys

import pandas as pd
import pytest
import torch

from lc.benchmark import benchmark, steps, table
from lc.benchmark.measure import peak_memory
from lc.utils.files import ROOT

CPU = torch.device("cpu")


def test_every_case_is_printed_with_its_ratios_and_kept(capsys, tmp_path):
    models = ["ResNet-8-8", "ResNet-LC-8-8x2", "ResNet-8-16"]
    found = {(s.model, s.frozen, s.path): s for s in benchmark("cpu", "fp32", 4, models, seconds=0, folder=tmp_path).itertuples()}
    assert set(found) == {(model, frozen, path) for frozen in (False, True) for model, path in (
        ("ResNet-8-8", "eager"), ("ResNet-8-8", "loop"), ("ResNet-LC-8-8x2", "eager"), ("ResNet-LC-8-8x2", "unfolded"),
        ("ResNet-LC-8-8x2", "loop"), ("ResNet-8-16", "eager"),
        ("ResNet-8-16", "loop"))}
    assert all(s.images_per_second > 0 and s.memory_mib > 0 for s in found.values())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    printed = {tuple(line[:3]): line for line in lines if line and line[0] in models}
    assert printed["ResNet-8-8", "learnable", "eager"][7] == printed["ResNet-8-16", "learnable", "eager"][7] == "1.00"
    ours, unfolded, loop, plain = (found[key] for key in (
        ("ResNet-LC-8-8x2", True, "eager"), ("ResNet-LC-8-8x2", True, "unfolded"), ("ResNet-LC-8-8x2", True, "loop"),
        ("ResNet-8-8", False, "eager")))
    assert printed["ResNet-LC-8-8x2", "frozen", "eager"][7:] == [
        *(f"{ours.images_per_second / other.images_per_second:.2f}" for other in (plain, unfolded, loop)),
        f"{ours.memory_mib / plain.memory_mib:.2f}"]
    kept = pd.read_csv(tmp_path / "speed.csv")
    assert list(kept.columns) == table.COLUMNS and len(kept) == len(found)
    for row in kept.itertuples():
        step = found[row.model, row.frozen, row.path]
        assert row.milliseconds == pytest.approx(step.milliseconds, rel=1e-5) and row.device == step.device


def test_only_what_was_measured_together_is_compared(tmp_path):
    rows = [dict(started=str(day), device="a GPU", torch="2", git="0", precision="bf16", model=model,
                 frozen=False, path=path, batch=256, memory_mib=memory, images_per_second=rate)
            for day, model, path, memory, rate in (
                (1, "ResNet-20-16", "eager", 200.0, 100.0), (1, "ResNet-20-64", "eager", 800.0, 50.0),
                (1, "ResNet-LC-20-16x8", "eager", 300.0, 80.0), (1, "ResNet-LC-20-16x8", "loop", 300.0, 10.0),
                (2, "ResNet-LC-20-16x8", "graph", 300.0, 160.0), (2, "MobileNet-v2", "graph", 300.0, 7.0))]
    table.save(rows, tmp_path)
    found = table.with_ratios(table.load_table(tmp_path)).fillna(-1)
    assert found["of_plain"].tolist() == pytest.approx([1, 1, 0.8, -1, -1, 1])
    assert found["memory_of_plain"].tolist() == [1, 1, 1.5, -1, -1, 1]
    assert found["of_loop"].tolist() == pytest.approx([-1, -1, 8, 1, -1, -1]) and (found["of_unfolded"] == -1).all()
    assert table.load_table(tmp_path / "none").empty and table.with_ratios(table.load_table(tmp_path / "none")).empty


def test_cases_measured_again_are_replaced_and_all_others_stay(tmp_path):
    first, = (s for s in benchmark("cpu", "fp32", 2, ["ResNet-8-4"], ["eager"], 0, tmp_path).itertuples() if s.frozen)
    kept = pd.read_csv(tmp_path / "speed.csv")
    kept["device"] = "another device"
    kept.to_csv(tmp_path / "speed.csv", index=False)
    for _ in range(2):
        benchmark("cpu", "fp32", 2, ["ResNet-8-4"], ["eager"], 0, tmp_path)
    assert sorted(pd.read_csv(tmp_path / "speed.csv")["device"]) == sorted([first.device] * 2 + ["another device"] * 2)


def test_a_case_that_does_not_fit_is_said_and_left_out(monkeypatch, capsys, tmp_path):
    def unfold(network):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lc.benchmark.steps.unfold", unfold)
    found = benchmark("cpu", "fp32", 2, ["ResNet-LC-8-4x2"], ["eager", "unfolded"], 0, tmp_path)
    assert set(found["path"]) == {"eager"}
    assert "ResNet-LC-8-4x2 frozen, unfolded: 2 images do not fit on cpu" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (dict(paths=["graph"]), "unknown path 'graph'; known on cpu: eager, unfolded, loop"), (dict(batch=0), "batch must be"),
    (dict(models=["ResNet-9-8"]), "depth must be"), (dict(precision="fp8"), "unknown precision"),
])
def test_mistakes_are_said_before_anything_is_measured(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setattr("lc.benchmark.steps._measure", None)
    with pytest.raises(ValueError, match=message):
        benchmark(**{"device": "cpu", "folder": tmp_path} | arguments)


def test_a_table_of_other_columns_is_not_written_over(monkeypatch, tmp_path):
    monkeypatch.setattr("lc.benchmark.steps._measure", None)
    (tmp_path / "speed.csv").write_text("device,speed\na,1\n")
    with pytest.raises(ValueError, match="speed.csv has other columns than this version of lc writes"):
        benchmark("cpu", folder=tmp_path)


def test_networks_in_turn_take_a_step_each(monkeypatch):
    monkeypatch.setattr(steps.FastTrainer, "capture", lambda self: trainers.append(self))
    trainers, case = [], dict(model="ResNet-8-4", frozen=True, batch=2, precision="fp32")
    alone, _ = steps._set_up(case | {"path": "graph"}, CPU)
    memory, step = steps._set_up(case | {"path": "graphs-4", "batch": 8}, CPU)
    before = [trainer.count.item() for trainer in trainers[1:]]
    step()
    assert [trainer.count.item() for trainer in trainers[1:]] == [count + 1 for count in before] and len(before) == 4
    assert memory["memory_mib"] == pytest.approx(4 * alone["memory_mib"], rel=0.1)


@pytest.mark.parametrize("speeds, options", [
    (dict(eager=1), ""), (dict(graph=100, fused=101), ""), (dict(graph=100, fused=150), "--fuse"),
    ({"graph": 100, "graphs-2": 150, "graphs-4": 170, "graphs-8": 160, "fused": 50}, "--together 4"),
    ({"graph": 100, "graphs-2": 150, "fused": 120}, "--fuse --together 2"),
])
def test_the_options_that_train_most_images_a_second(speeds, options):
    rows = pd.DataFrame([(model, False, path, speed) for model in "ab" for path, speed in speeds.items()],
                        columns=["model", "frozen", "path", "images_per_second"])
    assert table.sweep_options(rows) == options
    one_missing = rows[~((rows["model"] == "a") & (rows["path"] != "graph"))]
    assert table.sweep_options(one_missing) == ""


def test_the_command_prints_its_table_alone(tmp_path):
    command = [sys.executable, "-m", "lc", "benchmark", "--device", "cpu", "--seconds", "0", "--batch", "2", "--paths", "eager",
               "--results", str(tmp_path), "ResNet-8-4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "" and "images_per_second" in done.stdout


def test_memory_is_that_of_the_tensors_alive_at_once():
    a, b = torch.zeros(1000), torch.ones(1000)

    def step():
        c = a + b
        c.view(10, 100).mul_(2)
        return c.sum()

    assert 4000 <= peak_memory(step, CPU) < 4200
