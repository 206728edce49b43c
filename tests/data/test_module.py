"""Loaders: every sample once, in a repeatable order, without the global generator; Lightning runs them."""

from __future__ import annotations

import lightning
import pytest
import torch

from lit_meta.data import ExperienceDataModule, experience_tensors, scenario
from lit_meta.data.view import TensorView, concatenate


@pytest.fixture(scope="module")
def benchmark() -> object:
    return scenario("split-digits", experiences=2, class_order=range(10))


@pytest.fixture(scope="module")
def foreign() -> object:
    """A benchmark made by Avalanche alone, with transforms; its tensors are reached item by item only."""
    from avalanche.benchmarks import class_incremental_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.benchmarks.utils.transform_groups import TransformGroups
    from torch.utils.data import TensorDataset

    x = torch.arange(40.0).reshape(20, 2)
    data = TensorDataset(x, torch.arange(20) % 4)
    data.targets = torch.arange(20) % 4
    groups = TransformGroups({"train": (negate, None), "eval": (negate, None)})
    dataset = as_classification_dataset(data, transform_groups=groups)
    return class_incremental_benchmark({"train": dataset, "test": dataset}, num_experiences=2, class_order=[0, 1, 2, 3])


def negate(x: torch.Tensor) -> torch.Tensor:
    return -x


def epoch(loader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(loader)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_an_epoch_is_every_sample_once(benchmark) -> None:
    experience = benchmark.train_stream[1]
    x, y = experience_tensors(experience)
    loader = ExperienceDataModule(experience, benchmark.test_stream, batch_size=50).train_dataloader()
    sizes = [len(labels) for _, labels in loader]
    assert sizes == [50] * (len(y) // 50) + [len(y) % 50]
    seen, labels = epoch(loader)
    assert sorted(map(tuple, seen.flatten(1).tolist())) == sorted(map(tuple, x.flatten(1).tolist()))
    assert not torch.equal(labels, y)
    pairs = {tuple(row): label for row, label in zip(x.flatten(1).tolist(), y.tolist(), strict=True)}
    assert all(pairs[tuple(row)] == label for row, label in zip(seen.flatten(1).tolist(), labels.tolist(), strict=True))


def test_the_order_depends_on_seed_experience_and_epoch_only(benchmark) -> None:
    def make(seed: int, position: int = 0) -> ExperienceDataModule:
        return ExperienceDataModule(benchmark.train_stream[position], benchmark.test_stream, seed=seed)

    torch.manual_seed(0)
    loader = make(7).train_dataloader()
    first, second = epoch(loader), epoch(loader)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    same = make(7).train_dataloader()
    assert torch.equal(epoch(same)[0], first[0])
    assert torch.equal(epoch(same)[0], second[0])
    for test_loader in make(7).test_dataloader():
        epoch(test_loader)
    assert torch.equal(torch.get_rng_state(), state), "loading changed the global generator"
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(epoch(make(8).train_dataloader())[0], first[0])


def test_experiences_of_one_size_are_not_shuffled_alike() -> None:
    stream = scenario("permuted-digits", experiences=2)
    orders = [epoch(ExperienceDataModule(e, stream.test_stream).train_dataloader())[1] for e in stream.train_stream]
    assert not torch.equal(*orders)


def test_without_shuffling_the_order_is_that_of_the_data(benchmark) -> None:
    data = ExperienceDataModule(benchmark.train_stream[0], benchmark.test_stream, shuffle=False)
    for loader, experience in (
        (data.train_dataloader(), benchmark.train_stream[0]),
        *zip(data.test_dataloader(), benchmark.test_stream, strict=True),
    ):
        for ours, expected in zip(epoch(loader), experience_tensors(experience), strict=True):
            assert torch.equal(ours, expected)


def test_a_batch_is_taken_at_once(benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: TensorView, position: int) -> None:
        raise AssertionError("a single sample was touched")

    monkeypatch.setattr(TensorView, "__getitem__", refuse)
    data = ExperienceDataModule(benchmark.train_stream[0], benchmark.test_stream)
    assert len(epoch(data.train_dataloader())[1]) == len(benchmark.train_stream[0].dataset)
    assert len(experience_tensors(benchmark.train_stream[0])[1]) == len(benchmark.train_stream[0].dataset)


def test_other_benchmarks_are_read_through_their_transforms(foreign) -> None:
    x, y = experience_tensors(foreign.train_stream[1])
    assert set(y.tolist()) == {2, 3}
    assert y.dtype == torch.int64
    assert x.max() < 0
    torch.testing.assert_close(-x[:, 0] / 2 % 4, y.float())
    data = ExperienceDataModule(foreign.train_stream[1], foreign.test_stream, batch_size=4)
    seen, labels = epoch(data.train_dataloader())
    assert sorted(seen.tolist()) == sorted(x.tolist())
    torch.testing.assert_close(-seen[:, 0] / 2 % 4, labels.float())
    assert len(data.test_dataloader()) == 2


def test_a_replaced_data_set_is_not_taken_for_the_tensors_of_the_old(benchmark) -> None:
    from avalanche.benchmarks import benchmark_with_validation_stream

    cut = benchmark_with_validation_stream(benchmark, validation_size=0.5, shuffle=False)
    kept, held_out = (experience_tensors(stream[0]) for stream in (cut.train_stream, cut.valid_stream))
    whole = experience_tensors(benchmark.train_stream[0])
    assert torch.equal(torch.cat([kept[0], held_out[0]]), whole[0])


def test_an_empty_experience_is_refused(benchmark) -> None:
    from avalanche.benchmarks import benchmark_from_datasets

    empty = benchmark_from_datasets(train=[benchmark.train_stream[0].dataset.subset([])]).train_stream[0]
    with pytest.raises(ValueError, match="no samples"):
        experience_tensors(empty)
    with pytest.raises(ValueError, match="no samples"):
        ExperienceDataModule(empty, benchmark.test_stream)
    with pytest.raises(ValueError, match="empty stream"):
        ExperienceDataModule(benchmark.train_stream[0], [])


@pytest.mark.parametrize("batch_size", (0, -1, 2.5, True, None))
def test_a_batch_size_must_be_a_positive_integer(benchmark, batch_size: object) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        ExperienceDataModule(benchmark.train_stream[0], benchmark.test_stream, batch_size=batch_size)


class Linear(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.seen: list[int] = []
        self.right: dict[int, int] = {}

    def training_step(self, batch, batch_index):
        x, y = batch
        self.seen.append(len(y))
        return torch.nn.functional.cross_entropy(self.layer(x.flatten(1)), y)

    def test_step(self, batch, batch_index, dataloader_idx=0):
        x, y = batch
        right = int((self.layer(x.flatten(1)).argmax(1) == y).sum())
        self.right[dataloader_idx] = self.right.get(dataloader_idx, 0) + right

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # of Lightning 2.6 with torch 2.14
def test_lightning_trains_and_tests_on_it(benchmark, tmp_path) -> None:
    torch.manual_seed(0)
    module = Linear()
    data = ExperienceDataModule(benchmark.train_stream[0], benchmark.test_stream, batch_size=32)
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)
    samples = len(benchmark.train_stream[0].dataset)
    assert sum(module.seen) == 4 * samples
    trainer.test(module, datamodule=data, verbose=False)
    sizes = [len(e.dataset) for e in benchmark.test_stream]
    assert module.right[0] / sizes[0] > 0.9
    assert module.right[1] / sizes[1] < 0.1


def test_views_of_different_tensors_are_copied_into_one() -> None:
    x, y, index = torch.rand(4, 2, 3), torch.arange(4), torch.arange(4)
    views = [
        TensorView(x, y, index),
        TensorView(x + 1, y + 4, index.flip(0)),
        TensorView(x, y, index, torch.randperm(6)[None], torch.zeros_like(index)),
    ]
    whole_x, whole_y = concatenate(views).tensors()
    assert torch.equal(whole_x, torch.cat([view.tensors()[0] for view in views]))
    assert torch.equal(whole_y, torch.cat([view.tensors()[1] for view in views]))


def test_views_that_do_not_belong_together_are_refused() -> None:
    x, y, index = torch.rand(4, 2, 3), torch.arange(4), torch.arange(4)
    plain = TensorView(x, y, index)
    for views, message in (
        ([], "at least one"),
        ([plain, TensorView(x[:, :1], y, index)], "one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            concatenate(views)
    with pytest.raises(ValueError, match="together"):
        TensorView(x, y, index, permutations=torch.randperm(6)[None])
    with pytest.raises(ValueError, match="6 pixels"):
        TensorView(x, y, index, torch.randperm(5)[None], torch.zeros_like(index))
    with pytest.raises(ValueError, match="one group per sample"):
        TensorView(x, y, index, torch.randperm(6)[None], torch.zeros(2, dtype=torch.long))
