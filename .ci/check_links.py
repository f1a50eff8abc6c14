"""Check the links of a built site: every page, file and anchor that one names is there.

Usage: ``python .ci/check_links.py docs/_build/html``. Links to other sites are only listed
with ``--others``, as no network is asked.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ATTRIBUTES = {"a": "href", "link": "href", "img": "src", "script": "src", "object": "data"}


class Page(HTMLParser):
    """The places that a page has, and those that it names."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.targets = {""}, set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Note the anchors and the links of a tag."""
        attributes = dict(attrs)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        target = attributes.get(_ATTRIBUTES.get(tag, ""))
        if target:
            self.targets.add(target)


def main(folder, *options):
    """Print what is wrong, and return how many links are."""
    root = Path(folder).resolve()
    pages = {path: Page(path) for path in sorted(root.rglob("*.html"))}
    if not pages:
        raise SystemExit(f"{root} has no page")
    wrong, others, checked = [], set(), 0
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("data", "javascript", "mailto"):
                    others.add(target)
                continue
            checked += 1
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = place / "index.html" if place.is_dir() else place
            if not place.is_file() or not place.is_relative_to(root):
                wrong.append(f"{path.relative_to(root)}: {target}: there is no such file")
            elif place in pages and unquote(parts.fragment) not in pages[place].anchors:
                wrong.append(f"{path.relative_to(root)}: {target}: the page has no such anchor")
    print("\n".join(wrong + (sorted(others) if "--others" in options else [])))
    print(f"{len(pages)} pages, {checked} links in the site, {len(wrong)} wrong")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
