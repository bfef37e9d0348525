"""The pieces of a page that holds all that it shows: no request leaves it, and no text of a user's becomes markup."""

import base64
import hashlib
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def page(title: str, body: str) -> str:
    """Put a page together.

    Args:
        title (str): Its title, as text.
        body (str): Markup, of the functions of this module.

    Returns:
        str: HTML. Its policy lets the browser load nothing, and run only the script that sorts tables.
    """
    style, script = ((_HERE / name).read_text(encoding='utf-8') for name in ('page.css', 'page.js'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n'
        f'<body>\n<main>\n{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def section(title: str, *parts: str) -> str:
    """Make a section; ``title`` is text, ``parts`` are markup."""
    return f'<section>\n<h2>{escape(title)}</h2>\n' + '\n'.join(parts) + '\n</section>'


def paragraph(text: str, css: str = 'soft') -> str:
    """Make a paragraph of text."""
    return f'<p class="{css}">{escape(text)}</p>'


def bullets(texts: Sequence[str]) -> str:
    """Make a list of texts."""
    return '<ul>' + ''.join(f'<li>{escape(text)}</li>' for text in texts) + '</ul>'


def figures(values: Sequence[tuple[str, float]]) -> str:
    """Make a line of names and values; the first is the largest."""
    parts = (f'<div><b>{show(value)}</b><span class="soft">{escape(name)}</span></div>' for name, value in values)
    return '<div class="figures">' + ''.join(parts) + '</div>'


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    """Make a table that sorts by a click on a column's head.

    Args:
        rows (Sequence[dict]): Values by key.
        columns (dict[str, str]): Key and head of each column; the first holds text, the others numbers.

    Returns:
        str: Markup.
    """
    heads = ''.join(f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in columns.values())
    lines = []
    for row in rows:
        first, *others = (row[key] for key in columns)
        cells = (f'<td data-value="{"" if _is_missing(v) else repr(v)}">{show(v)}</td>' for v in others)
        lines.append(f'<tr><td>{escape(str(first))}</td>{"".join(cells)}</tr>')
    body = '\n'.join(lines)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def grid(parts: Sequence[str], css: str = '') -> str:
    """Put figures beside each other, as many as the page is wide."""
    return f'<div class="grid {css}">' + '\n'.join(parts) + '</div>'


def plot(svg: str, caption: str) -> str:
    """Make a figure of a plot; ``svg`` is markup of :mod:`.plots`, ``caption`` is text."""
    return f'<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def pictures(jpegs: Sequence[bytes], caption: str) -> str:
    """Make a figure of pictures side by side; ``caption`` is text."""
    images = ''.join(f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">' for jpeg in jpegs)
    return f'<figure><div class="pair">{images}</div><figcaption>{escape(caption)}</figcaption></figure>'


def show(value: float | None) -> str:
    """Write a number: shares with three digits, counts whole, a dash for none."""
    if value is None or _is_missing(value):
        return '–'
    return f'{value:,}' if isinstance(value, int) else f'{value:.3f}'


def _is_missing(value: Any) -> bool:
    return value is None or isinstance(value, float) and math.isnan(value)
