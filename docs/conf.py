"""Sphinx's configuration of the site. `make site` lays out its sources (docs/sources.py) and builds it."""

import json
import re
import tomllib
from pathlib import Path

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
exclude_patterns = ["README.md", "docs/index.md"]  # README.md is there as a target of links, index.md as a template

nb_execution_mode = "off"  # the pages show what the notebooks have stored
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3

suppress_warnings = ["myst.domains"]  # the domain of sphinx-argparse does not resolve Markdown's links

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
    "secondary_sidebar_items": {"notebooks/*": ["page-toc"], "docs/api": ["page-toc"], "docs/options": ["page-toc"]},
}
if ADDRESS:
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": "main",
        "path_to_docs": "",
        "use_repository_button": True,
        "use_edit_page_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org",
                           "notebook_interface": "jupyterlab"},
    }


def for_reading(app, docname, source):
    """Folds code, describes images and lets text wrap, on a notebook's page only: its download stays as it is.

    Cells with the tag `open` show their code.
    """
    if not docname.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            metadata = cell["metadata"]
            printed = "".join("".join(output.get("text", "")) for output in cell["outputs"]).splitlines()
            tags = metadata.get("tags", [])
            more = ["hide-input"] * ("open" not in tags) + ["prose"] * any(len(line) > 100 for line in printed)
            metadata["tags"] = [*tags, *more]
            saved = re.findall(r"plots\.save\(.*[\"'](\w+)[\"']\)", "".join(cell["source"]))
            metadata["mystnb"] = {"image": {"alt": ", ".join(saved).replace("_", " ") or "drawing"}}
            for output in cell["outputs"]:
                if shown := "".join(output.get("data", {}).get("text/html", "")):  # it links to notebooks, the site has pages
                    output["data"]["text/html"] = re.sub(r'(href="\d\d_\w+)\.ipynb', r"\1.html", wrapping(shown))
    source[0] = json.dumps(notebook)


def wrapping(table):
    """A table whose sentences wrap and whose numbers do not: with the class `sentences` if it has any."""
    table = re.sub(r" ± ", "\u00a0±\u00a0", table)
    long = any(len(cell) > 40 for cell in re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", table))
    return table.replace('class="dataframe"', 'class="dataframe sentences"') if long else table


def edit_the_template(app, pagename, templatename, context, doctree):
    """The start page is made of docs/index.md, which its button for editing leads to."""
    if pagename == root_doc:
        buttons = json.dumps(context["header_buttons"], default=str)
        context["header_buttons"] = json.loads(buttons.replace("/edit/main/index.md", "/edit/main/docs/index.md"))


def setup(app):
    app.connect("source-read", for_reading)
    if ADDRESS:
        app.connect("html-page-context", edit_the_template, priority=900)
