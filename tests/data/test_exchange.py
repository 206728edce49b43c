"""A stream as Lightning data modules, and back."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_meta import scenario
from lit_meta.data import from_data_modules, to_data_modules
from lit_meta.data.module import experience_tensors


@pytest.mark.parametrize("name", ("split-digits", "gradual-digits"))
def test_there_and_back_the_samples_are_the_same(name):
    before = scenario(name, experiences=5)
    after = from_data_modules(to_data_modules(before, batch_size=50))
    for stream in ("train_stream", "test_stream"):
        for one, other in zip(getattr(before, stream), getattr(after, stream), strict=True):
            (x, y), (again, labels) = experience_tensors(one), experience_tensors(other)
            assert torch.equal(y.sort().values, labels.sort().values)
            # Training samples come in the order of a shuffled loader.
            assert torch.allclose(x.sum(0), again.sum(0), atol=1e-3)


class Half(L.LightningDataModule):
    """Somebody's own data module."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def setup(self, stage):
        self.data = TensorDataset(torch.full((6, 3), float(self.label)), torch.full((6,), self.label))

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=4)

    test_dataloader = train_dataloader


def test_modules_of_others_are_an_experience_each():
    benchmark = from_data_modules([Half(0), Half(1)], name="halves")
    assert (benchmark.name, benchmark.classes, len(benchmark.test_stream)) == ("halves", 2, 2)
    assert experience_tensors(benchmark.test_stream[1])[1].tolist() == [1] * 6


def test_batches_of_another_form_are_refused():
    half = Half(0)
    half.train_dataloader = lambda: [{"x": torch.zeros(1)}]
    with pytest.raises(TypeError, match=r"data module 0: train_dataloader must give batches \(samples, labels\)"):
        from_data_modules([half])
    half.train_dataloader = list
    with pytest.raises(ValueError, match="gives no batches"):
        from_data_modules([half])
    with pytest.raises(ValueError, match="at least one"):
        from_data_modules([])
