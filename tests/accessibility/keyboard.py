"""Somebody who has a keyboard and no mouse."""

from playwright.sync_api import Locator, Page

# Stops until something must have been reached: more than any page has.
MOST = 150
# What of an element's look tells whether it has the focus, with it and without.
LOOKS = """e => {
  const look = () => {
    const style = getComputedStyle(e);
    const outline = style.outlineStyle === "none" ? "" : style.outlineWidth + style.outlineColor;
    return [outline, style.boxShadow, style.borderColor, style.backgroundColor].join(" ");
  };
  const focused = look();
  e.blur();
  const left = look();
  e.focus({preventScroll: true});
  return [focused, left];
}"""
IS_FOCUSED = "e => e === document.activeElement"
WHERE = "() => document.activeElement?.outerHTML.slice(0, 120) ?? ''"


class Keyboard:
    """What somebody does with the keys of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def go_to(self, wanted: Locator, key: str = "Tab") -> None:
        """Press Tab until it has the focus, and see that the focus can be seen there."""
        wanted.wait_for()
        stops: list[str] = []
        while not wanted.evaluate(IS_FOCUSED):
            assert len(stops) < MOST, "never came there:\n" + "\n".join(stops)
            self.page.keyboard.press(key)
            stops.append(self.page.evaluate(WHERE))
        focused, left = wanted.evaluate(LOOKS)
        assert focused != left, f"the focus cannot be seen on {stops[-1:]}"
        assert wanted.evaluate(IS_FOCUSED)

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

    def leave(self, key: str = "Enter") -> None:
        """Press a key and wait for the page that it leads to."""
        with self.page.expect_navigation():
            self.page.keyboard.press(key)
