"""Rules that run the network again at the end of an experience, on networks that keep potentials between calls."""

import lightning as L
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import EWC, MAS, Metaplasticity
from tests.functional.per_sample_networks import CLASSES, Spiking


class ResetsAfterBatches(L.LightningModule):
    """Resets its neurons after every training batch, as SpikingJelly's tutorials do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = Spiking(False)

    def training_step(self, batch, _):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def on_train_batch_end(self, *_):
        self.net.memory["v"] = 0.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("rule", (EWC, MAS))
def test_importance_is_that_of_single_samples_from_rest(rule):
    data = TensorDataset(torch.rand(12, 4), torch.arange(12) % CLASSES)
    module, learner = ResetsAfterBatches(), rule(strength=1.0)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", enable_checkpointing=False, callbacks=[Metaplasticity(learner)], **options
    )
    trainer.fit(module, DataLoader(data, batch_size=4))
    right = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for x, y in data:
        module.net.memory["v"] = 0.0
        output = module.net(x[None])
        value = F.cross_entropy(output, y[None]) if rule is EWC else output.square().sum()
        gradients = torch.autograd.grad(value, list(module.parameters()))
        for total, gradient in zip(right.values(), gradients, strict=True):
            total += gradient.abs() ** (2 if rule is EWC else 1) / len(data)
    assert any(bool(value.any()) for value in right.values())
    for name, value in right.items():
        torch.testing.assert_close(learner.state["importance"][name], value, rtol=1e-4, atol=1e-7)
