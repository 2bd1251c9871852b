"""axe-core on pages that are open: light and dark, wide and narrow; and what a phone cuts off.

A page is loaded once, and all rules are asked at each width. Contrast takes axe longest, so it is
asked once for each look that texts have: the same kind of element in the same colours on the same
ground, as large and as bold, has the same contrast on every page. Where a page has texts of new
looks, it is looked at in the dark too.
"""

from typing import Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

WIDE, NARROW = 1280, 390
HEIGHT = 900
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CONTRAST = "color-contrast"
EVERYTHING = {"type": "tag", "values": TAGS}
# What light and dark make a difference to.
COLOURS = {"type": "rule", "values": [CONTRAST, "link-in-text-block"]}
# Texts of one look that are asked for on a page: some lie below others, where axe cannot tell.
TRIES = 3

# Keeps axe from asking twice for the contrast of what looks the same.
PREPARE = """([contrast, tries]) => {
  const isClear = colour => colour === "rgba(0, 0, 0, 0)";
  const isOpaque = style => style.backgroundColor.startsWith("rgb(");
  let below, known, asked;
  // What lies below an element, from the last thing on that nothing shines through.
  const ground = element => {
    if (!element) return "";
    if (!below.has(element)) {
      const style = getComputedStyle(element), {backgroundColor, backgroundImage, opacity} = style;
      const own = [
        isClear(backgroundColor) ? "" : backgroundColor,
        backgroundImage === "none" ? "" : backgroundImage,
        opacity === "1" ? "" : opacity,
      ].filter(Boolean).join(" ");
      const covers = isOpaque(style) && own === backgroundColor;
      below.set(element, covers ? own : [ground(element.parentElement), own].join("/"));
    }
    return below.get(element);
  };
  const lookOf = element => {
    const {color, fontSize, fontWeight, textShadow} = getComputedStyle(element);
    const kind = `${element.localName}.${[...element.classList].join(".")}`;
    return [kind, color, fontSize, fontWeight, textShadow, ground(element)].join("|");
  };
  const rule = axe._audit.getRule(contrast), matches = rule.matches;
  rule.matches = function (element, ...more) {
    const look = lookOf(element), times = asked.get(look)?.length ?? 0;
    if (known.has(look) || times >= tries) return false;
    if (!matches.call(this, element, ...more)) return false;
    asked.set(look, [...(asked.get(look) ?? []), element]);
    return true;
  };
  window.axeRun = async (options, looks) => {
    // Colours that fade from one look to the other are not looked at half-way.
    for (const one of document.getAnimations()) if (one instanceof CSSTransition) one.finish();
    [below, known, asked] = [new Map(), new Set(looks), new Map()];
    const {violations, incomplete} = await axe.run(document, options);
    const unsure = new Set(
      incomplete.filter(one => one.id === contrast).flatMap(one => one.nodes).map(n => n.element)
    );
    return {
      wrong: violations.flatMap(one => one.nodes.map(node => [
        `${one.id}: ${one.help}`, `${node.target.join(" ")}   ${node.html.slice(0, 200)}`,
        node.failureSummary.split("\\n").slice(1).map(line => line.trim()).join("; "),
      ])),
      looks: [...asked].filter(([, all]) => all.some(e => !unsure.has(e))).map(([look]) => look),
      isNews: asked.size > 0,
    };
  };
}"""
RUN = "([options, looks]) => axeRun(options, looks)"
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
        self.looks: set[str] = set()

    def look_at(self, page: Page, name: str) -> None:
        """Let axe look at a page: in the dark and the light, wide and narrow."""
        page.evaluate(AXE_SCRIPT)
        page.evaluate(PREPARE, [CONTRAST, TRIES])
        # Dark only where there are texts of looks that no page had until now.
        for width in (NARROW, WIDE):
            if self._run(page, name, "light", width):
                self._run(page, name, "dark", width)

    def _run(self, page: Page, name: str, scheme: Literal["light", "dark"], width: int) -> bool:
        """Note what is wrong; return whether there were texts of looks that are new to us."""
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.emulate_media(color_scheme=scheme)
        for where in page.evaluate(CUT_OFF):
            cut = self.found.setdefault(("cut-off: more than fits", where, ""), [])
            cut.append(f"{name}, {width} wide")
        options = {
            "runOnly": EVERYTHING if scheme == "light" else COLOURS,
            "rules": {"target-size": {"enabled": scheme == "light"}},
            "resultTypes": ["violations", "incomplete"],
            "elementRef": True,
            # It would put style sheets into the page, which our policy forbids, for a rule of no
            # concern.
            "preload": False,
        }
        result = page.evaluate(RUN, [options, list(self.looks)])
        self.looks.update(result["looks"])
        for rule, where, why in result["wrong"]:
            if not rule.startswith(self.but) and not self._is_of_django(rule, where):
                places = self.found.setdefault((rule, where, why), [])
                places.append(f"{name}, {scheme}, {width} wide")
        return bool(result["isNews"])

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
