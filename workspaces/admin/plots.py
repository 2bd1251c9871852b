"""Plots as SVG, drawn on the server: pictures for eyes; the numbers are in a table beside them."""

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT, GAP = 280, 64, 2


def bars(values: Sequence[int], title: str) -> SafeString:
    """Return a bar for each value, the highest one as high as the plot. None of them is hidden."""
    most = max([*values, 1])
    step = WIDTH / len(values)
    rows = []
    for at, value in enumerate(values):
        height = max(1.5, HEIGHT * value / most) if value else 0.75
        kind = "bar" if value else "none"
        left, top, width = at * step, HEIGHT - height, step - GAP
        rows.append((kind, *(f"{number:.1f}" for number in (left, top, width, height))))
    marks = format_html_join("", '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>', rows)
    return _picture(title, WIDTH, HEIGHT, marks)


def share(percent: int, title: str, *, short: bool = False) -> SafeString:
    """Return a bar that is filled so far; what is more than all of it is full, and says so."""
    filled = min(100, max(0, percent))
    kind = "over" if short else "bar"
    marks = format_html(
        '<rect class="rest" x="0" y="0" width="100" height="6"/>'
        '<rect class="{}" x="0" y="0" width="{}" height="6"/>',
        kind,
        filled,
    )
    return _picture(title, 100, 6, marks)


def _picture(title: str, width: int, height: int, marks: SafeString) -> SafeString:
    return format_html(
        '<svg class="plot" role="img" viewBox="0 0 {} {}" preserveAspectRatio="none">'
        "<title>{}</title>{}</svg>",
        width,
        height,
        title,
        marks,
    )
