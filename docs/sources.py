"""Lays out the sources of the site in a folder, so that relative links lead from page to page as they do in the repository.

The start page is written here: its claims, figures and verdicts are what the notebooks have stored.
"""

import json
import re
import shutil
import sys
from html import escape
from pathlib import Path

from PIL import Image

from lc import paper, results

ROOT = Path(__file__).parents[1]
TABLE_1 = ("ResNet-20-16", False), ("ResNet-LC-20-16x128", False), ("ResNet-LC-20-16x128", True)  # the networks of its columns
SCALE = 0.42  # of a figure's pixels to those of the page, so that all figures have one size of text


def lay_out(target, root=ROOT):
    """Copies what pages are made of, and what they link to, and writes the start page."""
    shutil.rmtree(target, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pdf", ".*")
    for folder in ("docs", "figures", "lc", "scripts"):
        shutil.copytree(root / folder, target / folder, ignore=unwanted)
    (target / "notebooks").mkdir()
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    for path in [*notebooks, *(root / name for name in ("README.md", "CITATION.cff", "LICENSE", "environment.yml", "Dockerfile"))]:
        shutil.copy2(path, target / path.relative_to(root))
    (target / "index.md").write_text(start_page(notebooks, root), encoding="utf-8")


def start_page(notebooks, root=ROOT):
    """docs/index.md, with the notebooks' own words in the places that are marked there."""
    entries = [read(path) for path in notebooks]
    page = (root / "docs" / "index.md").read_text(encoding="utf-8")
    page = page.replace("<!-- numbers -->", numbers(results.load_table(root / "results")))
    return page.replace("<!-- figures -->", "\n\n".join(map(section, entries)))


def read(path):
    """What the start page shows of a notebook, as a dictionary of Markdown.

    Raises:
        ValueError: if the notebook has no title or no outputs.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    heading, _, rest = "".join(cells[0]["source"]).strip().partition("\n")
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    if not heading.startswith("# ") or not outputs:
        raise ValueError(f"{path.name} has no title or no outputs; execute it with `make notebooks`")
    place, *claim = [part for part in re.split(r"\n\s*\n", rest.strip()) if not part.startswith("#")]
    listed = [part for part in claim if re.match(r"(1\.|-) ", part)]  # a list of claims stands for the text around it
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return {
        "name": path.stem,
        "title": heading.removeprefix("# "),
        "place": place,
        "claim": re.sub(r"\]\((?=\w+\.ipynb)", "](notebooks/", "\n\n".join(listed or claim)),
        "figures": re.findall(r"plots\.save\(.*[\"'](\w+)[\"']\)", code),
        "printed": "".join(text(output) for output in outputs if output["output_type"] == "stream"),
        "verdicts": [table for output in outputs for table in tables(output) if re.search(r"<th[^>]*>\s*verdict", table, re.I)],
    }


def text(output):
    return "".join(output["text"]).rstrip("\n") + "\n"


def tables(output):
    return re.findall(r"<table.*?</table>", "".join(output.get("data", {}).get("text/html", "")), re.DOTALL)


def section(entry):
    """A notebook's place on the start page: title, figures, and the paper's claims with the verdicts on them."""
    figures = "\n\n".join(f"[![{name.replace('_', ' ').capitalize()}](figures/{name}.png){{width={width(name)}px}}]"
                          f"(notebooks/{entry['name']}.ipynb)" for name in entry["figures"])
    claim = "" if judged(entry) else f"**What the paper claims**\n\n{entry['claim']}\n"
    return f"""## [{entry["title"]}](notebooks/{entry["name"]}.ipynb)

{entry["place"]}

{claim}
{figures}

{verdict(entry)}"""


def width(name):
    """The width of a figure on the page, in pixels."""
    with Image.open(ROOT / "figures" / f"{name}.png") as image:
        return round(SCALE * image.width)


def judged(entry):
    """The claims that a notebook has printed, each with its effect and its verdict."""
    return re.findall(r"^(Claim \d+ .*)\n(?:Statistic: .*\n)?Verdict: (.*): (.*)\.$", entry["printed"], re.MULTILINE)


def verdict(entry):
    """What the notebook has found: its claims and their verdicts, else other verdicts, else which rows it has."""
    if judged(entry):
        return "\n".join(f'<p class="verdict {result.split()[0]}">{escape(claim)}<br><b>{escape(result.capitalize())}</b>: '
                         f'{escape(effect)}.</p>' for claim, effect, result in judged(entry))
    printed = entry["printed"].splitlines()
    lines = [line for line in printed if line.startswith("Verdict")]
    if not lines and entry["verdicts"]:
        return f'<div class="verdict">{entry["verdicts"][-1]}</div>'
    lines = lines or [line for line in printed if line.startswith("Profile ")][:1] or printed[-1:]
    return "\n".join(f'<p class="verdict">{escape(line)}</p>' for line in lines)


def numbers(rows):
    """What the rows are, as Markdown: accuracies with the paper's recipe, and a table of recipes from the longest down."""
    said = []
    for (dataset, model, frozen), part in rows[rows["profile"] == "paper"].groupby(["dataset", "model", "frozen"]):
        if dataset in paper.TABLE_1 and (model, frozen) in TABLE_1:
            published = paper.TABLE_1[dataset][TABLE_1.index((model, frozen))]
            said.append(f"- {model}{' with frozen random filters' * frozen} reaches {part['accuracy'].mean():.2f} % on {dataset} "
                        f"with the paper's recipe (n = {len(part)}). The paper prints {published}.")
    recipes = rows.groupby(["profile", "epochs", "train_images", "device"])
    lines = [f"| `{profile}` | {len(part)} | {epochs} | {images:,} | {part['seed'].nunique()} | "
             f"{', '.join(sorted(set(part['dataset'])))} | {device} |"
             for (profile, epochs, images, device), part in sorted(recipes, key=lambda recipe: -recipe[0][1] * recipe[0][2])]
    head = ["| profile | runs | epochs | training images | seeds | data sets | device |", "|---|---:|---:|---:|---:|---|---|"]
    return "\n".join([*said, "", *head, *lines])


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
