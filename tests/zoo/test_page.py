"""The page on all entries: complete, self-contained, and safe to open."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

from lit_meta import zoo
from lit_meta.cli import main
from lit_meta.utils.paths import zoo_folder
from lit_meta.zoo.page import page
from lit_meta.zoo.schema import digest_of


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.rows, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.links += [values[key] for key in ("src", "href") if key in values]
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th") and self.rows:
            self.rows[-1] += 1


def test_every_entry_has_a_row_and_nothing_comes_from_outside(tmp_path, capsys):
    assert main(["zoo", "page", str(tmp_path / "zoo.html")]) == 0
    text = (tmp_path / "zoo.html").read_text()
    reader = Reader(text)
    assert len(reader.rows) == len(zoo.names()) + 1
    assert len(set(reader.rows)) == 1
    assert reader.links == ["data:,"]
    for name in zoo.names():
        assert f">{name}</th>" in text.replace("<wbr>", "")
    assert "33.7 ± 5.5" in text


def test_what_a_card_says_is_text(tmp_path):
    entry = tmp_path / "entry"
    shutil.copytree(zoo_folder() / "mlp.ewc_split-digits", entry)
    card = json.loads((entry / "config.json").read_text())
    card["name"] = card["experiment"]["name"] = "<script>alert('x')<script>"
    card["sha256"]["config.json"] = digest_of(card)
    (entry / "config.json").write_text(json.dumps(card))
    text = page([entry])
    assert Reader(text).tags.count("script") == 1
    assert "&lt;script&gt;" in text
