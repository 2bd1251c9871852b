"""Pieces of the operators' pages."""

from collections.abc import Sized

from django import template
from django.utils.safestring import SafeString

from workspaces.admin import plots
from workspaces.dashboard import Series, Share

register = template.Library()


@register.simple_tag
def plot(series: Series) -> SafeString:
    """Draw one thing over time."""
    title = f"{series.title} in {series.span}: {series.total}, at most {series.most} at a time"
    return plots.bars([point.value for point in series.points], title)


@register.simple_tag
def share(one: Share) -> SafeString:
    """Draw how much is taken."""
    words = f"{one.title}: {one.percent} % taken"
    return plots.share(one.percent, words, short=one.is_short)


@register.filter
def less(count: int, shown: Sized) -> int:
    """Return how many there are beside those that are shown."""
    return count - len(shown)
