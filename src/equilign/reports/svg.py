"""Turning matplotlib's SVG into SVG that lives inside a page.

The page's content security policy forbids inline ``style`` attributes, so styles become
presentation attributes; colours become CSS variables, so that the figure follows the page's
light or dark scheme; identifiers get a prefix, so that several figures can share a page.
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

_DROPPED = {"metadata", "style", "title"}
_FONT_STYLES = {"font", "font-family"}
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_FONT_SIZE = re.compile(r"([\d.]+)px")
_LONG_DECIMAL = re.compile(r"(\d+\.\d\d)\d+")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _styles(value: str) -> dict[str, str]:
    """Split a style attribute; the ``font`` shorthand, which has no attribute, keeps its size."""
    pairs = (item.partition(":") for item in value.split(";") if ":" in item)
    styles = {name.strip(): text.strip() for name, _, text in pairs}
    size = _FONT_SIZE.search(styles.get("font", ""))
    if size:
        styles.setdefault("font-size", size.group())
    return {name: text for name, text in styles.items() if name not in _FONT_STYLES}


def _attributes(element: ElementTree.Element, prefix: str, colours: Mapping[str, str]) -> None:
    old = {_local(name): value for name, value in element.attrib.items()}
    new = old | _styles(old.pop("style", ""))
    for name, value in new.items():
        if name == "id":
            value = f"{prefix}-{value}"
        elif name == "href":
            value = f"#{prefix}-{value.removeprefix('#')}"
        elif name in {"d", "x", "y", "transform", "points"}:
            value = _LONG_DECIMAL.sub(r"\1", " ".join(value.split()))
        value = _REFERENCE.sub(rf"url(#{prefix}-\1)", value)
        new[name] = colours.get(value.lower(), value)
    element.attrib.clear()
    element.attrib.update(new)


def inline_svg(source: bytes, prefix: str, title: str, colours: Mapping[str, str]) -> str:
    """Rewrite a standalone SVG document as an inline ``<svg>`` element.

    Args:
        source: What matplotlib wrote.
        prefix: Put before every identifier; must be unique on the page.
        title: Accessible name, also the element's ``<title>``.
        colours: Lower-case hexadecimal colour to the CSS value that replaces it.

    Returns:
        The element as text, without namespaces, styles or size.
    """
    root = ElementTree.fromstring(source)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in _DROPPED:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.text = (element.text or "").strip() or None
        element.tail = None
        _attributes(element, prefix, colours)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"role": "img", "aria-label": title, "class": "chart"})
    heading = ElementTree.Element("title")
    heading.text = title
    root.insert(0, heading)
    return ElementTree.tostring(root, encoding="unicode")
