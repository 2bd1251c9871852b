"""Small words for templates."""

from django import template

register = template.Library()


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
