"""Small plots, drawn on the server as SVG: bars over time, readable without seeing them.

Colours come from the page's own (`.plot` in app.css), so they follow light and dark. Whoever
cannot see a plot hears its title and what it says in short; a page puts the numbers into a table
beside it.
"""

from collections.abc import Sequence
from itertools import count
from math import floor, log10

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 320, 96
LEFT, TOP, BOTTOM = 46, 8, 18
GAP = 0.25  # of a bar's place
_STEPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
_numbers = count(1)


def bars(
    values: Sequence[float | None],
    labels: Sequence[str],
    title: str,
    unit: str = "",
    *,
    limit: float | None = None,
) -> SafeString:
    """Return a plot with a bar for each value; None is a gap, of which nothing is known.

    `labels` say of each bar what it stands for, such as a time. With a `limit` there is a line.
    """
    known = [value for value in values if value is not None]
    top = _round_up(max([*known, limit or 0, 0]))
    place = (WIDTH - LEFT) / max(1, len(values))
    drawn = [
        (
            f"{LEFT + place * (at + GAP / 2):.1f}",
            f"{_y(value, top):.1f}",
            f"{place * (1 - GAP):.1f}",
            f"{_y(0, top) - _y(value, top):.1f}",
            f"{label}: {in_words(value)} {unit}".strip(),
        )
        for at, (value, label) in enumerate(zip(values, labels, strict=True))
        if value is not None
    ]
    number = next(_numbers)
    return format_html(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="plot-{}-t plot-{}-d">'
        '<title id="plot-{}-t">{}</title><desc id="plot-{}-d">{}</desc>{}{}{}{}</svg>',
        *(WIDTH, HEIGHT, number, number, number, title, number, _in_short(known, labels, unit)),
        _axis(top),
        format_html_join(
            "",
            '<rect class="plot__bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            drawn,
        ),
        _line(limit, top) if limit else "",
        _ends(labels),
    )


def in_words(value: float) -> str:
    """Return a number with as many digits as it deserves."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2g}"


def _in_short(known: Sequence[float], labels: Sequence[str], unit: str) -> str:
    if not known:
        return "Nothing is known of this time."
    most, last = in_words(max(known)), in_words(known[-1])
    return f"{labels[0]} to {labels[-1]}. The most: {most} {unit}; the last: {last} {unit}."


def _round_up(value: float) -> float:
    """Return a round number that is no less and not much more."""
    if value <= 0:
        return 1.0
    power = float(10 ** floor(log10(value)))
    return next(step * power for step in _STEPS if step * power >= value * 0.9999)


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(value, top) / top)


def _axis(top: float) -> SafeString:
    lines = [
        (LEFT, WIDTH, f"{_y(value, top):.1f}", LEFT - 5, f"{_y(value, top) + 3:.1f}", label)
        for value, label in ((top, in_words(top)), (0, "0"))
    ]
    return format_html_join(
        "",
        '<path class="plot__axis" d="M{0} {2}H{1}"/>'
        '<text class="plot__label" x="{3}" y="{4}" text-anchor="end">{5}</text>',
        lines,
    )


def _line(value: float, top: float) -> SafeString:
    return format_html(
        '<path class="plot__limit" d="M{0} {2}H{1}"/>', LEFT, WIDTH, f"{_y(value, top):.1f}"
    )


def _ends(labels: Sequence[str]) -> SafeString:
    """Say where time begins and ends."""
    if not labels:
        return SafeString("")
    ends = [(LEFT, "start", labels[0]), (WIDTH, "end", labels[-1])]
    markup = '<text class="plot__label" x="{}" y="{}" text-anchor="{}">{}</text>'
    return format_html_join("", markup, [(x, HEIGHT - 4, at, text) for x, at, text in ends])
