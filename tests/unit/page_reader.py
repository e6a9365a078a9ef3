"""Reading a page of HTML as a browser would, far enough for tests: elements with their attributes and text."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "input", "br", "rect"})


@dataclass(kw_only=True)
class Element:
    """An element and what is in it."""

    name: str
    attributes: dict[str, str]
    children: "list[Element | str]" = field(default_factory=list)

    def walk(self) -> "Iterator[Element]":
        """This element and all within, in order."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, name: str, **attributes: str) -> "list[Element]":
        """Every element of this name within that has these attributes; `class_` matches one class."""
        wanted = attributes.pop("class_", None)
        return [
            found
            for found in self.walk()
            if found.name == name
            and all(found.attributes.get(key) == value for key, value in attributes.items())
            and (wanted is None or wanted in found.attributes.get("class", "").split())
        ]

    @property
    def text(self) -> str:
        """The text within, blanks and line ends as one blank."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element(name="#page", attributes={})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(name=tag, attributes={key: value or "" for key, value in attrs})
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        closed = self.open.pop()
        assert closed.name == tag, f"</{tag}> closes <{closed.name}>"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(data: bytes) -> Element:
    """Read a page; an element that is not closed in its place is an error."""
    builder = _Builder()
    builder.feed(data.decode())
    builder.close()
    (page,) = builder.open
    return page
