"""A static site of the executed notebooks: a start page with a gallery of the figures, and a page for each notebook.

Nothing is executed, no page loads anything over the network, and there is no script: formulas become MathML here.
"""

import re
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from xml.etree import ElementTree

import latex2mathml.converter
import nbconvert
import nbformat
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

from .notebooks import NOTEBOOKS
from ..utils.check import one_line
from ..utils.files import ROOT

FIGURES = ROOT / "figures"
MATHML = "http://www.w3.org/1998/Math/MathML"
TABLE = re.compile("<table.*?</table>", re.DOTALL)

STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")


class Renderer(IPythonRenderer):
    """Markdown of notebooks and README to HTML: formulas to MathML, links to notebooks to links to their pages.

    A link to another file of the repository, which the site does not have, becomes its text.
    """

    def __init__(self, pages):
        super().__init__(escape=False)
        self.pages = pages

    def link(self, text, url, title=None):
        path, _, anchor = url.partition("#")
        if path and not urlsplit(url).scheme:
            path = PurePosixPath(path)
            if path.suffix != ".ipynb" or path.stem not in self.pages:
                return text
            url = f"{path.stem}.html" + (anchor and f"#{anchor}")
        return super().link(text, url, title)

    def inline_math(self, body):
        return mathml(body)

    def block_math(self, body):
        body, _, tag = body.partition(r"\tag")
        number = f"<span>({escape(tag.strip().strip('{}'))})</span>" if tag else ""
        return f'<span class="formula">{mathml(body, "block")}{number}</span>'

    def latex_environment(self, name, body):
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


def mathml(latex, display="inline"):
    """A formula as MathML.

    Raises:
        ValueError: LaTeX that latex2mathml does not know or passes through.
    """
    try:
        converted = latex2mathml.converter.convert(latex.strip(), display=display)
        text = "".join(ElementTree.fromstring(converted).itertext())
    except Exception as error:  # its exceptions have no common class
        raise ValueError(f"no MathML for the formula {latex!r}: {error!r}") from error
    if "\\" in text:
        raise ValueError(f"no MathML for the formula {latex!r}: unknown command")
    return converted.replace(f' xmlns="{MATHML}"', "")  # HTML needs no namespace, and nbconvert would make it a prefix


@dataclass(frozen=True)
class Notebook:
    """An executed notebook, by what all of them share. Its texts are Markdown."""

    name: str
    node: nbformat.NotebookNode
    title: str
    place: str  # of the paper
    claim: str
    figures: list  # names of those that it saves
    profile: str  # the line that says which rows it shows, the first if there are several; empty if it shows none
    heading: str  # of the last section ...
    prose: str  # ... what it says ...
    outputs: str  # ... and what it shows, as HTML: tables and printed lines


def read(path):
    """Read an executed notebook.

    Raises:
        ValueError: a file that is no notebook; a notebook with a cell that was not executed or failed, without any output, or
            without a title; a figure that it saves and that is not there.
    """
    try:
        node = nbformat.read(path, as_version=4)
    except (nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise ValueError(f"{path.name} is no notebook ({one_line(error)[:80]})") from None
    code = [cell for cell in node.cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in code for output in cell.outputs]
    executed = outputs and all(cell.execution_count for cell in code)
    if not executed or any(output.output_type == "error" for output in outputs):
        raise ValueError(f"{path.name} has no outputs, or not all: execute it first (make notebooks)")
    title, place, claim = first_cell(node.cells[0].source)
    if not title:
        raise ValueError(f"{path.name} does not begin with its title")
    for cell in code:
        cell.metadata["alt"] = ", ".join(map(caption, saved(cell))) or title  # of the cell's images
    figures = [name for cell in code for name in saved(cell)]
    for name in figures:
        if not (FIGURES / f"{name}.png").exists():
            raise ValueError(f"{path.name} saves {name}.png, which {FIGURES.name}/ does not have: execute it again")
    printed = "\n".join(output.text for output in outputs if output.output_type == "stream")
    profile = re.search(r"^Profile \w+: .*$", printed, re.MULTILINE)
    return Notebook(path.stem, node, title, place, claim, figures, profile[0] if profile else "", *last_section(node.cells))


def first_cell(source):
    """Title, place in the paper and claim: the heading, the paragraph in italics below it, if there is one, and the rest."""
    heading, _, rest = source.strip().partition("\n")
    paragraphs = re.split(r"\n\s*\n", rest.strip())
    place = paragraphs.pop(0) if re.match(r"\*[^*]", paragraphs[0]) else ""
    title = heading.removeprefix("# ").strip() if heading.startswith("# ") else ""
    return title, place, "\n\n".join(paragraph for paragraph in paragraphs if not paragraph.startswith("#"))


def last_section(cells):
    """Heading, text and outputs of a notebook's last section: what stands beside the paper."""
    level_2 = re.compile("^## (?:[0-9.]+ )?", re.MULTILINE)
    start = max((i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and level_2.search(cell.source)), default=0)
    heading, _, text = level_2.split(cells[start].source)[-1].partition("\n")
    prose, outputs = [text], []
    for cell in cells[start + 1:]:
        if cell.cell_type == "markdown":
            prose.append(cell.source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                outputs += TABLE.findall(data["text/html"])
            elif output.output_type in ("stream", "execute_result"):
                outputs.append(f"<pre>{escape(output.get('text') or data.get('text/plain', ''))}</pre>")
    return heading.strip(), "\n\n".join(prose), "\n".join(outputs)


def saved(cell):
    """The names of the figures that a code cell saves."""
    return re.findall(r"plots\.save\(.*[\"'](\w+)[\"']\)", cell.source)


def caption(figure):
    return figure.replace("_", " ").capitalize()


def css_width(figure):
    """A figure's width on the start page, by its inches: those as wide as a column leave room for text beside them."""
    with Image.open(FIGURES / f"{figure}.png") as image:
        return round(image.width / image.info["dpi"][0] * 126)


def entry(notebook, markdown):
    """A notebook's place on the start page: its figures, its claim, its numbers beside the paper's."""
    link = f'<a href="{notebook.name}.html">'
    figures = "\n".join(f'{link}<img src="figures/{name}.png" width="{css_width(name)}" alt="{caption(name)}: '
                        f'{escape(notebook.title)}"></a>' for name in notebook.figures)
    prose = markdown(notebook.prose)
    tables = "\n".join(TABLE.findall(prose)) + notebook.outputs
    prose = TABLE.sub("", prose).strip()
    about = f"<details><summary>About these numbers</summary>{prose}</details>" if prose else ""
    profile = f'<p class="profile">{escape(notebook.profile)}</p>' if notebook.profile else ""
    return f"""<article id="{notebook.name}">
<h2>{link}{escape(notebook.title)}</a></h2>
<div class="place">{markdown(notebook.place)}</div>
<div class="idea">
<div class="figures">{figures}</div>
<div class="claim">{markdown(notebook.claim)}</div>
</div>
<div class="numbers"><h3>{escape(notebook.heading)}</h3>
{profile}
{tables}
{about}</div>
<p>{link}Notebook →</a></p>
</article>"""


def start_page(notebooks, readme, markdown):
    """The README's title and first paragraphs, a gallery, and an entry for each notebook."""
    title, _, rest = readme.removeprefix("# ").partition("\n")
    introduction = re.split(r"^(?:#|!\[)", rest, maxsplit=1, flags=re.MULTILINE)[0]
    gallery = "\n".join(f'<a href="#{notebook.name}"><img src="figures/{name}.png" alt="">{caption(name)}</a>'
                        for notebook in notebooks for name in notebook.figures)
    entries = "\n".join(entry(notebook, markdown) for notebook in notebooks)
    return page(title, f'<h1>{escape(title)}</h1>\n{markdown(introduction)}\n<nav class="gallery">\n{gallery}\n</nav>\n{entries}')


def notebook_page(notebook, before, after, exporter):
    """A notebook whole, between links to its neighbours."""
    before = f'<a href="{before.name}.html">← {escape(before.title)}</a>' if before else "<span></span>"
    after = f'<a href="{after.name}.html">{escape(after.title)} →</a>' if after else "<span></span>"
    around = f'<nav class="between">{before}<a href="index.html">All notebooks</a>{after}</nav>'
    body, _ = exporter.from_notebook_node(notebook.node)
    return page(notebook.title, f"{around}\n<main>{body}</main>\n{around}")


def page(title, body):
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
</head>
<body>
{body}
</body>
</html>
"""


def build(out=None, notebooks=NOTEBOOKS):
    """Write the site of a folder of executed notebooks: `index.html`, `<notebook>.html`, `figures/`, `style.css`.

    Args:
        out: a folder; by default `build/site` of this project.

    Returns:
        The path of the start page.

    Raises:
        ValueError: a notebook or a formula that cannot be shown (`read`, `mathml`); nothing is written then.
    """
    out = Path(out or ROOT / "build" / "site")
    books = [read(path) for path in sorted(notebooks.glob("*.ipynb"))]
    markdown = MarkdownWithMath(Renderer({book.name for book in books})).render
    exporter = nbconvert.HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True,
                                      filters={"markdown2html": markdown})
    files = {"index.html": start_page(books, (ROOT / "README.md").read_text(encoding="utf-8"), markdown),
             "style.css": HtmlFormatter().get_style_defs(".highlight") + STYLE}
    for (before, book), (_, after) in pairwise(pairwise([None, *books, None])):
        files[f"{book.name}.html"] = notebook_page(book, before, after, exporter)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    for name in {name for book in books for name in book.figures}:
        (out / "figures" / f"{name}.png").write_bytes((FIGURES / f"{name}.png").read_bytes())
    return out / "index.html"
