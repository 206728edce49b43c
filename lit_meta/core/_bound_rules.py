"""Rules bound to a network: its parameters as they come and go, the hooks on it, and which rules answer which event."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_meta.core import binding
from lit_meta.core.block_hooks import LayerWatch
from lit_meta.core.checks import check_rules, check_unsharded, check_weights
from lit_meta.core.evaluation_hooks import EvaluationWatch
from lit_meta.core.event_calls import EventCalls
from lit_meta.core.frozen import Frozen
from lit_meta.core.layers import uncompiled, weight_layers
from lit_meta.core.rule import EVENTS, Layer, Rule, Synapses
from lit_meta.core.spiking_state import SpikingState
from lit_meta.core.step_undo import Surroundings
from lit_meta.core.task import Task


class BoundRules:
    """What lasts from one experience of a session to the next: parameters, hooks and the rules' memory of them.

    The network is inspected anew at the beginning of every experience, since it may have grown, moved to another device, or had
    parameters frozen or replaced.

    Args:
        network: as of `Session`.
        rules: as of `Session`.
    """

    task: Task  # What the network is a part of keeps still with it.

    def __init__(self, network: nn.Module, rules: Rule | Sequence[Rule]) -> None:
        if not isinstance(network, nn.Module):
            raise TypeError(f"a network is a torch.nn.Module, got {type(network).__name__}")
        self.network = uncompiled(network)
        self.rules = check_rules(rules)
        weight_layers(self.network)
        self._answering = {event: [rule for rule in self.rules if rule.overrides(event)] for event in EVENTS}
        self._calls = EventCalls(self._answering)
        self._watch: LayerWatch | None = None
        self._evaluation: EvaluationWatch | None = None
        self._freezing = [rule for rule in self.rules if type(rule).frozen_below is not Rule.frozen_below]
        self._frozen: Frozen | None = None
        self._all = Synapses(network, (), [])
        self._of_optimizer: dict[tuple[int, int], Synapses] = {}
        self._types: list[tuple[torch.dtype, torch.device]] = []
        self._spiking = SpikingState(self.network)
        self._surroundings = Surroundings(self.network)
        self._rehearsing = False

    def __getstate__(self) -> dict[str, object]:
        """What a copy of a network and its rules needs: hooks and the host's task are made anew when it learns."""
        state = vars(self).copy()
        for name in ("_calls", "task"):
            del state[name]
        return {**state, "_watch": None, "_evaluation": None, "_frozen": None, "_of_optimizer": {}}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._calls = EventCalls(self._answering)

    def refresh(self) -> None:
        """Includes parameters that were unfrozen during the experience, before their first step.

        A host calls it once an epoch; it is called automatically when an optimizer is new or has gained a parameter group.

        Raises:
            ValueError: a rule must know all trainable parameters at the beginning of an experience.
        """
        new = binding.newcomers(self.network, self._all)
        if not len(new):
            return
        self._fit_memory(new)
        for rule in self.rules:
            rule.join(new)
        self._all = binding.trainable(self.network, self._all)
        self._types = [(p.dtype, p.device) for p in self._all.parameters]
        self._of_optimizer = {}
        self._open_watch()

    def synchronize(self) -> None:
        """Updates parameters that rules compute from their memory; called automatically before evaluation."""
        if self._rehearsing:
            return  # A rehearsal must leave the weights unchanged.
        # Tensors created in inference mode cannot be changed outside it, and a rule's memory must outlive an evaluation.
        with torch.inference_mode(False), torch.no_grad():
            for synchronize in self._calls["synchronize"]:
                synchronize(self._all)

    def _bind(self) -> None:
        """Inspects the network and puts the hooks on it."""
        self._unbind()
        check_unsharded(self.network)
        before, self._all = self._all, binding.trainable(self.network)
        self._types = [(p.dtype, p.device) for p in self._all.parameters]
        self._forget(binding.replaced(before, self._all))
        self._spiking = SpikingState(self.network)
        self._surroundings = Surroundings(self.network)
        self._fit_memory(self._all)
        self._open_watch()

    def _unbind(self) -> None:
        self._melt()
        if self._watch is not None:
            self._watch.close()
        self._of_optimizer = {}

    def _forget(self, names: list[str]) -> None:
        """Makes rules forget parameters that were replaced, with a warning if a rule had a memory of them."""
        if not names:
            return
        replacements = binding.subset(self.network, [(n, p) for n, p in self.network.named_parameters() if n in names])
        sizes = [len(rule.state.state_dict()) for rule in self.rules]
        for rule in self.rules:
            rule.renew(replacements)
        forgetful = [r for r, size in zip(self.rules, sizes, strict=True) if len(r.state.state_dict()) < size]
        if forgetful:
            warnings.warn(
                f"{', '.join(names)} were replaced by new parameters since the last experience: "
                f"{class_names(forgetful)} forgets what it remembered of the old ones (copy the old values into the new "
                "parameters to keep it)",
                stacklevel=4,
            )

    def _fit_memory(self, synapses: Synapses) -> None:
        for rule in self.rules:
            rule.state.grow(synapses.names, synapses.parameters)
            rule.state.to(self._all.parameters[0].device)
        check_weights(self.network, self.rules)
        self._freeze()

    def _open_watch(self) -> None:
        inputs = self._answering["layer_input"] or self._freezing
        if inputs or self._answering["local_error"]:

            def on_input(layer: Layer, x: Tensor) -> None:
                if self._frozen is not None and layer.module in self._frozen.heads:
                    self._frozen.check()
                for layer_input in self._calls["layer_input"]:
                    layer_input(layer, x)

            if self._watch is not None and self._watch.fits(self.network):
                self._watch.open()
            else:
                if self._watch is not None:
                    self._watch.close()
                self._watch = LayerWatch(
                    self.network, detach=bool(self._answering["local_error"]), on_input=on_input if inputs else None
                )

    def _freeze(self) -> None:
        """Updates what is frozen: a head may have been replaced, and a rule may start to freeze later."""
        heads = tuple(head for rule in self._freezing if (head := rule.frozen_below(self.network)) is not None)
        if self._frozen is None or self._frozen.heads != heads:
            self._melt()
            self._frozen = Frozen(self.network, heads, self.task.owner) if heads else None

    def _thaw(self) -> None:
        if self._frozen is not None:
            self._frozen.release()

    def _melt(self) -> None:
        if self._frozen is not None:
            self._frozen.close()
            self._frozen = None

    def _before_evaluation(self, module: nn.Module) -> None:
        # Frozen layers are in evaluation mode during training too; only the head above them shows the host's mode.
        if self._frozen.evaluates if self._frozen is not None else not module.training:
            self.synchronize()

    def _close_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def _of(self, optimizer: Optimizer | None) -> Synapses:
        if optimizer is None:
            return self._all
        # Parameters that are unfrozen reach an optimizer as an additional group.
        key = id(optimizer), len(optimizer.param_groups)
        if key not in self._of_optimizer:
            binding.check_optimizer(optimizer)
            self.refresh()
            optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
            pairs = zip(self._all.names, self._all.parameters, strict=True)
            self._of_optimizer[key] = binding.subset(self.network, [(n, p) for n, p in pairs if id(p) in optimized])
        return self._of_optimizer[key]


def class_names(rules: Sequence[Rule]) -> str:
    """The rules' class names, for messages."""
    return " and ".join(type(rule).__name__ for rule in rules)
