"""A small document tree on top of html.parser, for asserting structure instead of substrings."""

from html.parser import HTMLParser

SECTIONS = ["summary", "win-rate", "front", "attributes", "cycles", "answers", "judges", "run"]
VOID = {"meta", "link", "input", "br", "img", "hr", "base", "source", "embed"}


class Node:
    def __init__(self, tag, attributes=(), parent=None):
        self.tag = tag
        self.attributes = dict(attributes)
        self.parent = parent
        self.children = []

    def __getitem__(self, name):
        return self.attributes[name]

    def get(self, name, default=None):
        return self.attributes.get(name, default)

    def walk(self):
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.walk()

    def all(self, tag=None, cls=None):
        return [
            node
            for node in self.walk()
            if (tag is None or node.tag == tag)
            and (cls is None or cls in (node.get("class") or "").split())
        ]

    def first(self, tag=None, cls=None):
        found = self.all(tag, cls)
        assert found, f"no <{tag} class={cls}> in <{self.tag}>"
        return found[0]

    def by_id(self, name):
        found = [node for node in self.walk() if node.get("id") == name]
        assert len(found) == 1, f"{len(found)} elements with id {name}"
        return found[0]

    def text(self):
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def words(self):
        """The text with any run of white space as one blank, hard blanks included."""
        return " ".join(self.text().split())


class _Builder(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = self.here = Node("#document")

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs, self.here)
        self.here.children.append(node)
        if tag not in VOID:
            self.here = node

    def handle_startendtag(self, tag, attrs):
        self.here.children.append(Node(tag, attrs, self.here))

    def handle_endtag(self, tag):
        assert tag == self.here.tag, f"</{tag}> closes <{self.here.tag}>"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"comment in the page: {data}")


def parse(html):
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder.here is builder.root, f"<{builder.here.tag}> is never closed"
    return builder.root


def table_rows(table):
    """The cells of a table, header rows included."""
    return [
        [cell.words() for cell in row.children if isinstance(cell, Node)] for row in table.all("tr")
    ]


def tiles(method):
    return {
        div.first("dt").words(): div.first("dd").words()
        for div in method.first("dl", "figures").all("div")
    }


def figure_table(page, key):
    return table_rows(page.by_id(f"figure-{key}").first("details").first("table"))
