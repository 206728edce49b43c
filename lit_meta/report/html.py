"""A self-contained HTML page on one or several runs: no scripts, no external resources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import torch

from lit_meta.evaluation.class_retention import COLUMNS
from lit_meta.report.network_panels import between
from lit_meta.report.panel import Panel
from lit_meta.report.runs import Estimate, LearnerRun, Run
from lit_meta.report.style import css_variables, inline_svg
from lit_meta.report.text import learner_label, protocol, rule_name, setting, summary
from lit_meta.utils.specs import Spec, label, normalized


def page(runs: Sequence[Run], gallery: Sequence[tuple[list[Panel], list[str]]], comparison: Sequence[Panel]) -> str:
    """The page as HTML.

    Args:
        runs: in the order in which they are shown.
        gallery: for each run, its figures and those left out.
        comparison: figures that compare the runs; empty for a single run.

    Returns:
        The document.
    """
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side"
    single = len(runs) == 1
    body = [f"<h1>{escape(title)}</h1>"]
    if single:
        body += [
            _words(runs[0]),
            results_table(runs),
            batching_table(runs[0]),
            _figures(runs[0].name, gallery[0][0]),
            _rest(runs[0], gallery[0][1]),
        ]
    else:
        body.append(_overview(runs))
        body.append(results_table(runs))
        if len(runs) == 2:
            body.append(retention_table(runs[0], runs[1]))
        body.append(_figures("all", comparison))
        for number, (run, (figures, left_out)) in enumerate(zip(runs, gallery, strict=True)):
            body.append(f'<h2 id="run-{number}">{escape(run.name)}</h2>')
            body += [_words(run), batching_table(run), _figures(f"run-{number}", figures), _rest(run, left_out)]
    css = css_variables() + files("lit_meta.report").joinpath("page.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An empty icon, or the browser would request one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def results_table(runs: Sequence[Run]) -> str:
    """The table of results: a row for each learner of each run."""
    gaps = any(learner.gap is not None for run in runs for learner in run.streams.values())
    head = ["learner", "average accuracy at the end (%)", "mean along the stream (%)", "forgetting (points)"]
    head += ["stability gap (points)"] if gaps else []
    head += ["training (s)", "rule's memory (KiB)"]
    bodies = []
    for run in runs:
        rows = []
        if len(runs) > 1:
            rows.append(f'<tr class="group"><th scope="rowgroup" colspan="{len(head)}">{escape(run.name)}</th></tr>')
        for name, learner in run.learners.items():
            cells = [_cell(learner.accuracy), _cell(learner.anytime), _lost(learner)]
            cells += [_cell(learner.gap if learner.is_stream else None)] if gaps else []
            cells += [f"{learner.cost('seconds'):.1f}", f"{learner.cost('state_bytes') / 1024:.0f}"]
            label = escape(learner_label(run, name))
            named = zip(head[1:], cells, strict=True)
            rows.append(f'<tr><th scope="row">{label}</th>{"".join(_named(*pair) for pair in named)}</tr>')
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    caption = "Means over seeds, with 95 % t-intervals below."
    streams = [learner for run in runs for learner in run.streams.values()]
    if any(learner.never_learned is not None and learner.never_learned.any() for learner in streams):
        caption += (
            " Never learned: experiences whose accuracy was at chance right after they were learned. Nothing of them can be "
            "forgotten, so that forgetting says nothing about them."
        )
    if gaps:
        caption += (
            " The stability gap is what earlier experiences lose while a new one is learned and regain by its end."
        )
    return (
        f'<div class="scroll"><table><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead>{''.join(bodies)}</table></div>"
    )


def batching_table(run: Run) -> str:
    """Accuracy by how test batches were made, for the learners tested this way; empty if there are none."""
    by_learner = {
        name: run.metrics[name]["accuracy_by_batching"]
        for name in run.learners
        if run.metrics[name].get("accuracy_by_batching")
    }
    if not by_learner:
        return ""
    ways = list(next(iter(by_learner.values())))
    heads = "".join(f'<th scope="col">{escape(way)} (%)</th>' for way in ways)
    rows = ""
    for name, summaries in by_learner.items():
        estimates = (Estimate.of(torch.tensor(summaries[way]["values"], dtype=torch.float64)) for way in ways)
        cells = "".join(_named(f"{way} (%)", _cell(e)) for way, e in zip(ways, estimates, strict=True))
        rows += f'<tr><th scope="row">{escape(learner_label(run, name))}</th>{cells}</tr>'
    caption = (
        "The same networks at the end of the stream, tested on batches made in different ways. Where the numbers of a row "
        "differ, the batch tells the network something that the sample does not."
    )
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr><th scope="col">learner</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def retention_table(first: Run, second: Run) -> str:
    """What the second run's network lost of what the first one's knows, class by class; empty if they cannot be compared."""
    same = (normalized(first.experiment.scenario, "scenario"), first.experiment.seeds[0]) == (
        normalized(second.experiment.scenario, "scenario"),
        second.experiment.seeds[0],
    )
    report = between(first, second) if same else ""
    if isinstance(report, str):
        return f'<p class="quiet">Class by class: {escape(report)}</p>' if report else ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    rows = ""
    for name, *cells in report.rows():
        named = zip(COLUMNS[1:], (typeset(escape(cell)) for cell in cells), strict=True)
        rows += f'<tr><th scope="row">{escape(name)}</th>{"".join(_named(*pair) for pair in named)}</tr>'
    caption = (
        f"From {first.name} (before) to {second.name} (after), the networks of the first seed on the same test samples: "
        f"{report.sentence}. Lost: right before, wrong after. Taken for: the class that most of the lost samples are taken for."
    )
    return (
        f'<h3 id="retention">What was lost, class by class</h3><div class="scroll"><table><caption>{escape(typeset(caption))}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def typeset(text: str) -> str:
    """Keeps numbers and their intervals on one line, with a proper minus sign.

    Example:
        >>> typeset("a loss of -3.4 [-8.1, -0.6] %").encode("ascii", "xmlcharrefreplace").decode()
        'a loss of &#8722;3.4&#160;[&#8722;8.1,&#160;&#8722;0.6]&#160;%'
    """
    text = re.sub(r"(?<![\w.])-(?=\d)", "\u2212", text)
    text = re.sub(r" (?=%|\[)", "\u00a0", text)
    return re.sub(r"\[[^]]*\]", lambda interval: interval[0].replace(" ", "\u00a0"), text)


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    mean, low, high = (100 * float(v) for v in (estimate.mean, estimate.low, estimate.high))
    interval = f'<span class="interval">{low:.1f} to {high:.1f}</span>' if estimate.seeds > 1 else ""
    return f"{mean:.1f}{interval}"


def _lost(learner: LearnerRun) -> str:
    """Forgetting, or that there was nothing to forget."""
    never = learner.never_learned
    if never is None or not never.any():
        return _cell(learner.forgetting)
    count = f"{int(never.sum())} of {len(never)}"
    if learner.learned_little:
        return f'never learned<span class="interval">{count} at chance</span>'
    return f'{_cell(learner.forgetting)}<span class="interval">{count} never learned</span>'


def _named(column: str, cell: str) -> str:
    """A cell that says its column where a narrow page has no head for it."""
    return f'<td data-column="{escape(column)}">{cell}</td>'


def _words(run: Run) -> str:
    findings = "".join(f"<p>{escape(typeset(sentence))}</p>" for sentence in summary(run))
    kind = ' class="warning"' if run.experiment.protocol == "paper" else ""
    note = (
        f'<p class="quiet">Note in the config: {escape(run.experiment.note.strip())}</p>' if run.experiment.note else ""
    )
    return (
        f'<p class="lead">{escape(setting(run))}</p><div class="findings">{findings}</div>'
        f"<p{kind}>{escape(protocol(run))}</p>{note}"
    )


def _overview(runs: Sequence[Run]) -> str:
    links = "".join(f'<li><a href="#run-{i}">{escape(run.name)}</a></li>' for i, run in enumerate(runs))
    findings = "".join(f"<p>{escape(run.name)}: {escape(typeset(summary(run)[0]))}</p>" for run in runs)
    settings = {(label(r.experiment.scenario), r.length, r.experiment.protocol) for r in runs}
    text = f'<nav aria-label="runs"><ul>{links}</ul></nav><div class="findings equal">{findings}</div>'
    if len(settings) > 1:
        listed = "; ".join(f"{name}, {n} experiences, protocol {kind}" for name, n, kind in sorted(settings))
        text += (
            f'<p class="warning">These runs were not measured in the same way ({escape(listed)}): numbers of different '
            "kinds must not be compared.</p>"
        )
    return text


def _figures(prefix: str, figures: Sequence[Panel]) -> str:
    parts = []
    for panel in figures:
        name = f"{_identifier(prefix)}-{panel.name}"
        parts.append(
            f'<figure id="{name}"><h3>{escape(panel.title)}</h3>'
            f'<div class="wide">{inline_svg(panel.figure, name, panel.summary)}</div>'
            f'<div class="narrow">{inline_svg(panel.narrow(), f"{name}-narrow", panel.summary)}</div>'
            f"<figcaption>{escape(panel.caption)}</figcaption></figure>"
        )
    return "\n".join(parts)


def _rest(run: Run, left_out: Sequence[str]) -> str:
    experiment = run.experiment
    rule = experiment.rule or {}
    rules = [rule] if isinstance(rule, dict) else rule
    rows = {
        "rule": rule_name(run),
        "rule settings": "; ".join(_plain(dict(Spec.parse(spec, "rule").arguments)) or "defaults" for spec in rules),
        "network": _plain(experiment.network),
        "loss, optimizer": f"{experiment.loss}; {_plain(experiment.optimizer)}",
        "training": f"{experiment.max_epochs} epoch(s) per experience, batches of {experiment.batch_size}",
        "scenario": _plain(experiment.scenario),
        "seeds": ", ".join(map(str, experiment.seeds)),
        "versions": ", ".join(f"{k} {v}" for k, v in run.metrics.get("versions", {}).items()),
        "command": run.metrics.get("command") or "not recorded",
    }
    cells = "".join(f'<tr><th scope="row">{k}</th><td><code>{escape(str(v))}</code></td></tr>' for k, v in rows.items())
    missing = "".join(f"<li>{escape(sentence)}</li>" for sentence in left_out)
    missing = f'<div class="quiet"><p>Not shown:</p><ul>{missing}</ul></div>' if missing else ""
    return f'<h3>Settings of the run</h3><table class="settings"><tbody>{cells}</tbody></table>{missing}'


def _plain(values: object) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{k} = {_plain(v)}" for k, v in values.items())
    return str(values)


def _identifier(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in text)
