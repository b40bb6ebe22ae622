"""Imports run one way: utils <- core <- fast, imagenet <- study <- sweep, publish and the like."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from lc.utils.files import ROOT

PATHS = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
         for path in sorted((ROOT / "lc").rglob("*.py"))}
LAYERS = (("utils",), ("",), ("fast", "imagenet"), ("study",),
          ("sweep", "benchmark", "publish", "claims", "interactive"))
# they know all experiments
STUDY = {f"lc.{name}" for name in ("study", "hours", "analysis", "findings", "tables", "plots",
                                   "dots", "networks")}


def room(module):
    """The folder of a module, "study" for what is built on it, "" for the core."""
    if module in STUDY:
        return "study"
    in_folder = module.count(".") == 2 or PATHS[module].stem == "__init__"
    return module.split(".")[1] if in_folder else ""


def imports(module):
    """The modules of `lc` that a module imports, anywhere in its code."""
    package = module if PATHS[module].stem == "__init__" else module.rpartition(".")[0]
    tree = ast.parse(PATHS[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            parts = parts[:len(parts) + 1 - node.level]
            base = ".".join([*parts, *filter(None, [node.module])])
            inside = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in PATHS else base for name in inside]
        else:
            continue
        yield from (name for name in names if name in PATHS)


GRAPH = {module: set(imports(module)) for module in PATHS if module != "lc"}


def layer(module):
    if module in ("lc.__main__", "lc.commands"):
        return len(LAYERS)
    return next(i for i, rooms in enumerate(LAYERS) if room(module) in rooms)


def test_the_graph_holds_what_is_known():
    assert {"lc.fast", "lc.imagenet.training", "lc.utils.device", "lc.__main__"} <= set(GRAPH)
    assert {"lc.blocks", "lc.utils.checkpoint", "lc.data"} <= GRAPH["lc.training"]
    assert "lc.training" in GRAPH["lc.fast.trainer"]
    assert "lc.imagenet.experiments" in GRAPH["lc.study"]
    assert "lc.publish.notebooks" in GRAPH["lc.commands"]  # inside of a function


@pytest.mark.parametrize("module", GRAPH)
def test_a_module_imports_from_its_own_layer_and_those_below_only(module):
    assert "lc" not in GRAPH[module]  # the public names hide in which module they are defined
    above = {other for other in GRAPH[module] if layer(other) > layer(module)}
    assert not above


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


def test_help_imports_neither_pytorch_nor_pandas():
    code = ("import sys; from lc.__main__ import parser; parser().format_help(); "
            "assert not {'torch', 'numpy', 'pandas', 'timm', 'papermill'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
