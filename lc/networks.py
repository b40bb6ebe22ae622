"""Trained networks as safetensors files, with their row of the results in the metadata."""

import json
import tempfile
from collections import OrderedDict

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .blocks import fold
from .conversion import freeze_spatial
from .evaluate import Normalize
from .imagenet.networks import build_imagenet_model
from .models import build_model
from .run import Result
from .utils import check
from .utils.check import one_line
from .utils.files import check_replaceable, expanded, replacing

FORMAT = "a network of lc, version 1"


def save_network(result, file, unfolded=False):
    """Writes the network of a `Result` as a safetensors file, which replaces an earlier one.

    It normalises images itself. Its metadata are the run's row and the classes, as JSON.

    Args:
        result: of `lc.train`.
        unfolded: keep the LC-Blocks, with E times as many filters. Of an ImageNet run, only the
            folded network is known.

    Raises:
        ValueError: if `result` is no `Result`.
        OSError: if the file cannot be written. An earlier one is then unchanged.
    """
    check.kind("result", result, Result, "what lc.train returns")
    network = result.network if unfolded else fold(result.network)
    network = _with_normalization(result.mean, result.std, network)
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
               for name, value in network.state_dict().items()}
    row = {column: None if pd.isna(value) else value for column, value in result.row().items()}
    metadata = {"format": FORMAT, "run": json.dumps(row), "classes": json.dumps(result.classes)}
    with replacing(file) as f:
        f.write(save(tensors, metadata))


def load_network(file):
    """The network of a file that `save_network` wrote, on the CPU and in evaluation mode.

    It takes images `[batch, c, h, w]` in [0, 1] to logits. Its attribute `row` is the run's row of
    `results/runs.csv`, `classes` a tuple of names. An unfolded network is frozen as in training.

    Raises:
        ValueError: if the file is missing, damaged, or not of `save_network`.
    """
    try:
        with safe_open(expanded(file), "pt") as f:
            metadata = f.metadata() or {}
            # copies, since the mapped file may change
            tensors = {name: f.get_tensor(name).clone() for name in f.keys()}
        if metadata.get("format") != FORMAT:
            raise ValueError("its metadata do not say that lc saved it")
        row, classes = json.loads(metadata["run"]), tuple(json.loads(metadata["classes"]))
        mean, std = (tensors[f"normalize.{name}"].flatten().tolist() for name in ("mean", "std"))
        with torch.device("meta"):  # draws no weights, and so none of the caller's random numbers
            if row["accuracy_top5"] is None:
                network = build_model(row["model"], len(classes), len(mean))
            else:  # an ImageNet run, some of whose networks have the names of others
                network = build_imagenet_model(row["model"], len(classes))
            if row["frozen"]:
                freeze_spatial(network)
        network = _with_normalization(mean, std, network)
        if tensors.keys() != network.state_dict().keys():
            network = fold(network)
        network.load_state_dict(tensors, assign=True)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{file} is no network that lc can load: "
                         f"{one_line(error)[:200]}") from None
    network.row, network.classes = row, classes
    return network.eval()


def check_folder(folder):
    """Raises ValueError if no network can be saved in a folder: before hours of training."""
    try:
        with tempfile.TemporaryFile(dir=expanded(folder)):
            pass
    except OSError as error:
        raise ValueError(f"no network can be saved in {folder} ({error.strerror}); make the "
                         "folder, or name another") from None


def check_file(file, replace=False):
    """Raises ValueError if no network can be saved as a file, or it must not be replaced."""
    path = expanded(file)
    check_folder(path.parent)
    if path.is_dir() or path.exists() and not replace:
        raise ValueError(f"{file} exists already; name another file to save, or move it away")
    try:
        check_replaceable(path)
    except OSError as error:
        raise ValueError(f"no network can be saved as {file} ({error.strerror}); name another "
                         "file") from None


def _with_normalization(mean, std, network):
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network))
