"""Somebody who has a keyboard and no mouse, and who wants to see where they are."""

from playwright.sync_api import Locator, Page

# Stops until something must have been reached: more than any page has.
MOST = 150
# Where the focus is, and whether it can be seen there: something of the element or of what holds it
# looks different with the focus and without, and nothing lies above it.
STOP = """() => {
  const here = document.activeElement;
  if (!here || here === document.body) return {where: "", seen: true};
  const look = () => {
    for (const one of document.getAnimations()) if (one instanceof CSSTransition) one.finish();
    return [here, here.parentElement].map(one => {
      const style = getComputedStyle(one);
      const outline = style.outlineStyle === "none" ? "" : style.outlineWidth + style.outlineColor;
      const line = style.textDecorationLine;
      return [outline, style.boxShadow, style.borderColor, style.backgroundColor, line].join(" ");
    }).join(" ");
  };
  const focused = look();
  here.blur();
  const left = look();
  here.focus({preventScroll: true});
  const {x, y, width, height} = here.getClientRects()[0] ?? {};
  const above = document.elementFromPoint(x + width / 2, y + height / 2);
  const isAbove = !above || !(here.contains(above) || above.contains(here));
  return {
    where: here.outerHTML.slice(0, 160),
    seen: focused !== left && !isAbove && document.activeElement === here,
  };
}"""
IS_FOCUSED = "e => e === document.activeElement"


class Keyboard:
    """What somebody does with the keys of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def step(self, key: str = "Tab") -> str:
        """Press Tab, see that the focus can be seen, and return what has it: nothing at the end."""
        self.page.keyboard.press(key)
        return self._see()

    def _see(self) -> str:
        stop = self.page.evaluate(STOP)
        assert stop["seen"], f"the focus cannot be seen at {self.page.url} on {stop['where']}"
        return str(stop["where"])

    def go_to(self, wanted: Locator, key: str = "Tab") -> None:
        """Press Tab until it has the focus."""
        wanted.wait_for()
        stops: list[str] = []
        while not wanted.evaluate(IS_FOCUSED):
            assert len(stops) < MOST, "never came there:\n" + "\n".join(stops)
            stops.append(self.step(key))
        self._see()

    def go_through(self) -> int:
        """Press Tab through all of the page; return how many stops there are."""
        stops = 0
        while self.step():
            stops += 1
            assert stops < MOST, f"no end of {self.page.url}"
        return stops

    def to(self, role: str, name: str, *, exact: bool = True) -> Locator:
        """Go to what has this role and name."""
        wanted = self.page.get_by_role(role, name=name, exact=exact).first  # type: ignore[arg-type]
        self.go_to(wanted)
        return wanted

    def type(self, name: str, text: str, role: str = "textbox") -> None:
        """Go to a field and type, in the place of what it holds."""
        self.to(role, name)
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.type(text)

    def press(self, role: str, name: str, key: str = "Enter") -> None:
        """Go to a button or link, press the key, and wait for the page that it leads to."""
        self.to(role, name)
        self.leave(key)

    def open(self, words: str) -> None:
        """Go to what unfolds, and unfold it."""
        self.go_to(self.page.locator("summary", has_text=words))
        self.page.keyboard.press("Enter")

    def choose(self, name: str, label: str) -> None:
        """Go to a list of choices and type what one begins with."""
        self.to("combobox", name)
        self.page.keyboard.type(label)

    def leave(self, key: str = "Enter") -> None:
        """Press a key and wait for the page that it leads to."""
        with self.page.expect_navigation():
            self.page.keyboard.press(key)
