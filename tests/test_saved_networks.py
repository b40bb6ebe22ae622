"""Trained networks as files: what is loaded is what was trained."""

import json
from dataclasses import replace

import pytest
import torch
from helpers import TINY, After, result, short_run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lc
from lc import fast, imagenet, networks, results, study
from lc.__main__ import main
from lc.data import to_unit
from lc.sweep import workers

TRAIN = "train ResNet-LC-8-8x2 --dataset digits --profile smoke --frozen --device cpu".split()
SWEEP = "sweep figure4 --profile smoke --device cpu".split()


@pytest.fixture
def made_up():
    """The result of a run that `TRAIN` names."""
    network = lc.freeze_spatial(lc.build_model("ResNet-LC-8-8x2", in_channels=1))
    return result(network=network, classes=tuple("0123456789"), mean=(0.5,), std=(0.5,))


def blocks(network):
    return sum(isinstance(module, lc.LCBlock) for module in network.modules())


def metadata(path):
    with safe_open(path, "pt") as f:
        return f.metadata()


@pytest.mark.parametrize("between", ["", "+BN", "+ReLU"])
def test_a_loaded_network_is_the_trained_one(between, tmp_path):
    run = replace(short_run(f"ResNet-LC-8-4x2{between}"), recipe=TINY)
    trained = lc.train(run, device="cpu", progress=False)
    data = lc.load_data("digits")
    images, labels = to_unit(data.x_test[:16]), data.y_test[:16]
    for unfolded in (False, True):
        lc.save_network(trained, tmp_path / "n.safetensors", unfolded)
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        network = lc.load_network(tmp_path / "n.safetensors")
        assert torch.equal(torch.rand(3), expected)
        assert not any(module.training for module in network.modules())
        assert lc.accuracy(network, images, labels) == trained.accuracy
        assert lc.fgsm_accuracy(network, images, labels) == trained.robust_accuracy
        filters = [lc.combined_filters(each).values() for each in (network, trained.network)]
        assert all(torch.equal(a, b) for a, b in zip(*filters, strict=True))
        assert blocks(network) == (7 if unfolded or between == "+ReLU" else 0)
        if unfolded:
            learned, theirs = ([p.requires_grad for p in each.parameters()]
                               for each in (network, trained.network))
            assert learned == theirs
        assert network.classes == data.classes
        assert (network.row["id"], network.row["accuracy"]) == (trained.id, trained.accuracy)
        assert json.loads(metadata(tmp_path / "n.safetensors")["run"],
                          parse_constant=pytest.fail) == network.row
    exported = torch.export.export(network, (images,)).module()  # as torch.onnx.export begins
    assert exported(images).shape == (16, 10)


def test_an_imagenet_network_is_timms_though_another_has_its_name(tmp_path):
    network = lc.fold(imagenet.build_imagenet_model("ResNet-18", 4)).eval()
    trained = result(model="ResNet-18", accuracy_top5=90.0, network=network, classes="abcd",
                     mean=(0.5,) * 3, std=(0.2,) * 3)
    lc.save_network(trained, tmp_path / "n.safetensors")
    loaded, images = lc.load_network(tmp_path / "n.safetensors"), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), network((images - 0.5) / 0.2))


def test_an_interrupted_run_saves_the_same_network(store, tmp_path, monkeypatch):
    run, options = replace(short_run(), recipe=TINY), dict(save=tmp_path, device="cpu")
    study.train_missing([run], **options)
    saved = load_file(tmp_path / f"{run.id}.safetensors")
    monkeypatch.setenv("LC_RESULTS_DIR", str(tmp_path / "parts"))
    study.train_missing([run], stop=After(4), **options)
    assert run.id not in results.load_rows()
    study.train_missing([run], **options)
    assert run.id in results.load_rows()
    again = load_file(tmp_path / f"{run.id}.safetensors")
    torch.testing.assert_close(again, saved, rtol=0, atol=0)


def test_the_commands_save(made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fast, "train", lambda *_, **__: made_up)
    file, folder = tmp_path / "n.safetensors", ["--results", str(tmp_path)]
    main([*TRAIN, *folder, "--save", str(file)])
    assert lc.load_network(file).row["id"] == made_up.id and not blocks(lc.load_network(file))
    with pytest.raises(SystemExit, match="n.safetensors exists already; name another file"):
        main([*TRAIN, "--seed", "1", *folder, "--save", str(file)])
    main([*TRAIN, "--again", *folder, "--save", str(file), "--unfolded"])
    assert blocks(lc.load_network(file)) == 7

    started = []
    monkeypatch.setattr(study, "train_missing", lambda *_, **options: started.append(options) or [])
    main([*SWEEP, *folder, "--save", str(tmp_path), "--unfolded"])
    assert (started[0]["save"], started[0]["unfolded"]) == (str(tmp_path), True)


@pytest.mark.parametrize("command, place, said", [
    (TRAIN, "missing/n.safetensors", "no network can be saved in .*missing .*; make the folder"),
    (TRAIN, ".", "exists already; name another file"),
    (TRAIN, "file/n.safetensors", "no network can be saved in .*file"),
    (SWEEP, "missing", "no network can be saved in .*missing"),
    ([*SWEEP, "--workers", "2"], "file", "no network can be saved in .*file"),
])
def test_a_place_that_cannot_be_written_is_said_before_any_training(command, place, said, tmp_path,
                                                                    monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(fast, "train", lambda *_, **__: pytest.fail("it trains"))
    monkeypatch.setattr(study, "stepwise_run", lambda *_, **__: pytest.fail("it trains"))
    monkeypatch.setattr(workers, "_train_with", lambda *_: pytest.fail("it starts a worker"))
    with pytest.raises(SystemExit, match=said):
        main([*command, "--results", str(tmp_path / "results"), "--save", str(tmp_path / place)])


@pytest.mark.parametrize("spoil", [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b"no safetensors"),
    lambda path: path.write_bytes(path.read_bytes()[:-9]),
    lambda path: save_file(load_file(path), path),
    lambda path: save_file(load_file(path), path, {"format": networks.FORMAT}),
    lambda path: save_file(load_file(path), path, metadata(path) | {"run": "[]", "classes": "[]"}),
    lambda path: save_file({name: tensor for name, tensor in load_file(path).items()
                            if "fc" not in name}, path, metadata(path)),
    lambda path: save_file({name: tensor[:1] for name, tensor in load_file(path).items()
                            if tensor.ndim}, path, metadata(path)),
])
def test_a_file_that_is_not_a_saved_network_is_said_in_one_line(spoil, made_up, tmp_path):
    path = tmp_path / "n.safetensors"
    lc.save_network(made_up, path)
    assert lc.load_network(path)
    spoil(path)
    with pytest.raises(ValueError, match="n.safetensors is no network that lc can load") as caught:
        lc.load_network(path)
    assert "\n" not in str(caught.value)
