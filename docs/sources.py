"""Lays out the sources of the site in a folder, so that relative links lead from page to page as they do in the repository.

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
TABLE_1 = ("ResNet-20-16", False), ("ResNet-LC-20-16x128", False), ("ResNet-LC-20-16x128", True)  # its columns' networks
TASKS = {"study": "Runs of the paper's experiments", "analysis": "Analysis", "claims": "Claims and verdicts",
         "findings": "Findings", "tables": "Tables", "plots": "Figures", "dots": "Figures of single values",
         "interactive": "Pages to play with"}  # of the modules that notebooks import
MARKS = {"as": "●", "contrary": "✕", "not": "○"}  # by the first word of a verdict
THUMBNAIL = 520, 260  # pixels at most, twice those of the page


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
    api.write_text(api.read_text(encoding="utf-8").replace("<!-- notebooks -->", called(notebooks)), encoding="utf-8")


def called(notebooks):
    """The functions and classes of `lc`'s modules that notebooks call, module by module, for docs/api.md."""
    cells = (cell for path in notebooks for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    lines = []
    for module, title in TASKS.items():
        functions = vars(importlib.import_module(f"lc.{module}"))
        names = sorted(set(re.findall(rf"\b{module}\.([a-z]\w*)", code)) & functions.keys())
        kinds = {name: "function" if inspect.isfunction(functions[name]) else "class" for name in names
                 if inspect.isfunction(functions[name]) or inspect.isclass(functions[name])}
        directives = "\n".join(f".. auto{kind}:: lc.{module}.{name}" for name, kind in kinds.items())
        lines += [f"**{title}: `lc.{module}`**", f"```{{eval-rst}}\n{directives}\n```"]
    return "\n\n".join(lines)


def start_page(entries, root=ROOT):
    """docs/index.md, with what the notebooks and the results say in the places that are marked there."""
    table, verdicts = results.load_table(root / "results"), claims.verdicts()
    parts = dict(
        hero=raw(interactive.filters(table).html),
        start=container("cards start", *(card(entry, verdicts) for entry in entries if entry["name"] == FIRST)),
        claims=raw(claims_map(verdicts, entries)),
        cards=container("cards", *(card(entry, verdicts) for entry in entries if entry["name"] != FIRST)),
        numbers=numbers(table))
    page = (root / "docs" / "index.md").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"<!-- {name} -->", text)
    return page


def read(path):
    """What the start page shows of a notebook.

    Returns:
        A dictionary: `name`, of the file; `title` and `place` in the paper, Markdown; `figure`, the name of the first figure
        that it saves, or None; `picture`, the first PNG in its outputs, base64, or None.

    Raises:
        ValueError: if the notebook has no title or no outputs.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    heading, _, rest = "".join(cells[0]["source"]).strip().partition("\n")
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    if not heading.startswith("# ") or not outputs:
        raise ValueError(f"{path.name} has no title or no outputs; execute it with `make notebooks`")
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    saved = re.search(r"plots\.save\(.*[\"'](\w+)[\"']\)", code)
    pictures = (output.get("data", {}).get("image/png") for output in outputs)
    return {"name": path.stem, "title": heading.removeprefix("# "), "place": re.split(r"\n\s*\n", rest.strip())[0],
            "figure": saved and saved[1], "picture": next(filter(None, pictures), None)}


def thumbnail(entry, root=ROOT):
    """A small picture of the notebook's first figure, on white."""
    figure, picture = entry["figure"], entry["picture"]
    source = root / "figures" / f"{figure}.png" if figure else io.BytesIO(base64.b64decode(picture))
    with Image.open(source) as image:
        small = image.convert("RGBA")
    small.thumbnail(THUMBNAIL)
    paper_white = Image.new("RGBA", small.size, "white")
    paper_white.alpha_composite(small)
    return paper_white.convert("RGB")


def card(entry, verdicts):
    """A notebook's card: its figure, its title, its place in the paper, and how many of its claims have which verdict."""
    page = f"notebooks/{entry['name']}.ipynb"
    said = verdicts.loc[verdicts["notebook"] == entry["name"][:2], "verdict"].value_counts()
    counts = ", ".join(f"{MARKS.get(verdict.split()[0], '○')} {count} {verdict}"
                       for verdict, count in said.items())
    place = re.sub(r"\s+", " ", entry["place"])
    picture = f"[![{entry['title']}](thumbnails/{entry['name']}.png)]({page})"
    text = picture, f"**[{entry['title']}]({page})**", place, counts
    return container("card", *filter(None, text), colons=4)


def claims_map(verdicts, entries):
    """The claims in the order of their numbers, each a mark with its verdict that leads to its notebook."""
    pages = {entry["name"][:2]: f"notebooks/{entry['name']}.html" for entry in entries}
    counts = verdicts["verdict"].value_counts().sort_index()
    legend = " &nbsp; ".join(f'<span class="{verdict.split()[0]}">{MARKS.get(verdict.split()[0], "○")} {count} '
                             f'{escape(verdict)}</span>' for verdict, count in counts.items())
    lines = [f'<li><a class="{row.verdict.split()[0]}" href="{pages[row.notebook]}" title="{escape(row.verdict)}">'
             f'<span>{MARKS.get(row.verdict.split()[0], "○")}</span> {row.number}&ensp;{escape(row.title)}</a></li>'
             for row in verdicts.itertuples()]
    return f'<p class="legend">{legend}</p>\n<ul class="claims">\n' + "\n".join(lines) + "\n</ul>"


def numbers(rows):
    """What the rows are, as Markdown: accuracies with the paper's recipe, and a table of recipes from the longest down."""
    said = []
    for (dataset, model, frozen), part in rows[rows["profile"] == "paper"].groupby(["dataset", "model", "frozen"]):
        if dataset in paper.TABLE_1 and (model, frozen) in TABLE_1:
            published = paper.TABLE_1[dataset][TABLE_1.index((model, frozen))]
            said.append(f"- {model}{' with frozen random filters' * frozen} reaches {part['accuracy'].mean():.2f} % on "
                        f"{dataset} with the paper's recipe (n = {len(part)}). The paper prints {published}.")
    recipes = rows.groupby(["profile", "epochs", "train_images", "device"])
    lines = [f"| `{profile}` | {len(part)} | {epochs} | {images:,} | {part['seed'].nunique()} | "
             f"{', '.join(sorted(set(part['dataset'])))} | {device} |"
             for (profile, epochs, images, device), part
             in sorted(recipes, key=lambda recipe: -recipe[0][1] * recipe[0][2])]
    head = ["| profile | runs | epochs | training images | seeds | data sets | device |", "|---|---:|---:|---:|---:|---|---|"]
    return "\n".join([*said, "", *head, *lines])


def container(name, *parts, colons=5):
    """Markdown in a `div` of this class."""
    fence = ":" * colons
    return "\n\n".join([f"{fence}{{container}} {name}", *parts, fence])


def raw(html):
    return f"`````{{raw}} html\n{html}\n`````"


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
