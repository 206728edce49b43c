"""Scenarios: what is in every experience, in which order, and that nothing leaks between the parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lit_meta.data import experience_tensors, joint, load_source, scenario, scenario_names


@pytest.fixture(scope="module")
def split() -> object:
    return scenario("split-digits", experiences=5, seed=3)


def rows(x: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in x.flatten(1).tolist()}


def test_every_experience_has_its_own_classes_on_both_streams(split) -> None:
    assert (split.name, split.classes, split.input_shape) == ("split-digits", 10, (1, 8, 8))
    assert split.class_names == tuple("0123456789")
    assert len(split.train_stream) == len(split.test_stream) == 5
    for i, (train, test) in enumerate(zip(split.train_stream, split.test_stream, strict=True)):
        expected = set(split.class_order[2 * i : 2 * i + 2])
        assert set(train.classes_in_this_experience) == set(test.classes_in_this_experience) == expected
        assert set(train.classes_seen_so_far) == set(split.class_order[: 2 * i + 2])
        assert train.current_experience == test.current_experience == i
        assert train.task_label == test.task_label == 0
        for experience in (train, test):
            assert set(experience_tensors(experience)[1].tolist()) == expected


def test_the_streams_hold_every_sample_of_the_source_once(split) -> None:
    source = load_source("digits")
    for stream, x, y in (
        (split.train_stream, source.train_x, source.train_y),
        (split.test_stream, source.test_x, source.test_y),
    ):
        parts = [experience_tensors(e) for e in stream]
        assert sum(len(labels) for _, labels in parts) == len(y)
        assert rows(torch.cat([samples for samples, _ in parts])) == rows(x)


def test_the_seed_alone_decides_the_order_of_the_classes() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    orders = {seed: scenario("split-digits", seed=seed).class_order for seed in range(5)}
    assert torch.equal(torch.get_rng_state(), state), "building a scenario changed the global generator"
    torch.manual_seed(2)
    assert all(scenario("split-digits", seed=seed).class_order == order for seed, order in orders.items())
    assert len(set(orders.values())) == 5
    assert all(sorted(order) == list(range(10)) for order in orders.values())
    assert scenario("split-digits", seed=3, validation=0.2).class_order == orders[3]


def test_a_given_class_order_is_kept() -> None:
    order = (9, 0, 8, 1, 7, 2, 6, 3, 5, 4)
    benchmark = scenario("split-digits", class_order=order)
    assert benchmark.class_order == order
    assert [next(iter(e.classes_in_this_experience)) for e in benchmark.train_stream] == list(order)


@pytest.mark.parametrize("train", (True, False))
def test_tensors_are_what_avalanche_gives_item_by_item(train: bool) -> None:
    for name in ("split-digits", "permuted-digits"):
        benchmark = scenario(name, experiences=2)
        for experience in benchmark.train_stream if train else benchmark.test_stream:
            x, y = experience_tensors(experience)
            items = [experience.dataset[i] for i in range(len(experience.dataset))]
            assert torch.equal(torch.stack([item[0] for item in items]), x)
            assert [item[1] for item in items] == y.tolist() == list(experience.dataset.targets)
            assert {item[2] for item in items} == {0}


@pytest.mark.parametrize("validation", (0.0, 0.2))
def test_in_the_domain_form_a_label_is_the_position_of_the_class_in_its_experience(split, validation) -> None:
    domain = scenario("split-digits", experiences=5, seed=3, form="domain", validation=validation)
    plain = scenario("split-digits", experiences=5, seed=3, validation=validation)
    assert (split.form, domain.form, domain.classes) == ("class", "domain", 2)
    assert domain.class_order == plain.class_order
    columns = tuple("/".join(map(str, plain.class_order[i::2])) for i in range(2))
    assert domain.class_names == columns
    for stream in ("train_stream", "test_stream", *(("validation_stream",) if validation else ())):
        for i, (one, two) in enumerate(zip(getattr(domain, stream), getattr(plain, stream), strict=True)):
            (x, y), (plain_x, plain_y) = experience_tensors(one), experience_tensors(two)
            first, second = plain.class_order[2 * i : 2 * i + 2]
            assert torch.equal(x, plain_x)
            assert torch.equal(plain_y, torch.where(y == 0, first, second))
            assert set(one.classes_in_this_experience) == {0, 1}
            assert [one.dataset[k][1] for k in range(5)] == y[:5].tolist()
    whole = experience_tensors(joint(domain).train_stream[0])
    assert len(whole[1]) == sum(len(e.dataset) for e in plain.train_stream)
    assert set(whole[1].tolist()) == {0, 1}


def test_the_task_form_has_the_labels_of_the_source(split) -> None:
    told = scenario("split-digits", experiences=5, seed=3, form="task")
    assert (told.form, told.classes, told.class_order) == ("task", 10, split.class_order)
    for one, two in zip(told.train_stream, split.train_stream, strict=True):
        assert torch.equal(experience_tensors(one)[1], experience_tensors(two)[1])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    (
        ("split-digits", {"form": "instance"}, "form must be one of class, domain, task"),
        ("split-digits", {"form": "domain"}, "needs two classes or more"),
    ),
)
def test_forms_that_make_no_sense_are_refused(name, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        scenario(name, **arguments)


def test_the_input_range_moves_every_sample_and_nothing_else() -> None:
    plain = scenario("split-digits", experiences=5, seed=3, validation=0.2)
    moved = scenario("split-digits", experiences=5, seed=3, validation=0.2, input_range=(-1, 3))
    assert moved.class_order == plain.class_order
    for stream in ("train_stream", "validation_stream", "test_stream"):
        for one, other in zip(getattr(plain, stream), getattr(moved, stream), strict=True):
            (x, y), (moved_x, moved_y) = experience_tensors(one), experience_tensors(other)
            torch.testing.assert_close(moved_x, 4 * x - 1)
            assert torch.equal(moved_y, y)
    assert load_source("digits").train_x.min() == 0.0, "the source itself is shared and stays as it is"


def test_permutations_are_fixed_distinct_and_shared_by_both_streams() -> None:
    source = load_source("digits")
    benchmark = scenario("permuted-digits", experiences=3, seed=5)
    again = scenario("permuted-digits", experiences=3, seed=5)
    first = experience_tensors(benchmark.train_stream[0])
    assert torch.equal(first[0], source.train_x)
    seen = []
    for i in range(3):
        x, y = experience_tensors(benchmark.train_stream[i])
        assert torch.equal(y, source.train_y)
        assert torch.equal(x.flatten(1).sort(1).values, source.train_x.flatten(1).sort(1).values)
        assert torch.equal(x, experience_tensors(again.train_stream[i])[0])
        seen.append(x)
        # The permutation found from the training images explains the test images.
        x_test = experience_tensors(benchmark.test_stream[i])[0].flatten(1)
        view = benchmark.train_stream[i].tensor_view[0]
        assert torch.equal(x_test, source.test_x.flatten(1)[:, view.permutations[0]])
        assert set(benchmark.train_stream[i].classes_in_this_experience) == set(range(10))
    assert not torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[0], seen[1])
    other = scenario("permuted-digits", experiences=3, seed=6)
    assert not torch.equal(experience_tensors(other.train_stream[1])[0], seen[1])
    assert benchmark.train_stream[2].tensor_view[0].x is source.train_x, "the images were copied"


def test_some_samples_of_each_permutation_are_drawn_anew_and_test_samples_once() -> None:
    whole = scenario("permuted-digits", experiences=3, seed=5)
    part = scenario("permuted-digits", experiences=3, seed=5, samples=40, test_samples=25)
    train = [experience.tensor_view[0] for experience in part.train_stream]
    test = [experience.tensor_view[0] for experience in part.test_stream]
    for i in range(3):
        assert len(set(train[i].index.tolist())) == 40
        assert len(set(test[i].index.tolist())) == 25
        assert torch.equal(train[i].permutations, whole.train_stream[i].tensor_view[0].permutations)
    assert not torch.equal(train[0].index, train[1].index)
    assert torch.equal(test[0].index, test[2].index)
    for arguments in ({"samples": 0}, {"test_samples": 10_000}):
        with pytest.raises(ValueError, match="whole number from 1 to"):
            scenario("permuted-digits", **arguments)


@pytest.mark.parametrize("name", ("split-digits", "permuted-digits"))
def test_validation_samples_are_taken_out_of_training(name: str) -> None:
    benchmark = scenario(name, experiences=5, seed=1, validation=0.25)
    plain = scenario(name, experiences=5, seed=1)
    assert not hasattr(plain, "validation_stream")
    assert len(benchmark.validation_stream) == 5
    for part, held_out, whole, test, plain_test in zip(
        benchmark.train_stream,
        benchmark.validation_stream,
        plain.train_stream,
        benchmark.test_stream,
        plain.test_stream,
        strict=True,
    ):
        kept, out, everything = (experience_tensors(e) for e in (part, held_out, whole))
        assert len(kept[1]) + len(out[1]) == len(everything[1])
        assert rows(kept[0]) | rows(out[0]) == rows(everything[0])
        assert not rows(kept[0]) & rows(out[0])
        share = out[1].bincount(minlength=10) / everything[1].bincount(minlength=10)
        assert share[~share.isnan()].sub(0.25).abs().max() < 0.005
        assert torch.equal(experience_tensors(test)[0], experience_tensors(plain_test)[0])
    indices = [e.tensor_view[0].index.tolist() for e in benchmark.validation_stream]
    if name == "permuted-digits":
        assert all(index == indices[0] for index in indices), "an image held out here is trained on there"


@pytest.mark.parametrize("name", ("split-digits", "permuted-digits"))
def test_joint_has_one_experience_with_everything(name: str) -> None:
    benchmark = scenario(name, experiences=2, validation=0.1)
    whole = joint(benchmark)
    assert len(whole.train_stream) == 1
    x, y = experience_tensors(whole.train_stream[0])
    parts = [experience_tensors(e) for e in benchmark.train_stream]
    assert torch.equal(x, torch.cat([part for part, _ in parts]))
    assert torch.equal(y, torch.cat([labels for _, labels in parts]))
    assert torch.equal(whole.train_stream[0].dataset[len(y) - 1][0], x[-1])
    assert (whole.name, whole.class_order, whole.classes) == (name, benchmark.class_order, 10)
    assert [len(e.dataset) for e in whole.test_stream] == [len(e.dataset) for e in benchmark.test_stream]
    assert [len(e.dataset) for e in whole.validation_stream] == [len(e.dataset) for e in benchmark.validation_stream]


def test_joint_takes_benchmarks_without_task_labels() -> None:
    from avalanche.benchmarks import class_incremental_benchmark
    from avalanche.benchmarks.utils import as_classification_dataset
    from torch.utils.data import TensorDataset

    data = TensorDataset(torch.arange(12.0)[:, None], torch.arange(12) % 3)
    data.targets = torch.arange(12) % 3
    dataset = as_classification_dataset(data)
    whole = joint(class_incremental_benchmark({"train": dataset, "test": dataset}, num_experiences=3))
    x, y = experience_tensors(whole.train_stream[0])
    assert sorted(x.flatten().tolist()) == list(range(12))
    assert (x[:, 0] % 3).tolist() == y.tolist()
    assert len(whole.test_stream) == 3


def test_joint_takes_other_avalanche_benchmarks() -> None:
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline

    ours = scenario("split-digits", experiences=2)
    other = with_classes_timeline(
        benchmark_from_datasets(
            train=[e.dataset for e in ours.train_stream], test=[e.dataset for e in ours.test_stream]
        )
    )
    x, y = experience_tensors(joint(other).train_stream[0])
    expected = experience_tensors(joint(ours).train_stream[0])
    assert torch.equal(x, expected[0])
    assert torch.equal(y, expected[1])


def test_avalanche_can_cut_and_join_the_data_sets(split) -> None:
    dataset = split.train_stream[0].dataset
    part = dataset.subset([4, 2])
    assert torch.equal(part[0][0], dataset[4][0])
    both = part.concat(split.train_stream[1].dataset)
    assert list(both.targets) == [*part.targets, *split.train_stream[1].dataset.targets]
    assert torch.equal(both[2][0], split.train_stream[1].dataset[0][0])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    (
        ("split-digits", {"experiences": 3}, "choose one of 1, 2, 5, 10"),
        ("split-digits", {"experiences": 0}, "whole number"),
        ("split-digits", {"experiences": 2.0}, "whole number"),
        ("split-digits", {"class_order": [0, 1, 2]}, r"each of 0\.\.9 once"),
        ("split-digits", {"class_order": [0] * 10}, r"each of 0\.\.9 once"),
        ("split-digits", {"validation": 1.0}, "validation fraction"),
        ("split-digits", {"validation": 0.001}, "of class '0' on one side"),
        ("split-digits", {"input_range": (1, -1)}, "smaller first"),
        ("split-digits", {"input_range": (0, float("nan"))}, "finite"),
        ("split-digits", {"input_range": 2.0}, "two numbers|list of numbers"),
    ),
)
def test_arguments_that_do_not_fit_are_refused(name: str, arguments: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        scenario(name, **arguments)


@pytest.mark.parametrize("argument", ("form", "class_order", "experienses"))
def test_an_argument_that_a_scenario_does_not_have_is_refused(argument: str) -> None:
    with pytest.raises(TypeError, match=f"scenario 'permuted' has no argument {argument!r}"):
        scenario("permuted-digits", **{argument: 1})


def test_a_scenario_stands_over_any_source_and_is_named_in_any_form() -> None:
    whole = {"class_path": "lit_meta.data.scenarios.split", "init_args": {"source": "digits", "experiences": 5}}
    specs = ("split-digits", {"name": "split-digits"}, {"name": "split", "source": "digits"}, whole)
    orders = {scenario(spec, seed=3, **({} if spec is whole else {"experiences": 5})).class_order for spec in specs}
    assert len(orders) == 1
    assert scenario("split", source=load_source("digits"), experiences=2).name == "split-digits"
    with pytest.raises(TypeError, match="names its source"):
        scenario({"name": "split-digits", "source": "mnist"})


def test_an_unknown_scenario_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'split-mnist'"):
        scenario("splitmnist")
    names = scenario_names()
    assert {"split", "permuted", "split-digits", "permuted-mnist", "split-tidigits"} <= set(names)
    assert len(names) == len(set(names))


def test_shifts_add_four_moved_copies_of_each_training_image_and_of_no_other():
    plain, moved = (scenario("split-digits", experiences=5, validation=0.2, shifts=shifts, seed=1) for shifts in (0, 1))
    for before, after in zip(plain.train_stream, moved.train_stream, strict=True):
        x, y = experience_tensors(before)
        copies, labels = experience_tensors(after)
        assert labels.tolist() == y.repeat_interleave(5).tolist()
        same, down, up, right, left = copies.unflatten(0, (len(x), 5)).unbind(1)
        assert torch.equal(same, x)
        assert torch.equal(down[:, :, 1:], x[:, :, :-1])
        assert torch.equal(down[:, :, 0], x[:, :, 0])  # The border is repeated.
        assert torch.equal(up[:, :, :-1], x[:, :, 1:])
        assert torch.equal(right[..., 1:], x[..., :-1])
        assert torch.equal(left[..., :-1], x[..., 1:])
    for stream in ("validation_stream", "test_stream"):
        for before, after in zip(getattr(plain, stream), getattr(moved, stream), strict=True):
            assert torch.equal(experience_tensors(before)[0], experience_tensors(after)[0])


def test_the_joint_bound_sees_the_moved_copies_too():
    benchmark = scenario("split-digits", experiences=5, shifts=2)
    together = experience_tensors(joint(benchmark).train_stream[0])[0]
    assert len(together) == sum(len(e.dataset) for e in benchmark.train_stream)
    assert torch.equal(together[:10], experience_tensors(benchmark.train_stream[0])[0][:10])


@pytest.mark.parametrize("shifts", (-1, 8, 1.0, True))
def test_shifts_that_no_image_has_are_refused(shifts):
    with pytest.raises((TypeError, ValueError), match="shifts must be"):
        scenario("split-digits", experiences=5, shifts=shifts)


def test_only_images_are_shifted():
    data = load_source("digits")
    flat = replace(data, train_x=data.train_x.flatten(1), test_x=data.test_x.flatten(1))
    with pytest.raises(ValueError, match=r"only images, \(channels, height, width\), can be shifted"):
        scenario("split", source=flat, experiences=5, shifts=1)
