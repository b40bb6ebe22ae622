"""Imports run one way: utils <- core <- fast, imagenet <- study <- sweep, publish and the like."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name

import pytest

import lc
from lc.utils.files import ROOT

PATHS = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
         for path in sorted((ROOT / "lc").rglob("*.py"))}
LAYERS = (("utils",), ("",), ("fast", "imagenet"), ("study",),
          ("sweep", "benchmark", "publish", "claims", "interactive"), ("commands",))
# they know all experiments
STUDY = {f"lc.{name}" for name in ("study", "hours", "analysis", "findings", "tables", "plots",
                                   "dots", "networks")}


def room(module):
    """The folder of a module, "study" for what is built on it, "" for the core."""
    if module in STUDY:
        return "study"
    if module in ("lc.__main__", "lc.commands"):
        return "commands"
    in_folder = module.count(".") == 2 or PATHS[module].stem == "__init__"
    return module.split(".")[1] if in_folder else ""


def imports(module):
    """The modules of `lc` that a module imports, anywhere in its code."""
    package = module if PATHS[module].stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(PATHS[module].read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), package)
                names = [name if name in PATHS else base
                         for name in (f"{base}.{name}" for name in names)]
            yield from (name for name in names if name in PATHS)


GRAPH = {module: set(imports(module)) for module in PATHS if module != "lc"}


def test_modules_import_from_their_own_layer_and_those_below_only():
    assert {"lc.blocks", "lc.utils.checkpoint", "lc.data"} <= GRAPH["lc.training"]
    assert "lc.publish.notebooks" in GRAPH["lc.commands"]  # inside of a function
    layer = {name: i for i, rooms in enumerate(LAYERS) for name in rooms}
    for module, others in GRAPH.items():
        assert "lc" not in others  # the public names hide in which module they are defined
        assert not [each for each in others if layer[room(each)] > layer[room(module)]], module


def test_no_modules_import_each_other_and_there_are_at_most_ten_floors():
    """A module stands one floor above the highest that it imports."""
    floors = {}
    for module in TopologicalSorter(GRAPH).static_order():  # raises CycleError
        floors[module] = 1 + max((floors[other] for other in GRAPH[module]), default=0)
    assert max(floors.values()) <= 10 and floors["lc.run"] == 3


def test_no_folders_import_each_other():
    rooms = {}
    for module, others in GRAPH.items():
        if room(module):
            reached = {room(other) for other in others} - {"", room(module)}
            rooms.setdefault(room(module), set()).update(reached)
    assert list(TopologicalSorter(rooms).static_order())
    assert "imagenet" not in rooms["fast"] and "fast" not in rooms["imagenet"]


def test_neither_help_nor_importing_lc_loads_pytorch_or_pandas():
    code = ("import sys, lc; from lc.__main__ import parser; parser().format_help(); "
            "assert not {'torch', 'numpy', 'pandas', 'timm', 'papermill'} & set(sys.modules); "
            "assert lc.results.append")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert all(hasattr(lc, name) for name in lc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lc.nothing
