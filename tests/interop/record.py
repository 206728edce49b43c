"""Writes what the cells of the matrix come to into docs/interop.json.

``python -W ignore -m tests.interop.record`` runs all; ``lstm``, ``/fabric`` or ``lstm/fabric`` behind it only those.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from lit_meta.rules import RULES
from tests.interop.cells import verdict
from tests.interop.models import MODELS

RECORD = Path(__file__).parents[2] / "docs" / "interop.json"


def recorded() -> dict[str, dict[str, dict[str, str]]]:
    """The committed verdicts, by model, host and rule."""
    return json.loads(RECORD.read_text()) if RECORD.is_file() else {}


def main(chosen: list[str]) -> None:
    """Runs the cells of some ``MODEL/HOST``, of a model, or all, and keeps the other verdicts."""
    torch.set_num_threads(1)
    verdicts = recorded()
    for name, model in MODELS.items():
        for host in model.hosts:
            if model.missing or (chosen and not {name, f"/{host}", f"{name}/{host}"} & set(chosen)):
                continue
            started = time.perf_counter()
            cells = {rule: verdict(name, rule, host) for rule in sorted(RULES)}
            verdicts.setdefault(name, {})[host] = cells
            _write(verdicts)
            print(f"{name}/{host}: {time.perf_counter() - started:.1f} s", flush=True)
            for rule, text in cells.items():
                if text.startswith("fails"):
                    print(f"  {rule} {text}", flush=True)


def _write(verdicts: dict[str, dict[str, dict[str, str]]]) -> None:
    # In the order of the matrix, so that the file changes only where the verdicts do.
    ordered = {n: {h: verdicts[n][h] for h in m.hosts if h in verdicts.get(n, {})} for n, m in MODELS.items()}
    RECORD.write_text(json.dumps({name: hosts for name, hosts in ordered.items() if hosts}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
