"""Lays out the sources of the site in a folder, in which relative links lead to the same pages.

The start page is written here, from the results and from what the notebooks have stored.
"""

import base64
import importlib
import inspect
import io
import json
import re
import shutil
import sys
from html import escape
from pathlib import Path

from PIL import Image

from lc import claims, interactive, paper, results

ROOT = Path(__file__).parents[1]
FIRST = "17_your_own_network"  # the notebook to begin with
# The networks of Table 1's columns
TABLE_1 = (("ResNet-20-16", False), ("ResNet-LC-20-16x128", False), ("ResNet-LC-20-16x128", True))
# The modules that notebooks import
TASKS = {"study": "Runs of the paper's experiments", "analysis": "Analysis",
         "claims": "Claims and verdicts", "findings": "Findings", "tables": "Tables",
         "plots": "Figures", "dots": "Figures of single values",
         "interactive": "Pages to play with"}
MARKS = {"as": "●", "contrary": "✕"}  # by the first word of a verdict; the others have a circle
THUMBNAIL = 520, 260  # pixels at most, twice those of the page


def marked(verdict):
    """The class of a verdict, and its mark."""
    kind = verdict.split()[0]
    return kind, MARKS.get(kind, "○")


def lay_out(target, root=ROOT):
    """Copies what pages are made of, and what they link to, and writes the start page."""
    shutil.rmtree(target, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pdf", ".*")
    for folder in ("docs", "figures", "lc", "scripts"):
        shutil.copytree(root / folder, target / folder, ignore=unwanted)
    (target / "notebooks").mkdir()
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    files = ("README.md", "CITATION.cff", "LICENSE", "environment.yml", "Dockerfile")
    for path in [*notebooks, *(root / name for name in files)]:
        shutil.copy2(path, target / path.relative_to(root))
    (target / "thumbnails").mkdir()
    entries = [read(path) for path in notebooks]
    for entry in entries:
        thumbnail(entry, root).save(target / "thumbnails" / f"{entry['name']}.png")
    (target / "index.md").write_text(start_page(entries, root), encoding="utf-8")
    api = target / "docs" / "api.md"
    text = api.read_text(encoding="utf-8").replace("<!-- notebooks -->", called(notebooks))
    api.write_text(text, encoding="utf-8")


def called(notebooks):
    """The functions of `lc` that notebooks call, module by module, for docs/api.md."""
    code = "\n".join(code_of(path) for path in notebooks)
    lines = []
    for module, title in TASKS.items():
        functions = dict(inspect.getmembers(importlib.import_module(f"lc.{module}"),
                                            inspect.isfunction))
        names = sorted(functions.keys() & re.findall(rf"\b{module}\.([a-z]\w*)", code))
        directives = [f".. autofunction:: lc.{module}.{name}" for name in names]
        lines += [f"**{title}: `lc.{module}`**",
                  "\n".join(["```{eval-rst}", *directives, "```"])]
    return "\n\n".join(lines)


def code_of(path):
    """The code of a notebook, all of its cells."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def start_page(entries, root=ROOT):
    """docs/index.md, with what the notebooks and the results say in its marked places."""
    table, verdicts = results.load_table(root / "results"), claims.verdicts()
    cards = {entry["name"]: card(entry, verdicts) for entry in entries}
    first = cards.pop(FIRST)
    parts = dict(hero=raw(interactive.filters(table).html), start=container("cards start", first),
                 claims=raw(claims_map(verdicts, entries)),
                 cards=container("cards", *cards.values()), numbers=numbers(table))
    page = (root / "docs" / "index.md").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"<!-- {name} -->", text)
    return page


def read(path):
    """What the start page shows of a notebook. Raises ValueError without a title or outputs.

    Returns:
        A dictionary: `name`, of the file; `title` and `place` in the paper, Markdown; `figure`, the
        name of the first figure that it saves, or None; `picture`, its first PNG, base64, or None.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    heading, _, rest = "".join(cells[0]["source"]).strip().partition("\n")
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    if not heading.startswith("# ") or not outputs:
        raise ValueError(f"{path.name} has no title or no outputs; execute it with "
                         "`make notebooks`")
    saved = re.search(r"plots\.save\(.*[\"'](\w+)[\"']\)", code_of(path))
    pictures = (output.get("data", {}).get("image/png") for output in outputs)
    return dict(name=path.stem, title=heading.removeprefix("# "),
                place=re.split(r"\n\s*\n", rest.strip())[0],
                figure=saved and saved[1], picture=next(filter(None, pictures), None))


def thumbnail(entry, root=ROOT):
    """A small picture of the notebook's first figure, on white."""
    if entry["figure"]:
        source = root / "figures" / f"{entry['figure']}.png"
    else:
        source = io.BytesIO(base64.b64decode(entry["picture"]))
    with Image.open(source) as image:
        small = image.convert("RGBA")
    small.thumbnail(THUMBNAIL)
    paper_white = Image.new("RGBA", small.size, "white")
    paper_white.alpha_composite(small)
    return paper_white.convert("RGB")


def card(entry, verdicts):
    """A notebook's card: its figure, title and place in the paper, and its claims' verdicts."""
    page = f"notebooks/{entry['name']}.ipynb"
    said = verdicts.loc[verdicts["notebook"] == entry["name"][:2], "verdict"].value_counts()
    counts = ", ".join(f"{marked(verdict)[1]} {count} {verdict}" for verdict, count in said.items())
    place = re.sub(r"\s+", " ", entry["place"])
    picture = f"[![{entry['title']}](thumbnails/{entry['name']}.png)]({page})"
    text = picture, f"**[{entry['title']}]({page})**", place, counts
    return container("card", *filter(None, text), colons=4)


def claims_map(verdicts, entries):
    """The claims in their order, each a mark with its verdict that leads to its notebook.

    Verdicts of one seed, which show the direction only, are faint.
    """
    pages = {entry["name"][:2]: f"notebooks/{entry['name']}.html" for entry in entries}
    legend, lines = [], []
    for verdict, count in verdicts["verdict"].value_counts().sort_index().items():
        kind, mark = marked(verdict)
        legend.append(f'<span class="{kind}">{mark} {count} {escape(verdict)}</span>')
    for row in verdicts.itertuples():
        kind, mark = marked(row.verdict)
        kind += " faint" * (row.verdict != claims.UNDECIDED and row.n == 1)
        lines.append(f'<li><a class="{kind}" href="{pages[row.notebook]}" '
                     f'title="{escape(claims.verdict_text(row))}"><span>{mark}</span> '
                     f"{row.number}&ensp;{escape(row.title)}</a></li>")
    legend.append("faint: one seed, direction only")
    return "\n".join([f'<p class="legend">{" &nbsp; ".join(legend)}</p>', '<ul class="claims">',
                      *lines, "</ul>"])


def numbers(rows):
    """Markdown: accuracies with the paper's recipe; a table of all recipes, the longest first."""
    lines = []
    papers = rows[rows["profile"] == "paper"].groupby(["dataset", "model", "frozen"])
    for (dataset, model, frozen), part in papers:
        if dataset in paper.TABLE_1 and (model, frozen) in TABLE_1:
            published = paper.TABLE_1[dataset][TABLE_1.index((model, frozen))]
            network = model + " with frozen random filters" * frozen
            lines.append(f"- {network} reaches {part['accuracy'].mean():.2f} % on {dataset} with "
                         f"the paper's recipe (n = {len(part)}). The paper prints {published}.")
    lines += ["", "| profile | runs | epochs | training images | seeds | data sets | device |",
              "|---|---:|---:|---:|---:|---|---|"]
    recipes = rows.groupby(["profile", "epochs", "train_images", "device"])
    for recipe, part in sorted(recipes, key=lambda item: -item[0][1] * item[0][2]):
        profile, epochs, images, device = recipe
        datasets = ", ".join(sorted(set(part["dataset"])))
        lines.append(f"| `{profile}` | {len(part)} | {epochs} | {images:,} | "
                     f"{part['seed'].nunique()} | {datasets} | {device} |")
    return "\n".join(lines)


def container(name, *parts, colons=5):
    """Markdown in a `div` of this class."""
    fence = ":" * colons
    return "\n\n".join([f"{fence}{{container}} {name}", *parts, fence])


def raw(html):
    return f"`````{{raw}} html\n{html}\n`````"


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
