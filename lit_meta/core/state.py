"""The memory of synapses: the tensors of a rule, by quantity and parameter name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

from lit_meta.core.memory_codec import OVERALL, SEPARATOR, decode_key, encode_key


def apart(name: str) -> str:
    """The name in a rule's state for memory of a parameter or layer with a shape other than the parameter's.

    `State.grow` leaves such memory unchanged.

    Example:
        >>> apart("layer.weight")
        '*layer.weight'
    """
    return f"*{name}"


@dataclass(frozen=True)
class Kept:
    """What a rule keeps under one key of its memory, once it has learned.

    Attributes:
        shape: of the tensor; None for a size that depends on the data.
        always: whether it is there after every experience; what is kept in some situations only may be absent.
        nonzero: whether all zeros would mean that nothing has been learned.
        former: another shape, in which it was kept before and is still read; None for none.
    """

    shape: tuple[int | None, ...]
    always: bool = True
    nonzero: bool = False
    former: tuple[int, ...] | None = None

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor has such a shape.

        Example:
            >>> Kept((None, 3)).fits((5, 3)), Kept((None, 3)).fits((5, 4)), Kept(()).fits((1,))
            (True, False, False)
        """
        if self.former is not None and tuple(shape) == self.former:
            return True
        return len(shape) == len(self.shape) and all(
            own in (None, size) for own, size in zip(self.shape, shape, strict=True)
        )


def kept_of_parameters(network: nn.Module, quantity: str, *, nonzero: bool = False) -> dict[str, Kept]:
    """A quantity of which a rule keeps one tensor for every trainable parameter, of the parameter's shape.

    Example:
        >>> kept_of_parameters(nn.Linear(3, 2, bias=False), "anchor")
        {'anchor/weight': Kept(shape=(2, 3), always=True, nonzero=False, former=None)}
    """
    return {
        encode_key(quantity, name): Kept(tuple(parameter.shape), nonzero=nonzero)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }


@dataclass(frozen=True)
class Memory:
    """What a `State` held at one moment: the tensors themselves or copies of them, and the versions of the former."""

    quantities: dict[str, dict[str, Tensor]]
    overall: dict[str, Tensor]
    network: ReferenceType[nn.Module] | None
    versions: list[tuple[str, Tensor, int]]


class State:
    """The memory of one rule: ``quantity -> parameter name -> tensor``, and what belongs to no parameter.

    Files hold a flat mapping of ``"quantity/parameter"`` to tensors (`lit_meta.core.memory_codec`), so that a rule's history is
    saved without pickling and learning can be resumed.

    Attributes:
        overall: by quantity, memory of the rule as a whole: counts, sums over samples, a generator's state. As an item, such a
            quantity is a mapping of one tensor, ``{"*": tensor}``.
        fills: by quantity, the value of new entries when a parameter has grown; 0 by default.

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
        self._network: ReferenceType[nn.Module] | None = None

    def belong(self, network: nn.Module) -> bool:
        """Makes this the memory of a network, unless it is of another one already; tells which.

        What is loaded or copied belongs to nobody yet.

        Example:
            >>> state, one = State(), nn.Linear(1, 1)
            >>> state["importance"] = {"weight": torch.ones(1, 1)}
            >>> state.belong(one), state.belong(nn.Linear(1, 1)), state.belong(one)
            (True, False, True)
        """
        if not self.belongs(network):
            return False
        self._network = ref(network)
        return True

    @property
    def network(self) -> nn.Module | None:
        """The network that this is the memory of, as far as it is known."""
        return None if self._network is None else self._network()

    def belongs(self, network: nn.Module) -> bool:
        """Whether this may become, or is, the memory of a network."""
        return self._network is None or self._network() is network or not len(self)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None}

    def __contains__(self, quantity: str) -> bool:
        return quantity in self._quantities or quantity in self.overall

    def __getitem__(self, quantity: str) -> dict[str, Tensor]:
        if quantity not in self._quantities:
            if quantity in self.overall:
                return {OVERALL: self.overall[quantity]}
            raise KeyError(f"the rule has no {quantity!r} in memory, only {sorted(self._quantities) or 'nothing yet'}")
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
        by_name = self[quantity]
        try:
            return [by_name[name] for name in names]
        except KeyError as error:
            raise KeyError(
                f"the rule has no {quantity!r} of parameter {error.args[0]!r} in memory: it was added or unfrozen inside an "
                "experience; begin a new experience after changing the network"
            ) from None

    def grow(self, names: Sequence[str], parameters: Sequence[Tensor]) -> None:
        """Gives every tensor the shape and floating-point dtype of its parameter, for example when a head has gained rows.

        New entries are zero or the value in `fills`: a synapse that did not exist has no history. Integers and booleans keep
        their dtype.

        Raises:
            ValueError: a parameter has become smaller, or has other dimensions than before.
        """
        for quantity, by_name in self._quantities.items():
            for name, parameter in zip(names, parameters, strict=True):
                old = by_name.get(name)
                if old is None:
                    continue
                if old.is_floating_point() and old.dtype != parameter.dtype:
                    old = by_name[name] = old.to(parameter.dtype)
                if old.shape == parameter.shape:
                    continue
                if old.dim() != parameter.dim() or any(o > n for o, n in zip(old.shape, parameter.shape, strict=True)):
                    raise ValueError(
                        f"{name!r} has shape {tuple(parameter.shape)}, but its {quantity!r} has {tuple(old.shape)}: "
                        "a parameter may gain rows or columns between experiences, not lose them"
                    )
                new = old.new_full(parameter.shape, self.fills.get(quantity, 0.0))
                new[tuple(slice(size) for size in old.shape)] = old
                by_name[name] = new

    def forget(self, names: Collection[str]) -> None:
        """Drops the tensors of parameters or layers with these names from every quantity.

        Example:
            >>> state = State()
            >>> state["importance"] = {"head.weight": torch.ones(2), "body.weight": torch.ones(2)}
            >>> state.forget(["head.weight"])
            >>> list(state["importance"])
            ['body.weight']
        """
        for by_name in self._quantities.values():
            for name in {*names, *map(apart, names)} & by_name.keys():
                del by_name[name]

    def to(self, device: torch.device) -> None:
        """Moves every tensor to ``device``, unless it is there already."""
        for by_name in (*self._quantities.values(), self.overall):
            for name, tensor in by_name.items():
                if tensor.device != device:
                    by_name[name] = tensor.to(device)

    def mark(self, *, copies: bool) -> Memory:
        """What the memory holds now, for `restore`.

        Args:
            copies: hold copies of the tensors, which may be changed in place until then.

        Example:
            >>> state = State()
            >>> state["importance"] = {"weight": torch.ones(1)}
            >>> memory = state.mark(copies=True)
            >>> _ = state["importance"]["weight"].add_(1.0)
            >>> state.restore(memory), state["importance"]["weight"]
            ([], tensor([1.]))
        """
        quantities = {quantity: by_name.copy() for quantity, by_name in self._quantities.items()}
        overall = self.overall.copy()
        if copies:
            for tensors in (*quantities.values(), overall):
                tensors.update({name: tensor.detach().clone() for name, tensor in tensors.items()})
            return Memory(quantities, overall, self._network, [])
        named = [*quantities.items(), ("*", overall)]
        versions = [
            (quantity, tensor, 0 if tensor.is_inference() else tensor._version)
            for quantity, tensors in named
            for tensor in tensors.values()
        ]
        return Memory(quantities, overall, self._network, versions)

    def restore(self, memory: Memory) -> list[str]:
        """Puts back what `mark` returned.

        Returns:
            The quantities whose tensors were held by reference and have been changed in place: they are not as they were.
        """
        self._quantities = {quantity: by_name.copy() for quantity, by_name in memory.quantities.items()}
        self.overall = memory.overall.copy()
        self._network = memory.network
        return sorted(
            {q for q, tensor, version in memory.versions if not tensor.is_inference() and tensor._version != version}
        )

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state_dict().values())

    def state_dict(self) -> dict[str, Tensor]:
        """A flat mapping ``"quantity/parameter" -> tensor`` (the tensors themselves, not copies)."""
        named = {
            encode_key(quantity, name): tensor
            for quantity, by_name in self._quantities.items()
            for name, tensor in by_name.items()
        }
        return {**named, **{encode_key(quantity, OVERALL): tensor for quantity, tensor in self.overall.items()}}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all memory by the given flat mapping; copies every tensor.

        Raises:
            ValueError: a key is not of the form ``"quantity/parameter"``.
        """
        quantities: dict[str, dict[str, Tensor]] = {}
        overall: dict[str, Tensor] = {}
        for key, tensor in tensors.items():  # Read as a whole before anything is replaced.
            quantity, name = decode_key(key)
            if name == OVERALL:
                overall[quantity] = tensor.detach().clone()
            else:
                quantities.setdefault(quantity, {})[name] = tensor.detach().clone()
        self._quantities, self.overall = quantities, overall
        self._network = None
