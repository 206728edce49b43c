"""Low-rank adapters: their parameters, and a fresh head's, are the only synapses, whatever the rule."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_meta import Session
from lit_meta.rules import RULES, XdG
from tests.rules.test_contract import from_config

# They write the head alone, gate units or write Linear and convolution features: adapters have no part in that.
# The others refuse the network: it has an embedding, adapters beside layers, or a frozen head.
LEARNERS = sorted(set(RULES) - {"recursive-readout", "streaming-lda", "critical-period", "naca", "continual-backprop"})


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
        config = transformers.BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=8,
            num_labels=4,
        )
        adapters = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
        self.model = peft.get_peft_model(transformers.BertForSequenceClassification(config), adapters)

    def forward(self, x):
        return self.model(input_ids=x).logits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LEARNERS)
def test_adapters_learn_and_the_model_below_keeps_still(name):
    x = torch.randint(0, 30, (8, 5), generator=torch.Generator().manual_seed(0))

    def learn(rule):
        torch.manual_seed(0)
        network = Adapted()
        start = copy.deepcopy(dict(network.named_parameters()))
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
        session = Session(network, rule) if rule is not None else None
        for experience in range(2):
            y = torch.arange(8) % 2 + 2 * experience
            if session is not None:
                session.begin_experience()
            for step in range(3):
                torch.manual_seed(step)
                optimizer.zero_grad()
                if session is not None:
                    session.before_forward(x, y)
                F.cross_entropy(network(x), y).backward()
                if session is not None:
                    session.after_backward()
                    session.before_step(optimizer)
                optimizer.step()
                if session is not None:
                    session.after_step(optimizer)
            if session is not None:
                session.end_experience([(x, y)])
            # Adapters that were merged for use, and taken out again, have the names that they had.
            network.model.merge_adapter()
            network.model.unmerge_adapter()
        moved = {n for n, p in network.named_parameters() if p.requires_grad and not torch.equal(p, start[n])}
        frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
        assert all(torch.allclose(network.get_parameter(n), start[n], atol=1e-6) for n in frozen)
        return network, moved

    # The default share of closed units would close both of an adapter's.
    (plain, _), (network, moved) = learn(None), learn(XdG(gated=0.5) if name == "xdg" else from_config(name))
    # lora_B begins at 0, so that lora_A's gradient grows with it; through half-closed layers it is below rounding here.
    assert name == "xdg" or any("lora_A" in n for n in moved)
    assert any("lora_B" in n for n in moved)
    pairs = list(zip(plain.named_parameters(), network.parameters(), strict=True))
    assert any(not torch.equal(p, q) for (n, p), q in pairs if "lora" in n)
