"""The numbers of a run in plain sentences."""

from __future__ import annotations

from lit_meta.functional.interval import t_interval
from lit_meta.report.runs import Estimate, LearnerRun, Run
from lit_meta.utils.specs import label


def percent(estimate: Estimate | None, *, digits: int = 1) -> str:
    """An estimate in percent with its interval.

    Example:
        >>> import torch
        >>> percent(Estimate.of(torch.tensor([0.5, 0.5]))), percent(None)
        ('50.0 [50.0, 50.0]', '–')
    """
    if estimate is None:
        return "–"
    mean, low, high = (100 * float(v) for v in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if estimate.seeds > 1 else "")


def rule_name(run: Run) -> str:
    """The rule (or rules) in capitals; ``no rule`` where there is none.

    Example:
        >>> from types import SimpleNamespace
        >>> rule_name(SimpleNamespace(experiment=SimpleNamespace(rule={"name": "ewc", "strength": 2.0})))
        'EWC'
    """
    spec = run.experiment.rule
    if not spec:
        return "no rule"
    return " + ".join(label(rule).upper() for rule in ([spec] if isinstance(spec, dict) else spec))


def learner_label(run: Run, name: str) -> str:
    """The name of a learner in figures and tables."""
    labels = {"rule": rule_name(run), "naive": "no rule (naive fine-tuning)", "joint": "all at once (joint bound)"}
    return labels.get(name, name)


def setting(run: Run) -> str:
    """The setting in which the numbers were measured."""
    seeds = len(run.experiment.seeds)
    over = "one seed" if seeds == 1 else f"{seeds} seeds (each with its own weights, class order and sample order)"
    scenario = label(run.experiment.scenario)
    return (
        f"{scenario}: {run.length} experiences, learned one after another with one output layer for all classes. "
        f"At test time the network is not told which experience a sample comes from. Numbers are means over {over}."
    )


def protocol(run: Run) -> str:
    """What the evaluation protocol means for the numbers."""
    if run.experiment.protocol == "paper":
        return (
            "Protocol “paper”: each experience is tested alone, as in the publication. Where an experience holds one class and "
            "the network's gate looks at the whole batch, the batch gives the class away. These numbers must not be compared "
            "with those of the standard protocol, and say little about what was learned."
        )
    return (
        "Protocol “standard”: test samples of all experiences are shuffled together before they are split into batches, so a "
        "network that looks at the whole batch gains nothing from it."
    )


def summary(run: Run) -> list[str]:
    """The findings of a run, a sentence or two each."""
    names = run.learners
    main = names.get("rule") or next(iter(names.values()))
    label = learner_label(run, main.name)
    findings = [f"{label} ends at an average accuracy of {percent(main.accuracy)} %."]
    if main.learned_little:
        findings[0] += f" {_never(main)}"
    elif main.is_stream and main.forgetting is not None:
        lost = 100 * float(main.forgetting.mean)
        findings[0] += (
            f" On average, an experience lost {lost:.1f} points of accuracy after it was learned."
            if lost >= 0
            else f" On average, an experience gained {-lost:.1f} points of accuracy after it was learned."
        )
    if "naive" in names and main.name != "naive":
        findings.append(_against_naive(main, names["naive"]))
        if names["naive"].learned_little:
            findings.append(f"The baseline says little: without the rule, {_never(names['naive'])}")
    controls = [learner for name, learner in names.items() if name not in (main.name, "naive", "joint")]
    if controls:
        ends = ", ".join(f"{learner.name} {percent(learner.accuracy)} %" for learner in controls)
        findings.append(f"Controls on the same stream end at: {ends}.")
    if "joint" in names and main.name != "joint":
        findings.append(_against_joint(main, names))
    findings += _by_batching(run, main)
    if len(main.seeds) > 1:
        findings.append(
            "Brackets hold 95 % intervals of the mean over seeds (Student's t). "
            + ("With so few seeds they are wide." if len(main.seeds) < 4 else "")
        )
    else:
        findings.append("A single seed says nothing about how much the numbers vary.")
    return [sentence.strip() for sentence in findings]


def _never(learner: LearnerRun) -> str:
    never = learner.never_learned
    assert never is not None  # Of a learner that learned little.
    return (
        f"{int(never.sum())} of {len(never)} experiences were never learned: their accuracy was at chance right after them, "
        "and what was never learned cannot be forgotten."
    )


def _by_batching(run: Run, main: LearnerRun) -> list[str]:
    """A warning if accuracy depends on how test batches are made by more than half a point."""
    ways = run.metrics[main.name].get("accuracy_by_batching") or {}
    means = {way: 100 * sum(entry["values"]) / len(entry["values"]) for way, entry in ways.items()}
    if not means or max(means.values()) - min(means.values()) <= 0.5:
        return []
    listed = ", ".join(f"{mean:.1f} % with {way}" for way, mean in means.items())
    return [
        f"The same networks reach {listed}: accuracy depends on how test batches are made, so the batch tells the network "
        "something that the sample does not, and none of this learner's numbers measures what it has learned."
    ]


def _against_naive(main: LearnerRun, naive: LearnerRun) -> str:
    difference = main.accuracies - naive.accuracies
    mean = 100 * float(difference.mean())
    text = f"Without the rule the same stream ends at {percent(naive.accuracy)} %"
    if len(difference) == 1:
        return f"{text}: a difference of {mean:+.1f} points with one seed."
    # Paired: with the same seed, both learners had the same weights, class order and samples.
    low, high = (100 * float(v) for v in t_interval(difference))
    if low <= 0 <= high:
        verdict = "the two cannot be told apart with these seeds"
    else:
        same = int((difference.sign() == (1 if mean > 0 else -1)).sum())
        verdict = f"the rule ends {'higher' if mean > 0 else 'lower'} with {same} of {len(difference)} seeds"
    return f"{text}: a difference of {mean:+.1f} [{low:+.1f}, {high:+.1f}] points, seed by seed; {verdict}."


def _against_joint(main: LearnerRun, names: dict[str, LearnerRun]) -> str:
    joint = names["joint"]
    text = f"Trained on all experiences at once, the upper bound, the network reaches {percent(joint.accuracy)} %"
    if "naive" not in names or main.name == "naive":
        return f"{text}."
    bottom, top = float(names["naive"].accuracy.mean), float(joint.accuracy.mean)
    if top <= bottom:
        return f"{text}: no more than without a rule, so this bound is uninformative here."
    closed = (float(main.accuracy.mean) - bottom) / (top - bottom)
    if closed < 0:
        return f"{text}: the rule closes nothing of the gap between no rule and this bound."
    return f"{text}; the rule closes {100 * closed:.0f} % of the gap between no rule and this bound."
