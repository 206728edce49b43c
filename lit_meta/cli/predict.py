"""``lit-meta predict``: the classes of images and recordings of one's own, by a zoo entry."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import table
from lit_meta.cli.parsing import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict",
        predict,
        "the classes of images and recordings of your own, by a zoo entry",
        example="lit-meta predict patch-net.recursive-readout_split-digits digit.png",
    )
    parser.add_argument("name", help="of the zoo entry, its folder, or hf://owner/name@revision")
    parser.add_argument(
        "files",
        nargs="+",
        help="images; mono recordings of 16 bits (WAV, FLAC) for entries of spoken words; .npy files for those of arrays",
    )


def predict(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    predictions = zoo.predict(options.name, list(options.files))
    rows = [
        (file, prediction.class_name, prediction.second, f"{prediction.margin:.3f}")
        for file, prediction in zip(options.files, predictions, strict=True)
    ]
    caption = (
        "margin: by how much the output of the first class exceeds that of the second; outputs are no probabilities"
    )
    table(f"predicted by {options.name}", ("file", "class", "second", "margin"), rows, caption)
    return {
        "name": options.name,
        "predictions": {file: p.to_dict() for file, p in zip(options.files, predictions, strict=True)},
    }
