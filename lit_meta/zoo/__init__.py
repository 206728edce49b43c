"""The zoo: trained networks with the memory of their rules, as folders of safetensors and a card."""

from lit_meta.zoo.cards import card, names, readme
from lit_meta.zoo.entries import add, export, load, load_module
from lit_meta.zoo.verification import evaluate, verify

__all__ = ["add", "card", "evaluate", "export", "load", "load_module", "names", "readme", "verify"]
