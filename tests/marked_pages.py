"""Reads HTML pages with marked texts as a browser would: elements, the text in them, pictures, and what a
page may load.
"""

from html.parser import HTMLParser

VOID = ("meta", "img", "br", "link", "input", "hr")


class Element:
    """An element with its attributes and what is in it, texts and elements."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: "Element | None" = None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element | str] = []

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def find(self, tag: str, css_class: str | None = None) -> list["Element"]:
        """The elements of a kind below this one, in order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and css_class in (None, *child.attributes.get("class", "").split()):
                    found.append(child)
                found += child.find(tag, css_class)
        return found

    def everything(self) -> list["Element"]:
        children = [child for child in self.children if isinstance(child, Element)]
        return [self, *(one for child in children for one in child.everything())]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.place = Element("", {})

    def handle_starttag(self, tag, attributes):
        element = Element(tag, {name: value or "" for name, value in attributes}, self.place)
        self.place.children.append(element)
        if tag not in VOID:
            self.place = element

    def handle_endtag(self, tag):
        assert self.place.tag == tag, f"expected the end of {self.place.tag}, found that of {tag}"
        self.place = self.place.parent

    def handle_data(self, data):
        self.place.children.append(data)


def read_html(text: str) -> Element:
    """The page; an end that is not that of the innermost element is an error."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.place is reader.root
    return reader.root


def marks_of(element: Element) -> list[tuple[str, str]]:
    """The marked texts in an element and their labels."""
    found = []
    for mark in element.find("mark"):
        labels = mark.find("span", "type")
        parts = [part for part in mark.children if part not in labels]
        text = "".join(part if isinstance(part, str) else part.text for part in parts)
        found.append((text, "".join(label.text for label in labels)))
    return found
