"""What several commands take: a zoo entry, or the folder of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from lit_meta.experiments.run import Experiment


def trained(name: str) -> tuple[nn.Module, Experiment, int]:
    """The network of a zoo entry or of a run folder, its experiment, and the seed it is of."""
    from lit_meta import zoo
    from lit_meta.experiments.run import Experiment, load_experiment
    from lit_meta.experiments.run_folder import load_final_weights
    from lit_meta.networks import build_network

    folder = Path(name)
    if not (folder / "config.yaml").is_file():
        described = zoo.card(name)
        if described["experiment"] is None:
            raise ValueError(
                f"{described['name']} was saved without a run: use its network in Python, lit_meta.zoo.load"
            )
        return zoo.load(name), Experiment.from_dict(described["experiment"]), described["seed"]
    experiment = load_experiment(str(folder / "config.yaml"))
    network = build_network(experiment.for_learner("rule").network, trusted=False)
    return load_final_weights(network, folder), experiment, experiment.seeds[0]
