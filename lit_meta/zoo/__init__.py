"""The zoo: trained networks with the memory of their rules, as folders of safetensors and a card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_meta.utils.lazy import lazy_exports
from lit_meta.zoo.cards import card as card
from lit_meta.zoo.cards import list_entries as list
from lit_meta.zoo.layout import names as names
from lit_meta.zoo.preprocessing import Transform as Transform

if TYPE_CHECKING:
    from lit_meta.zoo.continuation import grow_head as grow_head
    from lit_meta.zoo.entries import load as load
    from lit_meta.zoo.exporting import export as export
    from lit_meta.zoo.hub import from_pretrained as from_pretrained
    from lit_meta.zoo.hub import push_to_hub as push_to_hub
    from lit_meta.zoo.pages import readme as readme
    from lit_meta.zoo.prediction import Prediction as Prediction
    from lit_meta.zoo.prediction import predict as predict
    from lit_meta.zoo.runs import add as add
    from lit_meta.zoo.runs import remake as remake
    from lit_meta.zoo.saving import migrate as migrate
    from lit_meta.zoo.saving import save as save
    from lit_meta.zoo.verification import Evaluation as Evaluation
    from lit_meta.zoo.verification import evaluate as evaluate
    from lit_meta.zoo.verification import verify as verify

_PARTS = (
    *(
        "continuation:grow_head",
        "entries:load",
        "exporting:export",
        "hub:from_pretrained",
        "hub:push_to_hub",
        "pages:readme",
    ),
    *("prediction:Prediction", "prediction:predict", "runs:add", "runs:remake", "saving:migrate", "saving:save"),
    *("verification:Evaluation", "verification:evaluate", "verification:verify"),
)
# Cards are read and listed without PyTorch.
__getattr__, __dir__, _names = lazy_exports(__name__, [f"lit_meta.zoo.{part}" for part in _PARTS])
__all__ = [*_names, "Transform", "card", "list", "names"]
