"""Sphinx's configuration of the site, which `make site` builds of what docs/sources.py lays out."""

import json
import re
import tomllib
from pathlib import Path

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
ADDRESS = PYPROJECT.get("urls", {}).get("Repository")  # without one, no button leads there

project = "Learning with random convolutions"
author = "the authors of lc-companion"
release = PYPROJECT["version"]
html_title = project
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxarg.ext",
    "sphinx-mathjax-offline",
]
root_doc = "index"
exclude_patterns = ["README.md", "docs/index.md"]  # a target of links, and a template

nb_execution_mode = "off"  # the pages show what the notebooks have stored
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3

suppress_warnings = ["myst.domains"]  # that of sphinx-argparse does not resolve Markdown's links

default_role = "literal"  # docstrings write code in single backticks
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "navbar_persistent": [],
    "secondary_sidebar_items": dict.fromkeys(("notebooks/*", "docs/api", "docs/options"),
                                             ["page-toc"]),
}
if ADDRESS:
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": "main",
        "path_to_docs": "",
        "use_repository_button": True,
        "use_edit_page_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com",
                           "binderhub_url": "https://mybinder.org",
                           "notebook_interface": "jupyterlab"},
    }


def for_reading(app, docname, source):
    """Prepares the code cells of a notebook's page; the file to download stays as it is."""
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                prepare(cell)
        source[0] = json.dumps(notebook)


def prepare(cell):
    """Folds the code, except with the tag `open`, describes images, and lets text wrap."""
    tags = cell["metadata"].setdefault("tags", [])
    if "open" not in tags:
        tags.append("hide-input")
    printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
    if any(len(line) > 100 for line in printed.splitlines()):
        tags.append("prose")
    saved = re.findall(r"plots\.save\(.*[\"'](\w+)[\"']\)", "".join(cell["source"]))
    alt = ", ".join(saved).replace("_", " ") or "drawing"
    cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    for output in cell["outputs"]:
        if shown := "".join(output.get("data", {}).get("text/html", "")):
            pages = re.sub(r'(href="\d\d_\w+)\.ipynb', r"\1.html", wrapping(shown))
            output["data"]["text/html"] = pages  # instead of notebooks


def wrapping(table):
    """A table whose sentences wrap, by the class `sentences`, and whose numbers do not."""
    table = table.replace(" ± ", "\u00a0±\u00a0")
    if any(len(cell) > 40 for cell in re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", table)):
        table = table.replace('class="dataframe"', 'class="dataframe sentences"')
    return table


def edit_the_template(app, pagename, templatename, context, doctree):
    """The start page is made of docs/index.md, which its button for editing leads to."""
    if pagename == root_doc:
        buttons = json.dumps(context["header_buttons"], default=str)
        buttons = buttons.replace("/edit/main/index.md", "/edit/main/docs/index.md")
        context["header_buttons"] = json.loads(buttons)


def setup(app):
    app.connect("source-read", for_reading)
    if ADDRESS:
        app.connect("html-page-context", edit_the_template, priority=900)
