"""The site: whole, without a broken link or a request to another host, and used in Chromium."""

import html
import json
import re
import runpy
import shutil
import subprocess
import sys
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

import lc
from lc import claims
from lc.__main__ import parser
from lc.utils.files import ROOT

for module in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinxarg"):
    pytest.importorskip(module, reason="the extra `docs` is not installed")

pytestmark = pytest.mark.slow
SOURCES = runpy.run_path(str(ROOT / "docs" / "sources.py"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4)
             for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
GUIDES = sorted({path.stem for kind in ("*.md", "*.rst") for path in (ROOT / "docs").glob(kind)}
                - {"index"})
FIRST = SOURCES["FIRST"]
READING_ORDER = [f"notebooks/{name}" for name in (FIRST, *sorted(NOTEBOOKS.keys() - {FIRST}))]
PAGES = ["index", *READING_ORDER, *(f"docs/{name}" for name in GUIDES)]
CHROMIUM = (shutil.which("chromium") or shutil.which("chromium-browser")
            or shutil.which("google-chrome"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make site` does."""
    folder = tmp_path_factory.mktemp("served")
    lay_out = [sys.executable, ROOT / "docs" / "sources.py", folder / "sources"]
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ROOT / "docs",
             folder / "sources", folder / "site"]
    for command in (lay_out, build):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder / "site"


@cache
def read(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def ids(path):
    return {element["id"] for element in read(path).find_all(id=True)}


def addresses(page, *tags):
    """What the elements of these tags, or of all, load or lead to."""
    return [element[name] for element in page.find_all(tags or True)
            for name in ("href", "src", "srcset", "data", "action", "poster") if element.get(name)]


def test_the_pages_are_there_and_the_menu_has_them_in_order(site):
    listed = dict.fromkeys(addresses(read(site / "index.html"), "a"))
    notebooks = [address for address in listed if re.fullmatch(r"notebooks/\w+\.html", address)]
    assert notebooks == [f"{name}.html" for name in READING_ORDER]
    assert {f"{name}.html" for name in PAGES[1:]} <= set(listed)


def test_every_link_and_every_image_leads_somewhere(site):
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    assert {site / f"{name}.html" for name in PAGES} <= set(pages)
    broken = []
    for path in pages:
        for address in addresses(read(path)):
            parts = urlsplit(address)
            if parts.scheme:
                assert parts.scheme in ("https", "data"), address
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            wanted = {parts.fragment, unquote(parts.fragment)} - {""}
            if not target.is_file() or wanted and not wanted & ids(target):
                broken.append((path.name, address))
    assert not broken


def test_nothing_is_loaded_from_another_host(site):
    for path in site.rglob("*.html"):
        loaded = addresses(read(path), "script", "link", "img", "iframe", "object", "embed",
                           "source", "video")
        assert not [each for each in loaded if re.match(r"(?!data:)[a-z]+:|//", each)], path
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?\s*(https?:)?//", text), path


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebooks_page_folds_its_code_and_offers_the_file_as_it_is(name, site):
    page = read(site / "notebooks" / f"{name}.html")
    folded = page.select("details.above-input")
    expected = [cell for cell in NOTEBOOKS[name].cells
                if cell.cell_type == "code" and "open" not in cell.metadata.get("tags", ())]
    assert len(folded) == len(expected) and not any(each.has_attr("open") for each in folded)
    path = f"notebooks/{name}.ipynb"
    assert f"../_sources/{path}" in addresses(page, "a")
    assert (site / "_sources" / path).read_bytes() == (ROOT / path).read_bytes()
    assert all(image.get("alt") for image in page.find_all("img"))


def test_the_start_page_says_the_claim_shows_it_and_leads_on(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    article = " ".join(text[text.index("<article"):text.index("</article")].split())
    places = [article.index(mark) for mark in (
        "still match one that learns them", "lc-filters-", "Start here", f"notebooks/{FIRST}.html",
        'class="claims"', "Which runs these are", "<table")]
    assert places == sorted(places) and "The paper" in article and len(text.encode()) < 2e6
    assert not re.search("<!-- (hero|start|claims|cards|numbers) -->", text)
    page, verdicts = read(site / "index.html"), claims.verdicts()
    images = {address.rpartition("/")[2] for address in addresses(page, "img")}
    assert images == {f"{name}.png" for name in NOTEBOOKS}
    counts = verdicts["verdict"][verdicts["notebook"] == "03"].value_counts()
    (card,) = [card for card in page.select(".card") if "03 · " in card.text]
    assert all(f"{count} {verdict}" in card.text for verdict, count in counts.items())
    links = page.select("ul.claims a")
    assert [link["title"] for link in links] == [
        claims.verdict_text(row) for row in verdicts.itertuples()]
    assert all(("faint" in link["class"]) == ("one seed: direction only" in link["title"])
               for link in links)
    notebooks = [link["href"].removeprefix("notebooks/")[:2] for link in links]
    assert notebooks == list(verdicts["notebook"])


def test_the_library_and_all_options_are_described(site):
    described = {name for name in ids(site / "docs" / "api.html") if name.startswith("lc.")}
    assert {f"lc.{name}" for name in lc.__all__} <= described
    options = (site / "docs" / "options.html").read_text(encoding="utf-8")
    commands = parser()._subparsers._group_actions[0].choices
    for name, command in commands.items():
        assert f"<h3>{name}<" in options
        for action in command._actions:
            assert not action.option_strings or action.option_strings[-1] in options
    # all others are called by a notebook, or store
    code = "".join(cell.source for notebook in NOTEBOOKS.values() for cell in notebook.cells
                   if cell.cell_type == "code")
    called = {f"lc.{name}" for name in re.findall(r"\b(\w+\.\w+)", code)}
    stored = {f"lc.results.{name}"
              for name in ("append", "load_table", "load_arrays", "merge", "ResultsError")}
    described = {name for name in described
                 if re.fullmatch(r"lc\.(?!paper\.)[a-z]\w*\.\w+", name)}
    expected = {"lc.study.collect", "lc.study.figure4", "lc.interactive.filters"}
    assert expected <= described <= called | stored


def test_a_notebook_without_a_title_is_refused(tmp_path):
    path = tmp_path / "03_made_up.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    with pytest.raises(ValueError, match="03_made_up.ipynb has no title or no outputs"):
        SOURCES["read"](path)


def test_the_numbers_are_counted_from_the_rows():
    plain, lc, other = "ResNet-20-16", "ResNet-LC-20-16x128", "ResNet-LC-20-16x1"
    quick, on_gpu = ("quick", 4, 5000, "a CPU"), (50000, "a GPU")
    rows = [(*quick, seed, dataset, plain, False, 40) for seed in (0, 1) for dataset in "ba"]
    rows += [("short", 15, *on_gpu, 0, "cifar10", other, True, 80),
             ("paper", 75, *on_gpu, 0, "cifar10", lc, True, 91),
             ("paper", 75, *on_gpu, 1, "cifar10", lc, True, 92),
             ("paper", 75, *on_gpu, 0, "cifar10", other, True, 85)]
    rows = pd.DataFrame(rows, columns=["profile", "epochs", "train_images", "device", "seed",
                                       "dataset", "model", "frozen", "accuracy"])
    said, _, _, _, *recipes = SOURCES["numbers"](rows).splitlines()
    assert said == (f"- {lc} with frozen random filters reaches 91.50 % on cifar10 with the "
                    "paper's recipe (n = 2). The paper prints 91.89 ± 0.10.")
    assert recipes == ["| `paper` | 3 | 75 | 50,000 | 2 | cifar10 | a GPU |",
                       "| `short` | 1 | 15 | 50,000 | 1 | cifar10 | a GPU |",
                       "| `quick` | 4 | 4 | 5,000 | 2 | a, b | a CPU |"]


BROKEN = """<!DOCTYPE html><div style="width: 600px">wide</div><img src="no.png">
<table><tr><td>not in a box</td></tr></table>
<script src="http://example.invalid/a.js"></script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module", params=[390, 1280])
def seen(request, site, tmp_path_factory):
    """What Chromium sees of each page, and of one broken in every way, in frames of a width."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    width = request.param
    addresses = {name: f"site/{name}.html" for name in PAGES}
    addresses |= {"search": "site/search.html?q=FVE", "broken": "broken.html"}
    style = f"width: {width}px; height: 800px; border: 0"
    frames = "".join(f'<iframe name="{name}" src="{address}" style="{style}"></iframe>'
                     for name, address in addresses.items())
    page = Path(__file__).with_name("frames.html").read_text().replace("<!-- frames -->", frames)
    (site.parent / "frames.html").write_text(page)
    (site.parent / "broken.html").write_text(BROKEN)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site.parent)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                   "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync", "--no-proxy-server",
                   "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                   "--virtual-time-budget=60000", "--dump-dom",
                   f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
                   f"http://127.0.0.1:{server.server_port}/frames.html"]
        page = subprocess.run(command, capture_output=True, text=True, timeout=300,
                              check=True).stdout
        server.shutdown()
    return width, json.loads(html.unescape(re.search("<body>({.*})", page, re.DOTALL)[1]))


@pytest.mark.parametrize("name", PAGES)
def test_chromium_shows_the_page_within_the_screen(name, seen):
    width, pages = seen
    seen_of = {key: value for key, value in pages[name].items() if key != "played"}
    assert seen_of == dict(width=width, overflow=0, broken=[], formulas=0, faulty=0, found=0,
                           elsewhere=[], cut=[])


def played(seen, page, name):
    """What the one thing to play with on a page did."""
    (found,) = seen[1][page]["played"]
    assert found.items() >= dict(name=name, width=0, moves=True, returns=True).items()
    return found


def test_chromium_moves_the_slider_over_E_and_the_filters_change(seen):
    found = played(seen, "index", "filters")
    assert found["steps"] >= 3 and "Frozen random" in found["said"]


def test_chromium_solves_the_least_squares_that_the_notebook_prints(seen):
    found = played(seen, "notebooks/00_linear_combinations", "least_squares")
    cells = NOTEBOOKS["00_linear_combinations"].cells
    cell = next(cell for cell in cells if "least_squares(" in cell.source)
    first = cell.outputs[0]["data"]["text/plain"].splitlines()[1]
    printed = {int(n): float(error) for n, error in re.findall(r"n=(\d+): (\d\.\d+)", first)}
    assert len(found["errors"]) == found["steps"] + 1 == 82 and max(printed) == 81
    assert {n: round(found["errors"][n], 2) for n in printed} == printed
    theory = [abs(error - (1 - n / 81)) for n, error in enumerate(found["errors"])]
    assert max(theory) < 0.25 and "reach every target" in found["said"]


def test_chromium_finds_fve_and_would_see_a_broken_page(seen):
    width, pages = seen
    assert pages["search"]["found"] > 2 and not pages["search"]["elsewhere"]
    broken = pages["broken"]
    assert (broken["overflow"] > 100) == (width < 600)
    assert len(broken["broken"]) == len(broken["cut"]) == 1
    assert broken["elsewhere"] == ["http://example.invalid/a.js"]
