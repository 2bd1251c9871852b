"""axe-core on pages that are open: light and dark, wide and narrow; and what a phone cuts off."""

from typing import Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

WIDTHS = (1280, 390)
HEIGHT = 900
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
EVERYTHING = {
    "runOnly": {"type": "tag", "values": TAGS},
    "rules": {"target-size": {"enabled": True}},
    "resultTypes": ["violations"],
    # It would put style sheets into the page, which our policy forbids, for a rule of no concern.
    "preload": False,
}
# What light and dark make a difference to.
COLOURS = {
    "runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
    "resultTypes": ["violations"],
    "preload": False,
}
# Colours that fade from one look to the other are not looked at half-way.
RUN = """async options => {
  for (const one of document.getAnimations()) if (one instanceof CSSTransition) one.finish();
  const {violations} = await axe.run(document, options);
  return violations.flatMap(rule => rule.nodes.map(node => [
    `${rule.id}: ${rule.help}`, `${node.target.join(" ")}   ${node.html.slice(0, 200)}`,
    node.failureSummary.split("\\n").slice(1).map(line => line.trim()).join("; "),
  ]));
}"""
# What lies out of sight: the page itself scrolls sideways, or one of its tabs is cut off.
CUT_OFF = """() => [
  ...[document.documentElement].filter(one => one.scrollWidth > innerWidth),
  ...[...document.querySelectorAll(".tabs a")].filter(
    one => one.getBoundingClientRect().right > innerWidth + 1),
].map(one => one.outerHTML.slice(0, 200))"""


class Findings:
    """What axe found wrong: each thing once, with the pages and looks that have it."""

    def __init__(self, *but: str) -> None:
        """Look for all but some rules."""
        self.found: dict[tuple[str, str, str], list[str]] = {}
        self.but = but

    def look_at(self, page: Page, name: str) -> None:
        """Let axe look at a page in all of its looks."""
        page.evaluate(AXE_SCRIPT)
        scheme: Literal["light", "dark"]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            for where in page.evaluate(CUT_OFF):
                places = self.found.setdefault(("cut-off: more than fits", where, ""), [])
                places.append(f"{name}, {width} wide")
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                options = EVERYTHING if scheme == "light" else COLOURS
                for rule, where, why in page.evaluate(RUN, options):
                    if rule.startswith(self.but) or self._is_of_django(rule, where):
                        continue
                    places = self.found.setdefault((rule, where, why), [])
                    places.append(f"{name}, {scheme}, {width} wide")

    @staticmethod
    def _is_of_django(rule: str, where: str) -> bool:
        """Whether this is an icon that Django's script for choosing many makes, with a label.

        It repeats what the field says, so nothing is lost; there is no template to mend.
        """
        return rule.startswith("aria-prohibited-attr") and "search-label-icon" in where

    def __str__(self) -> str:
        return "\n".join(
            f"{rule}\n    {where}\n    {why}\n    on {len(places)}: {'; '.join(places)}"
            for (rule, where, why), places in sorted(self.found.items())
        )


def demand_nothing_wrong(page: Page) -> None:
    """Fail where axe finds something wrong with a page that a test has come to."""
    findings = Findings()
    findings.look_at(page, page.url)
    assert not findings.found, f"\n{findings}"
