"""``lit-meta schema``: what editors check and complete configs with."""

from __future__ import annotations

import json
import sys
from typing import Any

from jsonargparse import Namespace

from lit_meta.cli.parsing import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "schema",
        schema,
        "print the JSON Schema of configs, with every name there is, for editors",
        example="lit-meta schema experiment > experiment.schema.json",
    )
    parser.add_argument(
        "kind", nargs="?", choices=("experiment", "sweep"), default="experiment", help="of config (default: experiment)"
    )


def schema(options: Namespace) -> dict[str, Any]:
    from lit_meta.experiments.schema import experiment_schema, sweep_schema

    content = sweep_schema() if options.kind == "sweep" else experiment_schema()
    sys.stdout.write(json.dumps(content, indent=1) + "\n")
    return content
