"""Labels that fit: their width in inches before they are drawn, shortened, wrapped or thinned out.

Gets values of any kind, however hostile; hands on lines of text that the font can show.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

from warehouse.legible import LONGEST_CELL, shortened

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that a figure looks the same everywhere."""
SMALLEST = 5.0
"""Points; smaller text is left out rather than printed."""
LINE = 1.25
"""Height of a line of text, in font sizes."""
POINTS = 72
"""In an inch."""
HINTING = 1.02
"""By how much letters may be wider once they are fitted to pixels."""


def label(value: object) -> str:
    """A group's value as one line of text that the font can show; characters that it lacks become U+FFFD."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else shortened(str(value), LONGEST_CELL)
    return "".join(map(_glyph, " ".join(text.split()))) or "''"


def _glyph(character: str) -> str:
    return character if ord(character) in _glyphs() and character.isprintable() else "\N{REPLACEMENT CHARACTER}"


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())


@functools.lru_cache(maxsize=16_384)
def text_width(text: str, size: float) -> float:
    """Width in inches of a line of text."""
    font = FontProperties(family=FONT, size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return HINTING * float(width) / POINTS


def widest(texts: Iterable[str], size: float) -> float:
    """Width in inches of the widest line."""
    return max((text_width(text, size) for text in texts), default=0.0)


def shorten(text: str, size: float, inches: float, *, tail: float = 1 / 3) -> str:
    """The text, or its beginning and end around an ellipsis, no wider than this.

    ``tail`` is the share of what is kept that is kept of the end.
    """
    if text_width(text, size) <= inches:
        return text
    fitting, excess = 1, len(text)
    while excess - fitting > 1:
        kept = (fitting + excess) // 2
        if text_width(_abbreviation(text, kept, tail), size) <= inches:
            fitting = kept
        else:
            excess = kept
    return _abbreviation(text, fitting, tail)


def _abbreviation(text: str, kept: int, tail: float) -> str:
    ending = int(kept * tail)
    return f"{text[: kept - ending].rstrip()}…{text[len(text) - ending :].lstrip()}"


def shorten_labels(groups: Iterable[object], size: float, inches: float) -> list[str]:
    """Labels no wider than this; those that would look alike lose what they begin with in common instead."""
    texts = [label(group) for group in groups]
    short = {text: shorten(text, size, inches) for text in texts}
    alike: dict[str, list[str]] = {}
    for text, name in short.items():
        alike.setdefault(name, []).append(text)
    for same in alike.values():
        if len(same) > 1:
            short |= _told_apart(same, size, inches)
    return [short[text] for text in texts]


def _told_apart(texts: list[str], size: float, inches: float) -> dict[str, str]:
    """Different texts, each from where they begin to differ: from a whole word if that is enough."""
    ends = zip(min(texts), max(texts), strict=False)
    common = texts[0][: sum(1 for _ in itertools.takewhile(lambda letters: letters[0] == letters[1], ends))]
    for word in (r"[^ ]*$", r"[^ /_-]*$", r"$"):
        start = len(re.sub(word, "", common))
        cut = "…" if start else ""
        short = {text: shorten(f"{cut}{text[start:]}", size, inches, tail=0) for text in texts}
        if len(set(short.values())) == len(texts):
            break
    return short


def wrap(text: str, size: float, inches: float, most: int = 3) -> list[str]:
    """Lines of text no wider than this; what is beyond ``most`` lines is cut off by an ellipsis."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= inches:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [shorten(line, size, inches) for line in lines]


def fit_labels(n: int, pitch: float, size: float) -> tuple[float, int]:
    """Font size, and of how many labels one is printed, for lines of text ``pitch`` inches apart."""
    fitting = min(size, pitch * POINTS / LINE)
    if fitting >= SMALLEST:
        return fitting, 1
    return SMALLEST, min(math.ceil(SMALLEST * LINE / (pitch * POINTS)), n)


def sentences(*texts: str) -> str:
    """Notes as one text."""
    return " ".join(text if text.endswith(".") else f"{text}." for text in texts if text)
