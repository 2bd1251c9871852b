"""Small words for templates."""

import json
import re

from django import template
from django.utils.html import escape, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@register.filter
def breakable(text: str) -> SafeString:
    """Return a name or an email address that may break where a reader would break it."""
    parts = text.replace("@", "\0@").replace(".", ".\0").split("\0")
    return format_html_join(SafeString("<wbr>"), "{}", ((part,) for part in parts))


@register.filter
def duration(ms: int | None) -> str:
    """Return milliseconds as people say them: 340 ms, 1.2 s, 3 min; empty for None."""
    if ms is None:
        return ""
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000} min"


@register.filter
def size(amount: int | None) -> str:
    """Return bytes as people say them: 12 KiB, 3.4 MiB, 1.2 GiB; empty for None."""
    if amount is None:
        return ""
    left, unit = float(amount), 0
    while left >= 1024 and unit < len(_UNITS) - 1:
        left, unit = left / 1024, unit + 1
    return (
        f"{left:,.0f} {_UNITS[unit]}" if unit < 2 or left >= 100 else f"{left:,.1f} {_UNITS[unit]}"
    )


@register.filter
def indented(body: str) -> str:
    """Return JSON as people read it."""
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)


@register.filter
def prose(text: str) -> SafeString:
    """Return a text of the API's guide as HTML: paragraphs, `code`, and lines that begin with -."""
    return SafeString("".join(_block(part) for part in re.split(r"\n\s*\n", text.strip()) if part))


@register.filter
def words(text: str) -> SafeString:
    """Return one line of it: what is in backticks is code."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return SafeString(marked)


def _block(text: str) -> str:
    if text.startswith("- "):
        items = (f"<li>{words(line.removeprefix('- '))}</li>" for line in text.splitlines())
        return f"<ul>{''.join(items)}</ul>"
    return f"<p>{words(text)}</p>"
