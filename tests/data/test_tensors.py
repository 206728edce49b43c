"""Benchmarks of one's own tensors, and the scale of samples."""

from __future__ import annotations

import pytest
import torch

from lit_meta.data import experience_tensors, load_source, scenario, tensor_benchmark


def samples(labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.tensor(labels)
    return torch.rand(len(y), 3, generator=torch.Generator().manual_seed(len(y))), y


def test_tensors_come_back_as_they_were_given() -> None:
    train, test = [samples([0, 0, 1]), samples([2, 3])], [samples([0, 1]), samples([2, 3, 3])]
    benchmark = tensor_benchmark(train, test, name="mine", validation=[samples([1]), samples([2])])
    for stream, given in ((benchmark.train_stream, train), (benchmark.test_stream, test)):
        for experience, (x, y) in zip(stream, given, strict=True):
            got_x, got_y = experience_tensors(experience)
            assert torch.equal(got_x, x)
            assert torch.equal(got_y, y)
    assert (benchmark.name, benchmark.classes, benchmark.input_shape) == ("mine", 4, (3,))
    assert len(benchmark.validation_stream) == 2


@pytest.mark.parametrize(
    ("train", "message"),
    (
        ([], "at least one"),
        ([(torch.rand(3, 2), torch.zeros(2, dtype=torch.long))], "one label for each sample"),
        ([(torch.rand(2, 2), torch.rand(2))], "integers"),
        ([(torch.rand(2, 2), torch.tensor([0, -1]))], "integers from 0"),
    ),
)
def test_what_does_not_fit_is_refused(train, message) -> None:
    with pytest.raises(ValueError, match=message):
        tensor_benchmark(train, [samples([0, 1])])


def test_standardized_samples_have_mean_0_and_deviation_1_on_the_training_set() -> None:
    benchmark = scenario("split-digits", experiences=1, standardize="train")
    x, _ = experience_tensors(benchmark.train_stream[0])
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std()) - 1) < 1e-3
    plain = load_source("digits")
    given = scenario("split-digits", experiences=1, standardize={"mean": 0.3, "std": [0.4]})
    torch.testing.assert_close(
        experience_tensors(given.test_stream[0])[0].sort(0).values, ((plain.test_x - 0.3) / 0.4).sort(0).values
    )


def test_channels_are_standardized_one_by_one(data_root) -> None:
    constants = {"mean": [0.491, 0.482, 0.447], "std": [0.247, 0.243, 0.262]}
    benchmark = scenario("split-cifar10", standardize=constants, class_order=range(10))
    x, _ = experience_tensors(benchmark.test_stream[3])
    source = load_source("cifar10")
    raw = source.test_x[source.test_y == 3]
    for channel in range(3):
        expected = (raw[:, channel] - constants["mean"][channel]) / constants["std"][channel]
        torch.testing.assert_close(x[:, channel], expected)
    from lit_meta.data.sources import registry

    registry._load.cache_clear()  # 600 MB that no other test needs


@pytest.mark.parametrize(
    ("standardize", "message"),
    (
        ("test", "must be 'train' or"),
        ({"mean": 0.0}, "must be 'train' or"),
        ({"mean": 0.0, "std": 0.0}, "above 0"),
        ({"mean": [0.0, 1.0], "std": 1.0}, "one number or 1"),
        ({"mean": "x", "std": 1.0}, "must be"),
    ),
)
def test_a_scale_that_makes_no_sense_is_refused(standardize, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        scenario("split-digits", standardize=standardize)


def test_one_scale_at_a_time() -> None:
    with pytest.raises(ValueError, match="pass only one of them"):
        scenario("split-digits", standardize="train", input_range=(-1, 1))
