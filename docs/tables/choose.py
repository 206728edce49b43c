"""The table by need: what each rule asks of a stream, and how it did, from committed results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from docs.tables.results import DOCS, committed, is_given_tasks, write
from lit_meta.experiments.summary import percent


@dataclass(frozen=True)
class Need:
    """What a rule asks for.

    Attributes:
        rule: its class.
        boundaries: whether the end of an experience must be announced.
        labels: whether it looks at labels itself.
        permuted: the experiment on permuted MNIST; None where there is none.
        split: the experiment and learner on split MNIST with growing outputs; None where there is none.
    """

    rule: str
    boundaries: str
    labels: str
    permuted: str | None = None
    split: tuple[str, str] | None = None


NEEDS = (
    Need("RecursiveReadout", "no", "yes", "recursive-readout-permuted-mnist", ("recursive-readout-mnist-5x2", "rule")),
    Need("EWC", "yes", "no", "permuted-mnist-ewc", ("split-mnist-class", "rule")),
    Need("SI", "yes", "no", "permuted-mnist-si", ("split-mnist-class", "si")),
    Need("MAS", "yes, or every k steps", "no", "permuted-mnist-mas", ("split-mnist-class", "mas")),
    Need("OWM", "yes", "no", "permuted-mnist-owm"),
    Need("HLOP", "yes", "no", "permuted-mnist-hlop"),
    Need("XdG", "yes, and the task at test", "no", "permuted-mnist-xdg"),
    Need("BGD", "no", "no", "permuted-mnist-bgd", ("split-mnist-class", "bgd")),
    Need("MESU", "no", "no", "permuted-mnist-mesu"),
    Need("UPGD", "no", "no", "permuted-mnist-upgd"),
    Need("BennaFusi", "no", "no", "permuted-mnist-benna-fusi"),
    Need("BinaryMetaplasticity", "no", "no", "permuted-mnist-binary"),
)


def table(folder: Path = DOCS / "results") -> str:
    """The table in Markdown.

    Raises:
        FileNotFoundError: a result is missing; the message gives the command that makes it.
    """
    lines = [
        "| rule | boundaries | labels | permuted MNIST | naive beside it | split MNIST, classes grow | naive beside it |",
        "|---|---|---|---|---|---|---|",
    ]
    for need in NEEDS:
        cells = [f"`{need.rule}`", need.boundaries, need.labels]
        for name, learner in ((need.permuted, "rule"), need.split or (None, "")):
            report = committed(folder, name) if name else {}
            found = [report.get(key, {}).get("average_accuracy") for key in (learner, "naive")]
            given = ", task given" if name and is_given_tasks(name) else ""
            cells += [percent(found[0]) + given, percent(found[1])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(page: Path = DOCS / "choose.md") -> bool:
    """Writes the table into ``page``; whether it changed."""
    return write(page, table(), section="choose")


if __name__ == "__main__":
    main()
