"""Text that others chose, made fit for people: as lines that a terminal shows as they are, and of a bearable length.

Gets names and sentences from files, folders and models; hands on text for a terminal, a page or a figure. Files for
programs keep every character.
"""

from __future__ import annotations

import hashlib

LONGEST_NAME = 120
"""Characters of a name in a page or a figure."""
LONGEST_CELL = 1_000
"""Characters of a cell of a table on the terminal, or of a note: some are sentences of help."""
_CHECKSUM = 8


def encodable(text: str) -> str:
    """Text that a table can hold: of a name of a file, which may be any bytes, with "?" for what is no UTF-8."""
    return text.encode(errors="replace").decode()


def printable(text: str) -> str:
    """Text as one line without control characters, by which it could take over a terminal: they are spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def counted(n: int, noun: str) -> str:
    """A number of things that take an s in the plural: ``1 layer``, ``2 layers``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def shortened(text: str, most: int = LONGEST_NAME) -> str:
    """Text of at most ``most`` characters: a checksum stands for what is left out, so that no two become one."""
    if len(text) <= most:
        return text
    checksum = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{text[: most - 1 - _CHECKSUM]}…{checksum[:_CHECKSUM]}"


def shortened_sql(expression: str) -> str:
    """What `shortened` does, as an SQL expression."""
    text = f"({expression})::varchar"
    short = f"left({text}, {LONGEST_NAME - 1 - _CHECKSUM}) || '…' || left(sha256({text}), {_CHECKSUM})"
    return f"case when len({text}) > {LONGEST_NAME} then {short} else {text} end"
