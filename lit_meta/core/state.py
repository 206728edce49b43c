"""What synapses remember: the tensors of a rule, by quantity and by parameter name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lit_meta.core.memory_codec import OVERALL, SEPARATOR, decode_key, encode_key


def apart(name: str) -> str:
    """A name, in a rule's state, for memory of a parameter or layer that has not the parameter's shape.

    `State.grow` leaves such memory alone.

    Example:
        >>> apart("layer.weight")
        '*layer.weight'
    """
    return f"*{name}"


class State:
    """The memory of one rule: ``quantity -> parameter name -> tensor``, and what belongs to no parameter.

    A flat mapping of ``"quantity/parameter"`` to tensors goes to and comes from files (`lit_meta.core.memory_codec`), so
    that a rule's history is saved without pickling and learning can go on where it stopped.

    Attributes:
        overall: by quantity, memory of the rule as a whole: counts, sums over samples, a generator's position. As an item,
            such a quantity is a mapping of one tensor, ``{"*": tensor}``.
        fills: by quantity, the value of the entries that are new when a parameter has grown; 0 where none is given.

    Example:
        >>> state = State()
        >>> state["importance"] = {"layer.weight": torch.ones(2)}
        >>> sorted(state.state_dict())
        ['importance/layer.weight']
        >>> state.tensors("importance", ["layer.weight"])
        [tensor([1., 1.])]
        >>> state.overall["batches"] = torch.tensor(3)
        >>> sorted(state)
        ['batches', 'importance']
    """

    def __init__(self) -> None:
        self._quantities: dict[str, dict[str, Tensor]] = {}
        self.overall: dict[str, Tensor] = {}
        self.fills: dict[str, float] = {}

    def __contains__(self, quantity: str) -> bool:
        return quantity in self._quantities or quantity in self.overall

    def __getitem__(self, quantity: str) -> dict[str, Tensor]:
        if quantity not in self._quantities:
            if quantity in self.overall:
                return {OVERALL: self.overall[quantity]}
            raise KeyError(f"the rule holds no {quantity!r}; it holds {sorted(self._quantities) or 'nothing yet'}")
        return self._quantities[quantity]

    def __setitem__(self, quantity: str, tensors: Mapping[str, Tensor]) -> None:
        if not quantity or SEPARATOR in quantity:
            raise ValueError(f"a quantity's name is not empty and has no {SEPARATOR!r}, got {quantity!r}")
        self._quantities[quantity] = dict(tensors)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._quantities, **self.overall})

    def __len__(self) -> int:
        return len(self._quantities.keys() | self.overall.keys())

    def tensors(self, quantity: str, names: Iterable[str]) -> list[Tensor]:
        """The tensors of one quantity for the given parameters, in their order.

        Raises:
            KeyError: a parameter has no such tensor. A missing memory never counts as zero.
        """
        held = self[quantity]
        try:
            return [held[name] for name in names]
        except KeyError as error:
            raise KeyError(
                f"the rule holds no {quantity!r} for parameter {error.args[0]!r}: it was added or unfrozen inside an "
                "experience; begin a new experience after changing the network"
            ) from None

    def grow(self, names: Sequence[str], parameters: Sequence[Tensor]) -> None:
        """Gives every tensor the shape and floating-point type of its parameter, where a head has gained rows.

        New entries are zero, or what `fills` says: a synapse that did not exist has no history. Integers and booleans
        keep their type.

        Raises:
            ValueError: a parameter has become smaller, or has other dimensions than before.
        """
        for quantity, held in self._quantities.items():
            for name, parameter in zip(names, parameters, strict=True):
                old = held.get(name)
                if old is None:
                    continue
                if old.is_floating_point() and old.dtype != parameter.dtype:
                    old = held[name] = old.to(parameter.dtype)
                if old.shape == parameter.shape:
                    continue
                if old.dim() != parameter.dim() or any(o > n for o, n in zip(old.shape, parameter.shape, strict=True)):
                    raise ValueError(
                        f"{name!r} has shape {tuple(parameter.shape)}, but its {quantity!r} has {tuple(old.shape)}: "
                        "a parameter may gain rows or columns between experiences, not lose them"
                    )
                new = old.new_full(parameter.shape, self.fills.get(quantity, 0.0))
                new[tuple(slice(size) for size in old.shape)] = old
                held[name] = new

    def forget(self, names: Collection[str]) -> None:
        """Drops, of every quantity, the tensors of parameters or layers with these names.

        Example:
            >>> state = State()
            >>> state["importance"] = {"head.weight": torch.ones(2), "body.weight": torch.ones(2)}
            >>> state.forget(["head.weight"])
            >>> list(state["importance"])
            ['body.weight']
        """
        for held in self._quantities.values():
            for name in {*names, *map(apart, names)} & held.keys():
                del held[name]

    def to(self, device: torch.device) -> None:
        """Moves every tensor to ``device``; does nothing to those already there."""
        for held in (*self._quantities.values(), self.overall):
            for name, tensor in held.items():
                if tensor.device != device:
                    held[name] = tensor.to(device)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state_dict().values())

    def state_dict(self) -> dict[str, Tensor]:
        """A flat mapping ``"quantity/parameter" -> tensor`` (the tensors themselves, not copies)."""
        named = {
            encode_key(quantity, name): t for quantity, held in self._quantities.items() for name, t in held.items()
        }
        return {**named, **{encode_key(quantity, OVERALL): tensor for quantity, tensor in self.overall.items()}}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all memory by the given flat mapping; copies every tensor.

        Raises:
            ValueError: a key is not of the form ``"quantity/parameter"``.
        """
        quantities: dict[str, dict[str, Tensor]] = {}
        overall: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            quantity, name = decode_key(key)
            if name == OVERALL:
                overall[quantity] = tensor.detach().clone()
            else:
                quantities.setdefault(quantity, {})[name] = tensor.detach().clone()
        self._quantities, self.overall = quantities, overall
