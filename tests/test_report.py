"""The report: complete, self-contained, well-formed, its labels escaped, its numbers those of the warehouse."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import warehouse
from tests.reference import Reference, write_dataset
from tests.test_cli import call_main
from warehouse import report
from warehouse.errors import QueryError
from warehouse.html import Html, element, table

ATTACK = "<script>alert(1)</script>"
HOSTILE = [ATTACK, "\"><img src=x onerror='alert(2)'>", "</td></table>&amp;${body}", "a$b{c}%s\\", "名前 🙂"]
VOID = {"img", "meta", "wbr"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, and in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append(("", []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)
            if self.open[-1] in ("td", "th"):
                self.tables[-1][1][-1][-1] += data
            elif self.open[-1] == "caption":
                self.tables[-1] = (data, self.tables[-1][1])

    def attributes(self, tag: str) -> list[dict[str, str]]:
        """Of each element with this name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def table(self, caption: str) -> pl.DataFrame:
        """The one table whose caption begins so, as text."""
        ((_, (head, *rows)),) = (found for found in self.tables if found[0].startswith(caption))
        return pl.DataFrame(rows, schema=head, orient="row")


@pytest.fixture(scope="module")
def text(wh: warehouse.Warehouse) -> str:
    return report.page(wh)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """A warehouse whose folder and tasks have hostile names; all its layers are like random ones."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("hostile") / "dataset.h5"
    write_dataset(path, [(label, rng.normal(size=(400, 9))) for label in HOSTILE], unclaimed=rng.normal(size=(3, 9)))
    folder = path.with_name("<b>&name$x")
    warehouse.ingest(path, folder)
    with warehouse.open(folder) as opened:
        yield opened


def test_nothing_is_loaded_from_elsewhere(text: str, page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))
    assert not page.attributes("link")
    assert not re.search(r"url\(|@import|https?:", re.sub(r"data:image/[^\"]*", "", text))
    # what a figure itself names is not loaded by a browser that shows it as an image
    (policy,) = (a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_the_policy_allows_the_script_of_the_page_and_no_other(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_each_figure_has_an_alternative_text_a_caption_and_its_query(page: Page, wh: warehouse.Warehouse) -> None:
    images = page.attributes("img")
    assert len(images) == len(page.attributes("figure")) == len(page.texts["figcaption"])
    # a box plot for all axes, and what each axis has
    assert len(images) >= 1 + 3
    assert all(len(image["alt"]) > 20 for image in images)
    queries = page.texts["code"]
    for axis in report.AXES:
        for query in (f"from pca({axis})", f"from distributions({axis})", f"from quality({axis})"):
            assert query in queries
    for query in queries:
        assert wh.sql(query).pl().height > 0


def test_figures_are_images_that_hold_themselves(page: Page) -> None:
    for image in page.attributes("img"):
        kind, content = re.fullmatch(r"data:image/(svg\+xml|png);base64,(.*)", image["src"]).groups()
        start = b"<?xml" if kind == "svg+xml" else b"\x89PNG"
        assert base64.b64decode(content).startswith(start)


def test_links_lead_to_sections_that_are_there(page: Page) -> None:
    anchors = {attributes["id"] for attributes in page.attributes("section")}
    assert {link["href"] for link in page.attributes("a")} == {f"#{anchor}" for anchor in anchors}
    assert len(anchors) == 3 + len(report.AXES)


def test_tables_have_captions_and_scopes(page: Page) -> None:
    assert all(caption for caption, _ in page.tables)
    assert {head.get("scope") for head in page.attributes("th")} == {"col", "row"}


def test_counts_are_those_of_the_dataset(page: Page, reference: Reference) -> None:
    told = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert told["filters"] == f"{len(reference.filters):,}"
    assert told["layers"] == f"{len(reference.layers):,}"
    assert told["models"] == f"{reference.layers['model_id'].nunique():,}"


def test_quality_per_group_is_that_of_the_dataset(page: Page, reference: Reference) -> None:
    shown = page.table("Quality by depth_decile")
    expected = reference.layers.groupby("depth_decile").size()
    assert dict(shown.select("grp", "n_layers").rows()) == {f"{k:.0f}": f"{v:,}" for k, v in expected.items()}


def test_degenerate_layers_are_listed_with_most_filters_first(page: Page, wh: warehouse.Warehouse) -> None:
    degenerate = wh.sql("from layer_quality").pl().filter(pl.col("is_degenerate"))
    expected = degenerate.sort(["n_filters", "layer_id"], descending=[True, False]).head(20)["layer_id"]
    assert page.table("Degenerate layers")["layer_id"].to_list() == [f"{n:,}" for n in expected]


def test_hostile_labels_are_shown_as_text(hostile: warehouse.Warehouse) -> None:
    text = report.page(hostile, ["task"])
    page = Page(text)
    assert len(page.attributes("script")) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    groups = page.table("Quality by task")["grp"].to_list()
    assert sorted(groups) == sorted(HOSTILE)
    assert page.texts["h1"] == ["<b>&name$x"]
    assert page.texts["title"] == ["<b>&name$x: report"]


@pytest.mark.slow
def test_an_axis_with_many_groups_is_refused_figure_by_figure(wh: warehouse.Warehouse) -> None:
    page = Page(report.page(wh, ["layer_id % 51", "unnest(range(2500))", "null", "conv_depth = 0"]))
    said = " ".join(page.texts["p"])
    assert "Not drawn: eigenimages shows at most 40 groups, not 51" in said
    assert "the axis 'unnest(range(2500))' has 2,500 groups, more than 2,000" in said
    assert "no layer has a group: 'null' is NULL everywhere" in said
    assert page.table("Quality by layer_id % 51").height == 50
    assert any("50 of 51 groups with most filters" in caption for caption, _ in page.tables)
    # and the others are whole
    assert any(image["alt"].startswith("Principal components by conv_depth = 0") for image in page.attributes("img"))


def test_an_axis_that_is_no_expression_is_refused(wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError, match="did you mean 'task'"):
        report.page(wh, ["taks"])
    with pytest.raises(QueryError, match="2 expressions"):
        report.page(wh, ["task, model"])


def test_without_degenerate_layers_the_report_says_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    # a flat layer: of low entropy, and no filter is sparse
    filters = rng.uniform(1, 2, size=(50, 2)) @ rng.normal(size=(2, 9))
    write_dataset(tmp_path / "d.h5", [("a", filters), ("b", filters[::-1])], unclaimed=filters[:1])
    warehouse.ingest(tmp_path / "d.h5", tmp_path / "w")
    with warehouse.open(tmp_path / "w") as wh:
        page = Page(report.page(wh, ["null"]))
    assert any(said.endswith("at most 20: none.") for said in page.texts["p"])


def test_the_command_writes_the_page_with_a_hostile_axis_as_text(sample_warehouse: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    axis = f"concat(conv_depth = 0, '{ATTACK}')"
    assert call_main("report", str(sample_warehouse), "-o", str(file), "--axis", axis) == (0, "", "")
    page = Page(file.read_text(encoding="utf-8"))
    assert f"By {axis}" in page.texts["h2"]
    assert len(page.attributes("script")) == 1
    status, out, err = call_main("report", str(sample_warehouse), "--axis", axis)
    assert (status, err) == (0, "")
    assert out == file.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [file]


def test_the_command_refuses_a_mistyped_axis_in_one_line(sample_warehouse: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    status, out, err = call_main("report", str(sample_warehouse), "-o", str(file), "--axis", "taks")
    assert (status, out) == (1, "")
    assert err == "error: axis 'taks': there is no column 'taks'; did you mean 'task'?\n"
    assert not file.exists()


def test_elements_escape_all_but_markup() -> None:
    assert element("p", "a < b & c", title='"x"') == '<p title="&quot;x&quot;">a &lt; b &amp; c</p>'
    assert element("p", element("b", "x"), class_="y", data_value="1") == '<p class="y" data-value="1"><b>x</b></p>'
    assert element("p", Html("<i>")) == "<p><i></p>"
    assert element("img", src="#") == '<img src="#">'


def test_numbers_in_a_table_are_rounded_and_keep_their_value_for_sorting() -> None:
    frame = pl.DataFrame({"name": ["a", None], "n": [1234567, None], "share": [0.123456789, float("nan")]})
    rendered = table(frame, "caption")
    assert Page(rendered).table("caption").rows() == [("a", "1,234,567", "0.1235"), ("–", "–", "nan")]  # noqa: RUF001
    assert 'data-value="0.123456789"' in rendered
    assert 'data-value=""' in rendered
