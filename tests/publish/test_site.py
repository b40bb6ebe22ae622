"""The site: whole, without a broken link, without a request to anyone, readable on a phone (in a real Chromium)."""

import html
import json
import re
import shutil
import subprocess
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lc.__main__ import main
from lc.utils.files import ROOT
from lc.site import Renderer, build, mathml

NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
FIGURES = sorted(path.stem for path in (ROOT / "figures").glob("*.png"))
PAGES = ["index", *NOTEBOOKS]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FORMULA = re.compile(r"\$\$.+?\$\$|\$.+?\$", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "site"
    main(["site", "--out", str(folder)])
    return folder


class Page(HTMLParser):
    """A page's elements, as `(tag, attributes)`, its ids, and its text outside of code and outputs."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.code = [], "", 0
        self.feed(path.read_text(encoding="utf-8"))
        self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.code += tag in ("pre", "code", "style")

    def handle_endtag(self, tag):
        self.code -= tag in ("pre", "code", "style")

    def handle_data(self, text):
        self.text += "" if self.code else text

    def links(self):
        """`(tag, address)` of everything that a browser loads or a reader follows."""
        return [(tag, attributes[name]) for tag, attributes in self.elements
                for name in ("href", "src", "srcset", "data", "action", "poster") if name in attributes]


read = cache(Page)


def entry(site, name):
    """A notebook's part of the start page."""
    return re.search(f'<article id="{name}">.*?</article>', (site / "index.html").read_text(), re.DOTALL)[0]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name, site):
    page = read(site / f"{name}.html")
    assert len(page.ids) == len(set(page.ids))
    for _, address in page.links():
        path, _, anchor = address.partition("#")
        if address.startswith(("https://", "data:")):
            continue
        target = site / (path or f"{name}.html")
        assert target.is_file() and site in target.resolve().parents, address
        assert not anchor or {anchor, unquote(anchor)} & set(read(target).ids), address  # a browser tries both


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_from_elsewhere(name, site):
    page = read(site / f"{name}.html")
    assert not [address for tag, address in page.links() if tag != "a" and re.match(r"(?!data:)[a-z]+:|//", address)]
    assert not {"script", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    assert not re.search("url\\(|@import", (site / "style.css").read_text())
    assert any(attributes.get("name") == "viewport" and "width=device-width" in attributes["content"]
               for tag, attributes in page.elements if tag == "meta")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_formulas_become_mathml(name, site):
    sources = [cell.source for cell in NOTEBOOKS[name].cells if cell.cell_type == "markdown"]
    page = read(site / f"{name}.html")
    math = [attributes for tag, attributes in page.elements if tag == "math"]
    assert len(math) == sum(len(FORMULA.findall(source)) for source in sources)
    assert sum(attributes["display"] == "block" for attributes in math) == sum(source.count("$$") for source in sources) // 2
    assert "$" not in page.text and "\\" not in page.text
    assert "$" not in read(site / "index.html").text


def test_every_notebook_and_every_figure_is_on_the_start_page(site):
    links = read(site / "index.html").links()
    assert {f"{name}.html" for name in NOTEBOOKS} <= {address for tag, address in links if tag == "a"}
    assert {f"figures/{name}.png" for name in FIGURES} == {address for tag, address in links if tag == "img"}
    for name in FIGURES:
        assert (site / "figures" / f"{name}.png").read_bytes() == (ROOT / "figures" / f"{name}.png").read_bytes()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_an_entry_has_the_notebooks_claim_profile_and_numbers(name, site):
    shown, cells = entry(site, name), NOTEBOOKS[name].cells
    assert html.escape(cells[0].source.splitlines()[0].removeprefix("# ")) in shown and '<div class="claim"><p>' in shown
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    profiles = re.findall("^Profile .*", "\n".join(output.get("text", "") for output in outputs), re.MULTILINE)
    assert re.findall('<p class="profile">(.*)</p>', shown) == profiles[:1]
    last = [output for cell in cells[-1:] for output in cell.get("outputs", [])]
    for text in (text for output in last for text in re.findall("<td>.*?</td>", output.get("data", {}).get("text/html", ""))):
        assert text in shown
    assert all(html.escape(output.text) in shown for output in last if output.output_type == "stream")


def test_pages_lead_to_their_neighbours(site):
    for before, name, after in zip(["index", *PAGES[1:-1]], PAGES[1:], [*PAGES[2:], "index"]):
        addresses = [address for tag, address in read(site / f"{name}.html").links() if tag == "a"]
        assert {f"{before}.html", "index.html", f"{after}.html"} <= set(addresses)


FIRST = "# 00 · Title\n\n*Figure 99.*\n\nThe claim of [it](00_made_up.ipynb)."
TABLE = "<table><tr><td>91.89</td></tr></table>"


def write(folder, name="00_made_up", first=FIRST, code="1", **cell):
    """A made-up notebook that has all that the notebooks share, but for what is given."""
    profile = new_output("stream", name="stdout", text="Profile quick: 1 of 1 runs\nmissing: none\n")
    table = [] if cell.get("outputs") == [] else [new_output("execute_result", {"text/html": f"<div>{TABLE}</div>"})]
    cells = [new_markdown_cell(first), new_code_cell(code, **{"outputs": [profile], "execution_count": 1} | cell),
             new_markdown_cell("## 2 Beside the paper\n\nA star says $a<b$."),
             new_code_cell("2", outputs=table, execution_count=2)]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


def test_a_notebook_of_ones_own(tmp_path):
    write(tmp_path)
    assert build(tmp_path / "site", tmp_path) == tmp_path / "site" / "index.html"
    shown = re.sub(r"\s+", " ", entry(tmp_path / "site", "00_made_up"))
    for part in ("00 · Title", "<em>Figure 99.</em>", 'The claim of <a href="00_made_up.html">it</a>.',
                 "<h3>Beside the paper</h3>", "Profile quick: 1 of 1 runs</p>", TABLE, "A star says <math"):
        assert part in shown


@pytest.mark.parametrize("fault, message", [
    (dict(outputs=[]), "00_made_up.ipynb has no outputs"), (dict(execution_count=None), "00_made_up.ipynb has no outputs"),
    (dict(outputs=[new_output("error", ename="E", evalue="", traceback=[])]), "00_made_up.ipynb has no outputs"),
    (dict(code='plots.save(figure, "figure_99")'), "00_made_up.ipynb saves figure_99.png"),
    (dict(first="No title."), "00_made_up.ipynb does not begin with its title"),
    (dict(first=r"# Title" "\n\n" r"A $\nosuch{x}$ formula."), "nosuch"),
])
def test_a_notebook_that_cannot_be_shown_stops_it_before_anything_is_written(fault, message, tmp_path):
    write(tmp_path, "01_whole")
    write(tmp_path, **fault)
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "site", tmp_path)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("address, leads_to", [
    ("03_expansion.ipynb", "03_expansion.html"), ("notebooks/03_expansion.ipynb#The-runs", "03_expansion.html#The-runs"),
    ("#here", "#here"), ("https://example.org/a.ipynb", "https://example.org/a.ipynb"),
    ("../lc/paper.py", None), ("99_not_there.ipynb", None),
])
def test_links_lead_to_pages_or_are_text(address, leads_to):
    assert Renderer({"03_expansion"}).link("text", address) == (f'<a href="{leads_to}">text</a>' if leads_to else "text")


@pytest.mark.parametrize("latex", [r"\nosuch", r"\begin{aligned} a &= b \end{aligned}", r"\left( a"])
def test_a_formula_that_would_come_out_wrong_is_refused(latex):
    with pytest.raises(ValueError, match="no MathML"):
        mathml(latex)


FRAMES = """<!DOCTYPE html><body>{}<script>
onload = () => {{
  const report = {{}};
  for (const {{name, contentDocument: page, contentWindow: view}} of document.querySelectorAll("iframe")) {{
    page.querySelectorAll("details").forEach(details => details.open = true);
    report[name] = {{
      width: view.innerWidth,
      overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
      images: page.images.length,
      broken: [...page.images].filter(image => !image.naturalWidth).map(image => image.src.slice(0, 80)),
      flat: [...page.querySelectorAll("math")].filter(math => math.getBoundingClientRect().height < 5).length,
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


@pytest.fixture(scope="module")
def seen(site, tmp_path_factory):
    """What Chromium sees of each page, and of a page that is broken in every way, in frames of a phone's width."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    addresses = {name: f"site/{name}.html" for name in PAGES} | {"broken": "broken.html"}
    frames = [f'<iframe name="{name}" src="{address}" style="width: 390px; height: 800px; border: 0"></iframe>'
              for name, address in addresses.items()]
    (site.parent / "frames.html").write_text(FRAMES.format("".join(frames)))
    (site.parent / "broken.html").write_text(BROKEN)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site.parent)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom",
                   "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                   f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", f"http://127.0.0.1:{server.server_port}/frames.html"]
        page = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
        server.shutdown()
    return json.loads(html.unescape(re.search("<body>({.*})", page, re.DOTALL)[1]))


@pytest.mark.parametrize("name", PAGES)
def test_chromium_shows_the_page_at_phone_width(name, seen, site):
    images = sum(tag == "img" for tag, _ in read(site / f"{name}.html").elements)
    assert seen[name] == dict(width=390, overflow=0, images=images, broken=[], flat=0, elsewhere=[])


def test_chromium_would_see_a_broken_page(seen):
    broken = seen["broken"]
    assert broken["overflow"] > 100 and len(broken["broken"]) == 1 and broken["elsewhere"] == ["http://example.invalid/a.js"]
