"""``lit-meta evaluate``: a zoo entry on its Avalanche scenario."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.console import percent, table
from lit_meta.cli.parsing import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate",
        evaluate,
        "test a zoo entry anew on its Avalanche scenario",
        example="lit-meta evaluate mlp.naca_split-digits --json out.json",
    )
    parser.add_argument("name", help="of the zoo entry, its folder, or hf://owner/name")
    parser.add_argument("--scenario", help="another scenario than the one it was trained on")
    parser.add_argument(
        "--protocol", choices=("standard", "paper"), help="how test batches are made (default: the card's)"
    )


def evaluate(options: Namespace) -> dict[str, Any]:
    from lit_meta import zoo

    facts = zoo.evaluate(options.name, options.scenario, protocol=options.protocol).to_dict()
    rows = [
        ("average accuracy (%)", percent(facts["average_accuracy"])),
        ("forgetting (points)", percent(facts["forgetting"])),
        ("naive fine-tuning (%)", percent(facts["naive"])),
        ("joint upper bound (%)", percent(facts["joint"])),
        ("seconds", f"{facts['seconds']:.2f}"),
    ]
    caption = "standard: test samples of all experiences are mixed; a prediction depends on its own sample only"
    if facts["protocol"] == "paper":
        caption = "paper: each experience is tested alone, so a batch-dependent gate is told what it should predict"
    title = f"{facts['name']} on {facts['scenario']}, protocol {facts['protocol']}"
    table(title, ("quantity", "value"), rows, caption)
    return facts
