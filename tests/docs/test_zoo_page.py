"""The tutorial of docs/zoo.md runs as it stands, on a folder of images."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from PIL import Image

from lit_meta import zoo
from lit_meta.data import load_source

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"


def test_the_tutorial_learns_classes_of_ones_own_and_keeps_the_old_ones(tmp_path, monkeypatch, capsys):
    digits = load_source("digits")
    for name, label in (("four", 4), ("seven", 7)):  # Upside down, as ink on paper.
        (tmp_path / "images" / name).mkdir(parents=True)
        for number, sample in enumerate(digits.train_x[digits.train_y == label][:80]):
            pixels = (255 * (1 - sample[0].flip(0))).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number:02}.png")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(block, scope)
    printed = capsys.readouterr().out
    assert "four" in printed
    assert float(re.search(r"([\d.]+)% on the new", printed)[1]) > 90
    before, after = zoo.load("recursive-readout-digits"), zoo.load(tmp_path / "mine")
    with torch.no_grad():
        old, new = ((n(digits.test_x).argmax(1) == digits.test_y).float().mean() for n in (before, after))
    assert float(new) > float(old) - 0.005
