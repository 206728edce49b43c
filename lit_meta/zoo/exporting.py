"""Entries taken out of the zoo: as they are, or in the form of another program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit_meta.utils.arguments import require_one_of
from lit_meta.utils.io import check_folder
from lit_meta.zoo.cards import read_card
from lit_meta.zoo.layout import GOLDEN, locate

FORMATS = ("safetensors", "torch.export", "onnx", "nir")
_SUFFIXES = {"torch.export": ".pt2", "onnx": ".onnx", "nir": ".nir"}


def export(source: str | Path, folder: str | Path, *, format: str = "safetensors") -> Path:
    """Writes an entry to ``folder/name``, or its network to ``folder/name.SUFFIX``.

    Args:
        source: as of `lit_meta.zoo.load`.
        folder: for what is written.
        format: ``"safetensors"``: the entry as it is; ``"torch.export"``: a ``.pt2`` program for `torch.export.load`;
            ``"onnx"``: for ONNX Runtime, inputs (batch, *shape) named ``input``, outputs named ``output``; ``"nir"``: the
            neuromorphic intermediate representation, for snnTorch, Norse and neuromorphic hardware. The last two need the
            extra ``export``. Before it is kept, a program is run on the golden inputs where this library can run it.

    Returns:
        What was written.

    Raises:
        FileExistsError: it is there already.
        KeyError: no entry of that name.
        ModuleNotFoundError: a library is not installed.
        ValueError: the network has no such form: NIR knows convolutions, Linear layers, average pooling and leaky neurons; the
            others take networks that are the same for every batch.
    """
    require_one_of("format", format, FORMATS)
    files = locate(source)
    card = read_card(files)
    target = Path(folder) / (card["name"] + _SUFFIXES.get(format, ""))
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    check_folder(target.parent)
    if format == "safetensors":
        target.mkdir(parents=True)
        for file, path in files.paths.items():
            shutil.copyfile(path, target / file)
        return target
    from lit_meta.zoo.checks import read_tensors
    from lit_meta.zoo.entries import load

    network = load(source)
    if GOLDEN not in files.paths:
        raise ValueError(f"{files.name} has the format 1, without golden inputs: lit-meta zoo migrate {files.name}")
    golden = read_tensors(files, card, GOLDEN).tensors()
    write: Callable[[Any, dict[str, Any], Path], None] = {
        "torch.export": _write_program,
        "onnx": _write_onnx,
        "nir": _write_nir,
    }[format]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".partial-{target.name}")
    try:
        write(network, golden, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _program(network: Any, golden: dict[str, Any]) -> Any:
    import torch

    inputs = golden["inputs"]
    inputs = torch.cat([inputs, inputs]) if len(inputs) < 2 else inputs  # A batch of one would be taken for a constant.
    try:
        with torch.no_grad():
            return torch.export.export(network, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # Of torch, of many types.
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"the network is no program that torch.export can follow: {reason}") from None


def _write_program(network: Any, golden: dict[str, Any], path: Path) -> None:
    import torch

    program = _program(network, golden)
    with torch.no_grad():
        _compare(program.module()(golden["inputs"]), golden["outputs"])
    # The suffix decides how torch writes it.
    place = path.with_suffix(".pt2")
    torch.export.save(program, place)
    place.replace(path)


def _write_onnx(network: Any, golden: dict[str, Any], path: Path) -> None:
    import torch

    _need("onnx", "onnxscript", "onnxruntime")
    import onnxruntime

    program: Any = torch.onnx.export(
        _program(network, golden), input_names=["input"], output_names=["output"], verbose=False, dynamo=True
    )
    program.save(str(path))
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: golden["inputs"].numpy()})
    _compare(torch.from_numpy(outputs), golden["outputs"])


def _write_nir(network: Any, golden: dict[str, Any], path: Path) -> None:
    _need("nir")
    import nir

    from lit_meta.zoo.nir_graph import nir_graph

    nir.write(str(path), nir_graph(network))


def _compare(outputs: Any, expected: Any) -> None:
    difference = float((outputs - expected).abs().max())
    if not difference <= 1e-4 * max(1.0, float(expected.abs().max())):
        raise ValueError(f"the exported network gives other outputs than the golden ones, by {difference:.2g}")


def _need(*libraries: str) -> None:
    from importlib.util import find_spec

    for library in libraries:
        if find_spec(library) is None:
            raise ModuleNotFoundError(f"this format needs {library}: pip install 'lit-meta[export]'", name=library)
