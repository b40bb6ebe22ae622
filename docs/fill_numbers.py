"""Writes what README.md and the guides take from the results: part of `make notebooks`.

It also writes the project's address, `Repository` in the `[project.urls]` of pyproject.toml, there
and into CITATION.cff. Without one, they say what to do in a copy of the project's folder.

Both stand between two comments, such as `<!-- speeds -->` and `<!-- end -->`, which no page shows.
A line that began with a comment would end its paragraph.
"""

import re
import tomllib
from functools import cache
from textwrap import fill

import pandas as pd

from lc import claims, results
from lc.benchmark import table
from lc.claims.verdict import AS_IN_PAPER, CONTRARY, UNDECIDED
from lc.names import architecture
from lc.paper import TABLE_1
from lc.tables import span
from lc.utils.files import ROOT

PAGES = [ROOT / name for name in ("README.md", "docs/commands.md", "docs/gpu_server.md",
                                  "docs/index.md", "docs/performance.md")]
SENTENCES = "accuracies", "structure", "decay", "speeds", "times"
CITATION = ROOT / "CITATION.cff"
FIRST = "notebooks/17_your_own_network.ipynb"
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})


def accuracies():
    """Three runs of the paper's recipe, of seed 0, beside its Table 1."""
    rows = results.load_rows(ROOT / "results")
    runs = "ResNet-20-16/learnable", "ResNet-LC-20-16x128/learnable", "ResNet-LC-20-16x128/frozen"
    ours = (rows[f"cifar10/{run}/paper/seed0"]["accuracy"] for run in runs)
    numbers = (number for pair in zip(ours, TABLE_1["cifar10"]) for number in pair)
    return ("ResNet-20-16 reaches {:.2f} % (paper: {}), and ResNet-LC-20-16x128 learnable {:.2f} % "
            "({}), frozen {:.2f} % ({}).".format(*numbers))


def mean_accuracies(*networks):
    """Mean accuracies on CIFAR-10 over the seeds that all networks have, and how many these are.

    Args:
        networks: each `(model, frozen, profile)`.
    """
    rows = results.load_table(ROOT / "results")
    rows = rows[rows["dataset"] == "cifar10"]
    by_seed = rows.pivot_table("accuracy", "seed", ["model", "frozen", "profile"])
    by_seed = by_seed[list(networks)].dropna()
    return *by_seed.mean(), len(by_seed)


def structure():
    """What structured random filters change, where kernels are large."""
    model = "ResNet-LC-8-16x8-k7"
    means = mean_accuracies(*((model + initial, True, "short")
                              for initial in ("", "~covariance", "~shuffled")),
                            (model, False, "short"))
    return ("frozen ResNet-LC-8-16x8 with 7x7 filters reaches {:.1f} %, or {:.1f} % if "
            "neighbouring weights are correlated and the centre varies most. Shuffled "
            "positions give {:.1f} %; learnable: {:.1f} % ({} seeds)".format(*means))


def decay():
    """What a tenth of the decay changes, and decay of the combined filters, not their factors."""
    ours, plain = "ResNet-LC-20-16x8", "ResNet-20-16"
    short = mean_accuracies((ours, False, "short"), (ours, False, "short-decay1e-3"),
                            (ours, False, "short-decay-product"), (plain, False, "short"))
    longer = mean_accuracies((ours, False, "paper"), (ours, False, "paper-decay1e-3"),
                             (plain, False, "paper"))
    return ("ResNet-LC-20-16x8 reaches {:.1f} %, a tenth of the decay gives {:.1f} %, and decay of "
            "the combined filters {:.1f} %; plain: {:.1f} % ({} seeds). After 75 epochs, a tenth "
            "changes {:.1f} % to {:.1f} %; plain: {:.1f} % (n = {})".format(*short, *longer))


@cache  # it takes seconds
def verdicts():
    """How many claims are decided, and how."""
    rows = claims.verdicts()
    counts = [((rows["verdict"] == said) & ((rows["n"] == 1) == one_seed)).sum()
              for one_seed in (False, True) for said in (AS_IN_PAPER, CONTRARY)]
    return ("several seeds: {} as in the paper, {} contrary; one seed, direction only: {} and {}; "
            "{} not decided; {} survive Holm's correction".format(
                *counts, (rows["verdict"] == UNDECIDED).sum(), rows["holm"].sum()))


def on_a_core():
    """The minutes that runs took on a CPU core, by profile and kind of network."""
    rows = results.load_table(ROOT / "results")
    rows = rows[rows["device"].str.endswith("CPU, 1 threads")]
    return pd.DataFrame({
        "profile": rows["profile"].str.split("-").str[0], "minutes": rows["seconds"] / 60,
        "network": [kind(*each) for each in zip(rows["dataset"], rows["model"])]})


def kind(dataset, model):
    """A name for networks that take about as long."""
    if dataset.startswith("tiny-imagenet"):
        return "Tiny-ImageNet"
    depth, width, expansion, kernel, *_ = architecture(model)
    parts = {f"ResNet-{depth}-{width}" if depth else f"{model} (off the shelf)": True,
             f"{kernel} × {kernel} filters": kernel > 3,
             "E = 32 or more": expansion >= 32 and depth > 8}
    return ", ".join(text for text, named in parts.items() if named)


def times():
    """The least and the most minutes of the profiles' runs, but for Tiny-ImageNet."""
    runs = on_a_core()
    runs = runs[runs["network"] != "Tiny-ImageNet"].groupby("profile")["minutes"]
    paper, short, quick = (span(runs.get_group(profile), digits) for profile, digits in (
        ("paper", 0), ("short", 0), ("quick", 1)))
    return (f"{paper} minutes in the profile `paper` (75 epochs), {short} minutes in `short` (15 "
            f"epochs), {quick} minutes in `quick`, and seconds in `smoke`")


def minutes():
    """A table of what `short` runs took by network, the quickest first."""
    runs = on_a_core()
    short = runs[runs["profile"] == "short"].groupby("network")["minutes"]
    lines = [f"| {name} | {span(short.get_group(name), 0)} | {short.size()[name]} |"
             for name in short.median().sort_values().index]
    return "\n".join(["", "", "| network | minutes | runs |", "|---|---:|---:|", *lines, "", ""])


def speeds():
    """A step of the plain network on two CPU cores, and of frozen LC networks."""
    rows = table.with_ratios(table.load_table(ROOT / "results"))
    rows = rows[rows["device"].str.endswith("CPU, 2 threads") & (rows["path"] == "eager")]
    rows = rows.set_index(["model", "frozen"])
    plain = rows.loc["ResNet-20-16", False]
    ours = rows.loc[[(f"ResNet-LC-20-16x{e}", True) for e in (1, 8, 128)]]
    return (
        "on two CPU cores with bf16 instructions, ResNet-20-16 at batch 256 takes "
        f"{plain['images_per_second']:.0f} images/s, {plain['of_loop']:.1f} times the "
        "conventional loop; with frozen LC-Blocks {:.0f} (x1), {:.0f} (x8) and {:.0f} (x128), "
        "with {:.1f}, {:.1f} and {:.1f} times the plain network's memory. That is {:.1f}, {:.0f} "
        "and {:.0f} times as many images/s as through the expanded features.".format(
            *ours["images_per_second"], *ours["memory_of_plain"], *ours["of_unfolded"]))


def copy(address):
    """How one gets the project."""
    if not address:
        return "In your copy of the project (`cd` into it):"
    return f"`git clone {address} && cd {address.rpartition('/')[2]}`, and there:"


def launch(address):
    """How one opens a notebook without installing anything, if the address is one of GitHub."""
    name = (address or "").partition("://github.com/")[2]
    if not name:
        return ""
    return (f" [Colab](https://colab.research.google.com/github/{name}/blob/main/{FIRST}) and "
            f"[Binder](https://mybinder.org/v2/gh/{name}/main?labpath={FIRST}) open notebooks in "
            f"the browser. In Colab, first run `!git clone -q {address} lc-companion && pip "
            "install -q ./lc-companion` and `%env LC_RESULTS_DIR=lc-companion/results` in a cell.")


def cited(text, address=URLS.get("Repository")):
    """CITATION.cff with the address, or without any."""
    text = re.sub(r"repository-code: .*\n", "", text)
    if address:
        text = text.replace("license: MIT\n", f'license: MIT\nrepository-code: "{address}"\n')
    return text


def filled(text, address=URLS.get("Repository")):
    """A page with all its numbers and the address written anew."""
    known = {"accuracies": accuracies, "structure": structure, "decay": decay,
             "verdicts": verdicts, "speeds": speeds, "times": times, "minutes": minutes,
             "copy": lambda: copy(address), "launch": lambda: launch(address)}

    def new(found):
        words, end = known[found[2]](), found[3]
        if found[2] in SENTENCES:  # in lines of at most 100 columns, comments included
            before = "x" * (found.end(1) - text.rfind("\n", 0, found.start()) - 1)
            words = fill(before + words + "x" * len(end), 100, break_long_words=False,
                         break_on_hyphens=False)[len(before):-len(end)]
        return found[1] + words + end

    return re.sub(rf"(<!-- ({'|'.join(known)}) -->).*?(<!-- end -->[.]?)", new, text, flags=re.DOTALL)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
    CITATION.write_text(cited(CITATION.read_text()))
