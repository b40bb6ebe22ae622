"""The site: whole, without a broken link, without a request to another host, and readable on a phone (in a real Chromium)."""

import html
import json
import re
import runpy
import shutil
import subprocess
import sys
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import lc
from lc.__main__ import parser
from lc.utils.files import ROOT

for module in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinxarg"):
    pytest.importorskip(module, reason="the extra `docs` is not installed")

SOURCES = runpy.run_path(str(ROOT / "docs" / "sources.py"))
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
GUIDES = sorted(path.stem for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".rst") and path.stem != "index")
PAGES = ["index", *(f"notebooks/{name}" for name in NOTEBOOKS), *(f"docs/{name}" for name in GUIDES)]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make site` does."""
    folder = tmp_path_factory.mktemp("served")
    lay_out = [sys.executable, ROOT / "docs" / "sources.py", folder / "sources"]
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", ROOT / "docs", folder / "sources", folder / "site"]
    for command in (lay_out, build):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder / "site"


class Page(HTMLParser):
    """The elements of a page, as `(tag, attributes)`, and its ids."""

    def __init__(self, path):
        super().__init__()
        self.elements = []
        self.feed(path.read_text(encoding="utf-8"))
        self.ids = {attributes["id"] for _, attributes in self.elements if "id" in attributes}

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def addresses(self, *tags):
        """What the elements of these tags, or of all, load or lead to."""
        return [attributes[name] for tag, attributes in self.elements if not tags or tag in tags
                for name in ("href", "src", "srcset", "data", "action", "poster") if attributes.get(name)]


read = cache(Page)


def test_the_pages_are_there_and_the_menu_has_them_in_order(site):
    menu = [address for address in read(site / "index.html").addresses("a") if urlsplit(address).path.endswith(".html")]
    listed = list(dict.fromkeys(menu))
    assert [f"{name}.html" for name in PAGES if name.startswith("notebooks/")] == [a for a in listed if a.startswith("notebooks/")]
    assert {f"{name}.html" for name in PAGES[1:]} <= set(listed)


def test_every_link_and_every_image_leads_somewhere(site):
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    assert {f"{name}.html" for name in PAGES} <= {path.relative_to(site).as_posix() for path in pages}
    broken = []
    for path in pages:
        for address in read(path).addresses():
            parts = urlsplit(address)
            if parts.scheme:
                assert parts.scheme in ("https", "data"), address
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = read(target).ids if target.suffix == ".html" and target.is_file() and parts.fragment else ()
            if not target.is_file() or parts.fragment and not {parts.fragment, unquote(parts.fragment)} & set(anchors):
                broken.append((path.name, address))
    assert not broken


def test_nothing_is_loaded_from_another_host(site):
    for path in site.rglob("*.html"):
        loaded = read(path).addresses("script", "link", "img", "iframe", "object", "embed", "source", "video")
        assert not [address for address in loaded if re.match(r"(?!data:)[a-z]+:|//", address)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?\s*(https?:)?//", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebooks_page_folds_its_code_and_offers_the_file_as_it_is(name, site):
    page = read(site / "notebooks" / f"{name}.html")
    cells = [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]
    folded = [attributes for tag, attributes in page.elements if tag == "details" and "above-input" in attributes["class"]]
    assert len(folded) == len(cells) and not any("open" in attributes for attributes in folded)
    assert f"../_sources/notebooks/{name}.ipynb" in page.addresses("a")
    download = site / "_sources" / "notebooks" / f"{name}.ipynb"
    assert download.read_bytes() == (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")


def test_the_start_page_shows_every_figure_and_what_each_notebook_printed(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    images = {address.rpartition("/")[2] for address in read(site / "index.html").addresses("img")}
    assert images == {path.name for path in (ROOT / "figures").glob("*.png")}
    for name in images:
        assert (site / "_images" / name).read_bytes() == (ROOT / "figures" / name).read_bytes()
    for name in NOTEBOOKS:
        entry = SOURCES["read"](ROOT / "notebooks" / f"{name}.ipynb")
        assert SOURCES["verdict"](entry) in text and html.escape(entry["title"]) in text
    assert not re.search("<!-- (numbers|figures) -->|<details", text)


def test_the_library_and_all_options_are_described(site):
    assert {f"lc.{name}" for name in lc.__all__} <= read(site / "docs" / "api.html").ids
    page = (site / "docs" / "options.html").read_text(encoding="utf-8")
    commands = parser()._subparsers._group_actions[0].choices
    for name, command in commands.items():
        assert f"<h3>{name}<" in page
        assert all(option in page for action in command._actions for option in action.option_strings if option.startswith("--"))


def test_the_search_index_knows_fve(site):
    assert re.search(r'[{,]"?fve"?:', (site / "searchindex.js").read_text(encoding="utf-8"))


PROFILE = "Profile quick: 1 of 1 runs\n"
TABLE = '<table><tr><th>claim</th><th scope="col">Verdict</th></tr><tr><td>holds</td></tr></table>'


def made_up(path, *outputs, first="# 00 · Title\n\n*Figure 99.*\n\nThe paper claims [much](03_expansion.ipynb)."):
    cells = [new_markdown_cell(first), new_code_cell('plots.save(draw("x"), "figure_4")', outputs=list(outputs), execution_count=1)]
    nbformat.write(new_notebook(cells=cells), path)
    return SOURCES["read"](path)


def printed(text):
    return new_output("stream", name="stdout", text=text)


@pytest.mark.parametrize("outputs, shown", [
    ([printed(PROFILE), printed("Verdict: a < b"), printed("n = 2")], '<p class="verdict">Verdict: a &lt; b</p>'),
    ([printed(PROFILE + "Verdict 1\nVerdict 2\n")], '<p class="verdict">Verdict 1</p>\n<p class="verdict">Verdict 2</p>'),
    ([printed(PROFILE), new_output("execute_result", {"text/html": f"<div>{TABLE}</div>"})], f'<div class="verdict">{TABLE}</div>'),
    ([printed("first\n" + PROFILE + "last\n")], '<p class="verdict">Profile quick: 1 of 1 runs</p>'),
    ([printed("folded: True\n")], '<p class="verdict">folded: True</p>'),
])
def test_the_verdict_is_what_the_notebook_printed(outputs, shown, tmp_path):
    entry = made_up(tmp_path / "00_made_up.ipynb", *outputs)
    assert SOURCES["verdict"](entry) == shown
    section = SOURCES["section"](entry)
    for part in ("## [00 · Title](notebooks/00_made_up.ipynb)", "*Figure 99.*", "[much](notebooks/03_expansion.ipynb)",
                 "[![Figure 4](figures/figure_4.png){width=900px}](notebooks/00_made_up.ipynb)", shown):
        assert part in section


def test_a_list_of_claims_stands_for_the_text_around_it(tmp_path):
    first = "# 00 · Title\n\n*Figure 99.*\n\n## 1 Claims\n\nThe paper finds:\n\n1. **More**\n   of it.\n2. Less.\n\nAnd so on."
    assert made_up(tmp_path / "00_made_up.ipynb", printed(PROFILE), first=first)["claim"] == "1. **More**\n   of it.\n2. Less."


@pytest.mark.parametrize("fault", [dict(first="No title."), dict(outputs=[])])
def test_a_notebook_without_title_or_outputs_is_named(fault, tmp_path):
    outputs = fault.pop("outputs", [printed(PROFILE)])
    with pytest.raises(ValueError, match="00_made_up.ipynb has no title or no outputs"):
        made_up(tmp_path / "00_made_up.ipynb", *outputs, **fault)


def test_each_claim_stands_beside_its_verdict(tmp_path):
    text = ("Claim 1 (Figure 1): a < b.\nStatistic: b: a. The paper expects more.\nVerdict: E: 8 (n = 1): as in the paper.\n"
            "Claim 2 (Figure 1): c.\nVerdict: no rows: not decided by these rows.\n")
    entry = made_up(tmp_path / "00_made_up.ipynb", printed(text))
    assert SOURCES["verdict"](entry) == (
        '<p class="verdict as">Claim 1 (Figure 1): a &lt; b.<br><b>As in the paper</b>: E: 8 (n = 1).</p>\n'
        '<p class="verdict not">Claim 2 (Figure 1): c.<br><b>Not decided by these rows</b>: no rows.</p>')
    assert "much" not in SOURCES["section"](entry)


def test_every_claim_of_the_notebooks_is_found():
    for name in NOTEBOOKS:
        entry = SOURCES["read"](ROOT / "notebooks" / f"{name}.ipynb")
        assert len(SOURCES["judged"](entry)) == len(re.findall("^Claim ", entry["printed"], re.M)), name


def test_the_numbers_are_counted_from_the_rows():
    plain, lc, other = "ResNet-20-16", "ResNet-LC-20-16x128", "ResNet-LC-20-16x1"
    rows = pd.DataFrame([("quick", 4, 5000, "a CPU", seed, dataset, plain, False, 40) for seed in (0, 1) for dataset in "ba"]
                        + [("short", 15, 50000, "a GPU", 0, "cifar10", other, True, 80)]
                        + [("paper", 75, 50000, "a GPU", seed, "cifar10", lc, True, 91 + seed) for seed in (0, 1)]
                        + [("paper", 75, 50000, "a GPU", 0, "cifar10", other, True, 85)],
                        columns=["profile", "epochs", "train_images", "device", "seed", "dataset", "model", "frozen", "accuracy"])
    said, _, _, _, *recipes = SOURCES["numbers"](rows).splitlines()
    assert said == (f"- {lc} with frozen random filters reaches 91.50 % on cifar10 with the paper's recipe (n = 2). "
                    "The paper prints 91.89 ± 0.10.")
    assert recipes == ["| `paper` | 3 | 75 | 50,000 | 2 | cifar10 | a GPU |", "| `short` | 1 | 15 | 50,000 | 1 | cifar10 | a GPU |",
                       "| `quick` | 4 | 4 | 5,000 | 2 | a, b | a CPU |"]


FRAMES = """<!DOCTYPE html><body>{}<script>
const until = async (done) => {{ for (let i = 0; i < 100 && !done(); i++) await new Promise(go => setTimeout(go, 100)); }};
onload = async () => {{
  const report = {{}};
  for (const {{name, contentDocument: page, contentWindow: view}} of document.querySelectorAll("iframe")) {{
    page.querySelectorAll("details").forEach(details => details.open = true);
    page.querySelectorAll("img").forEach(image => image.loading = "eager");
    await view.MathJax?.startup?.promise;
    if (name == "search") await until(() => page.querySelectorAll("#search-results li a").length > 2);
    await until(() => [...page.images].every(image => image.complete));
    report[name] = {{
      width: view.innerWidth,
      overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
      broken: [...page.images].filter(image => !image.naturalWidth).map(image => image.src.slice(0, 80)),
      formulas: page.querySelectorAll(".math:not(.highlight)").length - page.querySelectorAll(".math mjx-container").length,
      faulty: page.querySelectorAll("mjx-merror").length,
      found: page.querySelectorAll("#search-results li a").length,
      elsewhere: view.performance.getEntriesByType("resource").map(entry => entry.name)
        .filter(address => !address.startsWith(location.origin) && !address.startsWith("data:")),
    }};
  }}
  document.body.textContent = JSON.stringify(report);
}};
</script>"""
BROKEN = '<!DOCTYPE html><div style="width: 600px">wide</div><img src="no.png"><script src="http://example.invalid/a.js"></script>'


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module", params=[390, 1280])
def seen(request, site, tmp_path_factory):
    """What Chromium sees of each page, and of a page that is broken in every way, in frames of this width."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    width = request.param
    addresses = {name: f"site/{name}.html" for name in PAGES}
    addresses |= {"search": "site/search.html?q=FVE", "broken": "broken.html"}
    frames = [f'<iframe name="{name}" src="{address}" style="width: {width}px; height: 800px; border: 0"></iframe>'
              for name, address in addresses.items()]
    (site.parent / "frames.html").write_text(FRAMES.format("".join(frames)))
    (site.parent / "broken.html").write_text(BROKEN)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site.parent)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
                   "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=60000", "--dump-dom",
                   f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", f"http://127.0.0.1:{server.server_port}/frames.html"]
        page = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        server.shutdown()
    return width, json.loads(html.unescape(re.search("<body>({.*})", page, re.DOTALL)[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_chromium_shows_the_page_within_the_screen(name, seen):
    width, pages = seen
    assert pages[name] == dict(width=width, overflow=0, broken=[], formulas=0, faulty=0, found=0, elsewhere=[])


@pytest.mark.slow
def test_chromium_finds_fve(seen):
    assert seen[1]["search"]["found"] > 2 and not seen[1]["search"]["elsewhere"]


@pytest.mark.slow
def test_chromium_would_see_a_broken_page(seen):
    width, pages = seen
    broken = pages["broken"]
    assert (broken["overflow"] > 100) == (width < 600)
    assert len(broken["broken"]) == 1 and broken["elsewhere"] == ["http://example.invalid/a.js"]
