#!/usr/bin/env python3
"""Lists the public API of a crate from the pages that rustdoc has written.

    scripts/public-api.py target/doc ironwarp > docs/api/ironwarp.txt

Every module, item, method and trait implementation is listed with its signature, so that a change of the API shows in
a diff. Implementations that the compiler derives from others (auto traits, blanket implementations) are left out.
`make api` calls this script. It reads the pages that stable rustdoc writes, because rustdoc's JSON is unstable: its
format changes with most releases, and a tool that reads it works with a few of them only.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# Headings above what other pages say, or what follows from it.
SKIPPED = {"synthetic-implementations", "blanket-implementations", "implementors", "synthetic-implementors"}
# Parts of a declaration that are no part of it: `Show 12 fields`, links to the source.
DECORATION = {"hideme", "src", "rightside", "since"}
ITEM = re.compile(r"(?:struct|enum|union|trait|traitalias|fn|macro|constant|static|type|derive|attr)\.\w+\.html")


class Page(HTMLParser):
    """The signatures and the links of a page, in their order."""

    def __init__(self, path):
        super().__init__()
        self.stack = []  # (tag, whether its text is part of a signature, what the element is)
        self.heading = self.section = None
        self.text = None
        self.found = []  # (kind, heading, section, text)
        self.links = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        classes = set((attributes.get("class") or "").split())
        what = None
        if tag == "h2":
            self.heading = attributes.get("id")
        if tag in ("h3", "section"):
            self.section = attributes.get("id") or self.section
        if self.text is None and (tag == "pre" and "item-decl" in classes):
            what = "declaration"
        elif self.text is None and tag in ("h3", "h4") and "code-header" in classes:
            what = "impl" if tag == "h3" else "member"
        elif self.text is None and tag == "dt":
            what = "reexport" if (attributes.get("id") or "").startswith("reexport.") else "entry"
        if what:
            self.text = []
        if tag == "a" and attributes.get("href"):
            self.links.append((classes, attributes["href"]))
        if self.text is not None and "where" in classes:
            self.text.append(" ")
        if tag not in VOID:
            visible = not (classes & DECORATION) and (not self.stack or self.stack[-1][1])
            self.stack.append((tag, visible, what))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        while self.stack:
            top, _, what = self.stack.pop()
            if what:
                self.found.append((what, self.heading, self.section, "".join(self.text)))
                self.text = None
            if top == tag:
                break

    def handle_data(self, data):
        if self.text is not None and self.stack[-1][1]:
            self.text.append(data)


def one_line(text):
    """A signature without line breaks."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"([(\[<]) ", r"\1", text)
    return re.sub(r",? ([)\]])", r"\1", text).replace(", }", " }").removesuffix(",")


def declaration(text):
    """The lines of a declaration: one for each field, variant or item of a trait."""
    lines = [line for line in text.replace("\xa0", " ").splitlines() if line.strip()]
    head, joined = [], []
    for line in lines:
        if not joined and not (head and head[-1].endswith("{")):
            head.append(line)
            continue
        # A line continues the one before it if it is indented further, or if that one has open brackets.
        opened = joined and sum(joined[-1].count(c) for c in "([{") - sum(joined[-1].count(c) for c in ")]}")
        if joined and (line.startswith(" " * 8) or opened > 0):
            joined[-1] += " " + line.strip()
        else:
            joined.append(line)
    return [one_line(" ".join(head))] + [("    " if line.startswith(" ") else "") + one_line(line) for line in joined]


def grouped(implementations):
    """The lines of implementations, in a fixed order: own methods, then traits. Those without members share lines."""
    own = sorted((entry for entry in implementations if " for " not in entry[0]), key=lambda entry: entry[0])
    traits = sorted(entry for entry in implementations if " for " in entry[0])
    plain = {}
    for header, members in traits:
        # `impl Clone for X`, `impl<'de> Deserialize<'de> for X`
        simple = re.fullmatch(r"impl(?:<'de>)? (\w+(?:<'de>)?) for (.*)", header)
        if simple and not members and simple.group(1) != "StructuralPartialEq":
            plain.setdefault(simple.group(2), []).append(simple.group(1))
    lines = []
    for header, members in own:
        lines += ["  " + header, *("    " + member for member in members)]
    lines += [f"  impl {', '.join(names)} for {target}" for target, names in plain.items()]
    for header, members in traits:
        if members or not re.fullmatch(r"impl(?:<'de>)? \w+(?:<'de>)? for .*", header):
            lines += ["  " + header, *("    " + member for member in members)]
    return lines


def item(path):
    """The lines of an item: its declaration, its methods and its trait implementations."""
    lines, implementations = [], []
    is_trait = path.name.startswith("trait.")
    for kind, heading, section, text in Page(path).found:
        if heading in SKIPPED:
            continue
        if kind == "declaration":
            lines += [one_line(text)] if path.name.startswith("fn.") else declaration(text)
        elif kind == "impl" and section.startswith("impl-"):
            implementations.append((one_line(text), []))
        elif kind == "member" and implementations and not is_trait:
            # Of the implementation of a trait, its types and constants; the trait's page has the methods.
            header, members = implementations[-1]
            if " for " not in header or not re.match(r"(const |unsafe )*fn ", text):
                members.append(one_line(text))
    return lines + grouped(implementations)


def module(folder, path, lines):
    """Appends the lines of a module and of everything in it."""
    page = Page(folder / "index.html")
    lines.append(f"\nmod {path}")
    lines += sorted("  " + one_line(text) for kind, _, _, text in page.found if kind == "reexport")
    names = sorted({href for _, href in page.links if ITEM.fullmatch(href)})
    for name in names:
        lines += ["  " + line for line in item(folder / name)]
    for name in sorted({href for classes, href in page.links if "mod" in classes and href.endswith("/index.html")}):
        if re.fullmatch(r"\w+/index\.html", name):
            inner = name.removesuffix("/index.html")
            module(folder / inner, f"{path}::{inner}", lines)


def main():
    root, crate = Path(sys.argv[1]), sys.argv[2].replace("-", "_")
    lines = [f"# The public API of {sys.argv[2]}, written by `make api`. `make check-api` compares it."]
    module(root / crate, crate, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
