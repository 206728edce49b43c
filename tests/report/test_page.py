"""The page as a document: whole, self-contained, readable without pictures, and in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lit_meta.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FIGURES = {
    "accuracy_along_stream",
    "accuracy_matrix",
    "forgetting",
    "cost_accuracy",
    "weight_change",
    "synapses_changed",
    "spikes",
}
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reader(HTMLParser):
    """Checks that elements close in order, and keeps what has to be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.figures: list[str] = []
        self.svg_titles: list[str] = []
        self.images_without_alt = 0
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {key: value or "" for key, value in attributes}
        if "id" in given:
            self.ids.append(given["id"])
        self.addresses += [given[key] for key in ("href", "src", "xlink:href", "srcset", "data") if key in given]
        if tag == "figure":
            self.figures.append(given["id"])
        if tag == "svg":
            assert given["role"] == "img"
            self.svg_titles.append(given["aria-labelledby"])
        if tag == "img" and not given.get("alt"):
            self.images_without_alt += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def report(spiking_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    page = tmp_path_factory.mktemp("page") / "report.html"
    return page, write_report([spiking_run], file=page)


def test_every_figure_is_there_in_both_forms(report: tuple[Path, dict[str, object]], spiking_run: Path) -> None:
    page, facts = report
    names = {path.stem for path in (spiking_run / "figures").iterdir()}
    assert names == FIGURES
    for name in FIGURES:
        png, svg = (spiking_run / "figures" / f"{name}.{kind}" for kind in ("png", "svg"))
        assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert png.stat().st_size > 5000
        assert svg.read_text().rstrip().endswith("</svg>")
        assert {str(png), str(svg)} <= set(facts["figures"])  # type: ignore[call-overload]
    reader = read(page)
    assert {name.split("-")[-1] for name in reader.figures} == FIGURES
    assert len(reader.svg_titles) == 2 * len(FIGURES)  # For a wide page and for a narrow one.
    (left_out,) = (run["left_out"] for run in facts["runs"])  # type: ignore[attr-defined]
    assert len(left_out) == 1
    assert left_out[0].startswith("Forgetting by class: needs a single class")


def test_the_page_loads_nothing_and_runs_nothing(report: tuple[Path, dict[str, object]]) -> None:
    reader = read(report[0])
    assert "script" not in reader.tags
    for address in reader.addresses:
        assert address.startswith(("#", "data:")), f"the page would load {address}"
    style = re.search(r"<style>(.*?)</style>", report[0].read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_ids_are_unique_and_references_lead_somewhere(report: tuple[Path, dict[str, object]]) -> None:
    text = report[0].read_text()
    reader = read(report[0])
    assert len(set(reader.ids)) == len(reader.ids)
    for target in re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text):
        assert target in reader.ids
    assert set(reader.svg_titles) <= set(reader.ids)
    assert reader.images_without_alt == 0


def test_titles_tell_what_a_figure_shows(report: tuple[Path, dict[str, object]]) -> None:
    titles = re.findall(r"<svg[^>]*><title[^>]*>([^<]+)</title>", report[0].read_text())
    assert len(titles) == 2 * len(FIGURES)
    for title in titles:
        assert re.search(r"\d", title), f"a title without a number: {title}"


def test_figures_follow_the_theme_and_paper_is_light(report: tuple[Path, dict[str, object]]) -> None:
    text = report[0].read_text()
    figures = text[text.index("<body>") :]
    assert "var(--ink)" in figures
    assert "var(--blue)" in figures
    for color in ("#1b1d22", "#0072b2", "#d55e00", "#dfe1e6"):
        assert color not in figures, "a colour of the palette that would not follow the theme"
    assert "@media (prefers-color-scheme:dark)" in text
    assert text.index("@media (prefers-color-scheme:dark)") < text.index("@media print")


def test_the_same_run_gives_the_same_page(report: tuple[Path, dict[str, object]], spiking_run: Path) -> None:
    again = report[0].with_name("again.html")
    write_report([spiking_run], file=again)
    assert again.read_bytes() == report[0].read_bytes()


def browse(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={page.parent / 'profile'}",
        "--enable-logging=stderr",
        "--window-size=1000,3000",
        *flags,
    ]
    return subprocess.run(
        [BROWSER, *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: chromium is not installed")
@pytest.mark.parametrize("scheme", ("light", "dark"))
@pytest.mark.parametrize("width", (1000, 390))
def test_in_a_browser(report: tuple[Path, dict[str, object]], tmp_path: Path, scheme: str, width: int) -> None:
    probe = """
    <script>
      const shown = [...document.querySelectorAll("figure svg")].filter(svg => svg.getBoundingClientRect().width);
      const seen = shown.map(svg => {
        const box = svg.getBoundingClientRect();
        const text = svg.querySelector("text");
        const letters = text.getBoundingClientRect().height;
        return {id: svg.closest("figure").id, letters, width: box.width, height: box.height,
                marks: svg.querySelectorAll("path,image").length, ink: text ? getComputedStyle(text).fill : null};
      });
      document.body.dataset.seen = JSON.stringify(
        {figures: seen, paper: getComputedStyle(document.documentElement).backgroundColor, wide: document.body.scrollWidth});
    </script></body>"""
    inner, page = tmp_path / "inner.html", tmp_path / "probed.html"
    inner.write_text(report[0].read_text().replace("</body>", probe), encoding="utf-8")
    # A browser's own window cannot be as narrow as a phone.
    tell = "document.body.dataset.seen = this.contentDocument.body.dataset.seen"
    page.write_text(
        f'<!DOCTYPE html><body><iframe src="inner.html" width="{width}" height="3000" style="border:0" onload="{tell}">'
        "</iframe></body>"
    )
    flag = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    shown = browse(page, "--dump-dom", "--allow-file-access-from-files", flag)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    seen = json.loads(re.search(r'data-seen="([^"]+)"', shown.stdout)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert {figure["id"].split("-")[-1] for figure in seen["figures"]} == FIGURES
    for figure in seen["figures"]:
        assert figure["width"] > 300, figure
        assert figure["height"] > 100, figure
        assert figure["marks"] > 5, figure
        assert luminance(figure["ink"]) < 0.2 if scheme == "light" else luminance(figure["ink"]) > 0.7, figure
    assert luminance(seen["paper"]) > 0.9 if scheme == "light" else luminance(seen["paper"]) < 0.1
    assert seen["wide"] <= width, "nothing sticks out at the side"
    assert all(figure["letters"] > 8 for figure in seen["figures"]), "letters are shrunk"


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: chromium is not installed")
def test_on_paper(report: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(report[0].read_text(), encoding="utf-8")
    paper = tmp_path / "page.pdf"
    shown = browse(page, f"--print-to-pdf={paper}", "--blink-settings=preferredColorScheme=0")
    assert "CONSOLE" not in shown.stderr
    assert paper.read_bytes()[:5] == b"%PDF-"
    assert paper.stat().st_size > 20_000


def luminance(color: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
