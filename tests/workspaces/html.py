"""Read a page as a person would: its forms, links and texts; and check what every page owes."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "wbr", "source"}
SVG_VOID = {"rect", "circle", "path"}


@dataclass
class Element:
    """One element with its attributes, and the text in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list[str] = field(default_factory=list)

    def get(self, name: str) -> str:
        """Return an attribute, empty when it is not there."""
        return self.attributes.get(name, "")


class Page(HTMLParser):
    """A parsed page. Raises AssertionError for tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {[element.tag for element in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        element.inside = [parent.tag for parent in self._open]
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        """Return the elements with this tag."""
        return [element for element in self.elements if element.tag == tag]

    def by_id(self, name: str) -> Element:
        """Return the element with this id."""
        return next(element for element in self.elements if element.get("id") == name)

    @property
    def actions(self) -> set[str]:
        """Where its forms post to."""
        return {form.get("action") for form in self.all("form")}

    @property
    def links(self) -> set[str]:
        """Where its links lead."""
        return {link.get("href") for link in self.all("a")}


def problems(html: str) -> list[str]:
    """Return what is wrong with a page in ways that every page must not be."""
    page = Page(html)
    found: list[str] = []
    if [element.get("lang") for element in page.all("html")] != ["en"]:
        found.append("the language is not said")
    titles = [title.text.strip() for title in page.all("title") if "svg" not in title.inside]
    if len(titles) != 1 or not titles[0]:
        found.append(f"titles: {titles}")
    headings = [heading.text.strip() for heading in page.all("h1")]
    if len(headings) != 1 or not headings[0]:
        found.append(f"h1: {headings}")
    if len(page.all("main")) != 1:
        found.append("not one main")
    ids = [element.get("id") for element in page.elements if element.get("id")]
    found += [f"id twice: {name}" for name in {name for name in ids if ids.count(name) > 1}]
    for element in page.elements:
        found += [
            f"{name} on <{element.tag}>: the CSP forbids it"
            for name in element.attributes
            if name == "style" or name.startswith("on")
        ]
    return found + _controls(page, set(ids))


def _controls(page: Page, ids: set[str]) -> list[str]:
    found: list[str] = []
    labelled = {label.get("for") for label in page.all("label")}
    for tag in ("input", "select", "textarea", "progress"):
        for control in page.all(tag):
            if control.get("type") in ("hidden", "submit"):
                continue
            if control.get("id") not in labelled and not control.get("aria-label"):
                found.append(f"no label: <{tag} name={control.get('name')}>")
            for name in control.get("aria-describedby").split():
                if name not in ids:
                    found.append(f"described by #{name}, which is not there")
    for tag in ("a", "button"):
        for control in page.all(tag):
            if not control.text.strip() and not control.get("aria-label"):
                found.append(f"<{tag}> without words")
    return found
