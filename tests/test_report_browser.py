"""The report in a real browser: nothing goes wrong or leaves the page, tables sort, phones need not scroll sideways."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.test_cli import call_main

pytestmark = pytest.mark.slow
PHONE = 390

PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message || event.target.src)), true);
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
</script>
"""
"""Before the page: remembers what goes wrong."""
CHECK = """
<script>
addEventListener("load", () => {
  const table = [...document.querySelectorAll("table")].find((t) => t.caption.textContent.startsWith("Quality by"));
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.textContent === "n_filters");
  const order = () => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.value);
  const click = (index) => heads[index].querySelector("button").click();
  const seen = {before: order()};
  click(column);
  seen.falling = order();
  seen.says = heads[column].getAttribute("aria-sort");
  click(column);
  seen.rising = order();
  click(0);
  seen.names = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  seen.copyButtons = document.querySelectorAll(".sql button").length;
  seen.queries = document.querySelectorAll(".sql").length;
  seen.images = [...document.images].map((image) => image.naturalWidth);
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 30));
  seen.width = document.documentElement.scrollWidth;
  seen.inner = innerWidth;
  seen.errors = errors;
  parent.postMessage(JSON.stringify(seen), "*");
});
</script>
"""
"""After the page: clicks and looks, and tells the page around it."""
FRAME = """<!doctype html><body style="margin:0"><pre id="seen"></pre><script>
addEventListener("message", (event) => { document.getElementById("seen").textContent = event.data; });
</script><iframe src="page.html" style="border:0;width:{width}px;height:844px"></iframe></body>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


@pytest.fixture(scope="module")
def report_file(sample_warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    assert call_main("report", str(sample_warehouse), "-o", str(file)) == (0, "", "")
    return file


def browse(chromium: str, page: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Open a page without window or network, with a profile of its own."""
    quiet = "gpu quic background-networking component-update sync extensions default-apps".split()
    command = [
        chromium,
        "--headless",
        # root, as in a container, has no sandbox
        "--no-sandbox",
        "--no-first-run",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        *(f"--disable-{feature}" for feature in quiet),
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=10000",
        *arguments,
        page.as_uri(),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def looked_at(chromium: str, report_file: Path, folder: Path, width: int) -> dict[str, Any]:
    """What a copy of the report, in a frame of this width, finds out about itself."""
    text = report_file.read_text(encoding="utf-8")
    # the policy of the page allows no script but its own
    text, n = re.subn(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", PROBE, text)
    assert n == 1
    (folder / "page.html").write_text(text.replace("</body>", f"{CHECK}</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("{width}", str(width)), encoding="utf-8")
    done = browse(chromium, folder / "frame.html", folder, "--window-size=1400,900", "--dump-dom")
    (seen,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    found: dict[str, Any] = json.loads(html.unescape(seen))
    assert found["inner"] == width
    return found


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_the_page_works_and_needs_no_sideways_scrolling(
    chromium: str, report_file: Path, tmp_path: Path, width: int
) -> None:
    seen = looked_at(chromium, report_file, tmp_path, width)
    assert seen["errors"] == []
    assert all(name.startswith("data:") for name in seen["requests"])
    assert seen["width"] <= width
    assert len(seen["images"]) > 3
    assert min(seen["images"]) > 0
    assert seen["copyButtons"] == seen["queries"] > 5


def test_a_click_on_a_heading_sorts_the_table(chromium: str, report_file: Path, tmp_path: Path) -> None:
    seen = looked_at(chromium, report_file, tmp_path, 1280)
    numbers = sorted(map(int, seen["before"]))
    assert [int(value) for value in seen["rising"]] == numbers
    assert [int(value) for value in seen["falling"]] == numbers[::-1]
    assert seen["says"] == "descending"
    assert len(seen["names"]) == len(numbers)
    assert seen["names"] == sorted(seen["names"], key=str.casefold)


def test_the_page_as_written_loads_without_complaint(chromium: str, report_file: Path, tmp_path: Path) -> None:
    done = browse(chromium, report_file, tmp_path, "--dump-dom")
    # the console of a page goes to the log
    assert "CONSOLE" not in done.stderr
    # its own policy lets its script run
    assert done.stdout.count('aria-sort="none"') > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots_are_not_blank(chromium: str, report_file: Path, tmp_path: Path, scheme: str) -> None:
    picture = tmp_path / "page.png"
    preferred = f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"
    browse(chromium, report_file, tmp_path, preferred, "--window-size=1280,2400", f"--screenshot={picture}")
    pixels = Image.open(picture).convert("L")
    assert pixels.size == (1280, 2400)
    corner = pixels.getpixel((3, 3))
    assert (corner > 200) == (scheme == "light")
    histogram = np.array(pixels.histogram())
    assert 0.01 < 1 - histogram[corner] / histogram.sum() < 0.8


def test_the_page_prints(chromium: str, report_file: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    browse(chromium, report_file, tmp_path, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", content)) <= 40
