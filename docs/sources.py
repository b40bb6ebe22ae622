"""Lays out the sources of the site in a folder, so that relative links lead from page to page as they do in the repository.

The start page is written here: its claims, figures and verdicts are what the notebooks have stored.
"""

import json
import re
import shutil
import sys
from html import escape
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def lay_out(target, root=ROOT):
    """Copies what pages are made of, and what they link to, and writes the start page."""
    shutil.rmtree(target, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pdf", ".*")
    for folder in ("docs", "figures", "lc", "scripts"):
        shutil.copytree(root / folder, target / folder, ignore=unwanted)
    (target / "notebooks").mkdir()
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    for path in [*notebooks, *(root / name for name in ("README.md", "CITATION.cff", "LICENSE", "environment.yml"))]:
        shutil.copy2(path, target / path.relative_to(root))
    (target / "index.md").write_text(start_page(notebooks, root), encoding="utf-8")


def start_page(notebooks, root=ROOT):
    """docs/index.md, with the notebooks' own words in the places that are marked there."""
    entries = [read(path) for path in notebooks]
    profiles = dict.fromkeys(name for entry in entries for name in re.findall(r"^Profile (\w+):", entry["printed"], re.MULTILINE))
    page = (root / "docs" / "index.md").read_text(encoding="utf-8")
    page = page.replace("<!-- numbers -->", numbers(profiles, pd.read_csv(root / "results" / "runs.csv")))
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
    """A notebook's place on the start page: title, claim, figures, verdict."""
    figures = "\n\n".join(f"[![{name.replace('_', ' ').capitalize()}](figures/{name}.png)](notebooks/{entry['name']}.ipynb)"
                          for name in entry["figures"])
    return f"""## [{entry["title"]}](notebooks/{entry["name"]}.ipynb)

{entry["place"]}

**What the paper claims**

{entry["claim"]}

{figures}

{verdict(entry)}"""


def verdict(entry):
    """The verdict as the notebook shows it: its lines that begin so, else a table of verdicts, else which rows it has."""
    printed = entry["printed"].splitlines()
    lines = [line for line in printed if line.startswith("Verdict")]
    if not lines and entry["verdicts"]:
        return f'<div class="verdict">{entry["verdicts"][-1]}</div>'
    lines = lines or [line for line in printed if line.startswith("Profile ")][:1] or printed[-1:]
    return "\n".join(f'<p class="verdict">{escape(line)}</p>' for line in lines)


def numbers(profiles, rows):
    """A list of what the rows of these profiles are: an item for each recipe and device."""
    items = []
    rows = rows[rows["profile"].isin(profiles)]
    for (profile, epochs, images, device), part in rows.groupby(["profile", "epochs", "train_images", "device"]):
        seeds = part["seed"].nunique()
        items.append(f"- Profile `{profile}`: {len(part)} runs of {epochs} epochs with {images:,} images, "
                     f"{seeds} seed{'s' if seeds > 1 else ''}, on {device} ({', '.join(sorted(set(part['dataset'])))}).")
    return "\n".join(items)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
