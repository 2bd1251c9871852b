"""Small words for templates."""

import json

from django import template
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

register = template.Library()


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
def indented(body: str) -> str:
    """Return JSON as people read it."""
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
