"""The report as a page: all of it is there, nothing is from elsewhere, and it fits."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from poolproof.cli import page
from poolproof.cli.page import KINDS
from poolproof.drill.incidents import FAMILIES, INCIDENTS
from poolproof.drill.runner import DrillPlan, Runner
from poolproof.drill.stage import POOLS
from poolproof.drill.target import Target

EVIL = "DatabaseError: <script>alert('x')</script> & more"
LONG = "OperationalError: " + "a-word-that-has-no-place-to-break-" * 20
CHROMIUM = shutil.which("chromium")
BROWSER = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--virtual-time-budget=5000"),
)
FACTS = {
    "started": "2026-11-30T12:00:00+00:00",
    "versions": {"poolproof": "0.1.0", "postgresql": "18.1"},
    "machine": "x86_64, 2 processors",
    "faults": {"queue": 1, "poolproof": 0},
}
VOID = {"meta", "br", "link", "img", "input", "hr"}


def make(*, faults: int = 0, said: tuple[str, ...] = ("no fault",)) -> str:
    """Return a page on which QueuePool did everything wrong, twice."""
    plan = DrillPlan(
        incidents=tuple(INCIDENTS.values()),
        drivers=("psycopg2", "psycopg"),
        pools=POOLS,
        trials=1,
        seed=7,
        jobs=1,
    )
    rows = plan.rows()
    for n, row in enumerate(rows):
        count = 2 if row.cell.pool == "queue" else 0
        fields = {measure.field: count for measure in row.cell.incident.measures}
        heard = {EVIL: 3, LONG: 2} if count else {}
        took = {"1": 10, "50": 2, "more": 1} if n % 3 else {}
        row.outcomes[0] = {**fields, "samples": [], "heard": heard, "took": took}
        row.spans = [(n * 1.5, n * 1.5 + 4)]
    facts = FACTS | {"faults": {"queue": 1, "poolproof": faults}}
    return page.page(rows, plan, said, facts)


class Elements(HTMLParser):
    """Checks that each element is closed, and collects names, attributes and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words += data


@pytest.fixture(scope="module")
def made() -> str:
    return make()


def test_every_incident_kind_and_version_is_there(made):
    words = " ".join(Elements(made).words.split())
    for name in (*INCIDENTS, *KINDS, *(family.harm for family in FAMILIES)):
        assert name in words
    for fact in (
        "poolproof 0.1.0",
        "postgresql 18.1",
        "x86_64, 2 processors",
        "seed 7",
    ):
        assert fact in words
    assert re.search(r"13 calls, half within 1 ms, 99 % within over 5 s", words)


def test_nothing_runs_and_nothing_is_from_elsewhere(made):
    elements = Elements(made)
    assert not elements.names & {"script", "link", "img", "iframe", "object", "form"}
    for name, value in elements.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "href"}, value
    assert "url(" not in made
    assert "@import" not in made
    assert EVIL not in made
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; more" in made


def test_what_the_drill_does_is_no_harm(made):
    hang = made.partition("<h3>hang</h3>")[2].partition("</section>")[0]
    counts = re.findall(r'<span class="count (?:bad|none)">([\d,]+)</span>', hang)
    # Two drivers, two each: wrong; lost and ghosts; overdue and unusable are the
    # drill's, errors are right.
    assert counts == ["4", "8", "0", "0", *"0000"]


@pytest.mark.parametrize(("faults", "kind"), [(0, "verdict"), (3, "verdict failed")])
def test_a_verdict_of_faults_stands_out(faults, kind):
    text = make(faults=faults, said=("the verdict", "  where to look"))
    assert f'<p class="{kind}">the verdict</p>' in text
    assert '<pre class="bad">  where to look</pre>' in text


def test_without_jinja_it_is_said_before_anything_is_played(monkeypatch):
    from poolproof.drill.errors import SetupError

    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(SetupError, match="pip install jinja2"):
        page.check()


def test_messages_steer_no_terminal_and_can_be_written():
    outcome = {
        "samples": ["one\ntwo \x1b[2J"],
        "heard": {"E: \udcff\x00\x1b]0;x\x07\n# geheim": 2, "plain": 1},
    }
    target = Target.parse("postgresql://app:geheim@127.0.0.1/app")
    clean = Runner._clean(SimpleNamespace(_target=target), outcome)
    assert clean["samples"] == ["one\ntwo \\x1b[2J"]
    first, second = clean["heard"].items()
    assert second == ("plain", 1)
    assert first[1] == 2
    assert first[0].isprintable()
    assert "geheim" not in first[0]
    first[0].encode()


@pytest.mark.parametrize("pools", [("queue",), ("poolproof",)])
@pytest.mark.parametrize("spans", [[], [(0.0, 0.0)]])
def test_one_pool_and_no_time_make_a_page(pools, spans):
    plan = DrillPlan(
        incidents=tuple(INCIDENTS.values()),
        drivers=("psycopg2",),
        pools=pools,
        trials=1,
        seed=7,
        jobs=1,
    )
    rows = plan.rows()
    for row in rows:
        row.crashes, row.spans = 1, spans
    facts = FACTS | {"faults": {"queue": None, "poolproof": None}}
    text = page.page(rows, plan, ("verdict",), facts)
    assert len(re.findall(r'<div class="total ', text)) == 1
    Elements(text)


# --- in a browser ---------------------------------------------------------------------

FRAME = """<!doctype html><title>wait</title>
<iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const inside = frame.contentDocument;
  const paper = getComputedStyle(inside.body).backgroundColor;
  inside.querySelector("details").open = true;
  document.title = inside.documentElement.scrollWidth + ";" + paper;
}};
</script>"""


@pytest.fixture(scope="module")
def served(made, tmp_path_factory):
    """Serve the page, and frames of several widths, on a loopback port."""
    place = tmp_path_factory.mktemp("page")
    (place / "page.html").write_text(made)
    for width in (400, 1200):
        (place / f"{width}.html").write_text(FRAME.format(width=width))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=place))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", place
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not on this machine")
@pytest.mark.parametrize(
    ("colours", "width"),
    [
        ("light", 1200),
        ("dark", 400),
        pytest.param("light", 400, marks=pytest.mark.soak),
        pytest.param("dark", 1200, marks=pytest.mark.soak),
    ],
)
def test_it_fits_a_browser_in_light_and_dark(served, width, colours):
    url, place = served
    scheme = {"light": 1, "dark": 0}[colours]
    done = subprocess.run(
        [
            *(str(CHROMIUM), *BROWSER),
            f"--user-data-dir={place}/{width}-{colours}",
            f"--blink-settings=preferredColorScheme={scheme}",
            *("--window-size=1300,1000", "--dump-dom", f"{url}/{width}.html"),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    seen_width, _, paper = title.partition(";")
    assert int(seen_width) <= width
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[colours]
