"""The stream runner: it takes the steps it should, can be resumed, and leaves nothing behind."""

from __future__ import annotations

import math

import lightning as L
import pytest
import torch
from torch import nn

from lit_meta import EWC, NACA, Metaplasticity, MetaplasticModule, fit_stream, scenario
from lit_meta.data import joint
from lit_meta.networks import build_network
from tests.rules.drivers import UserModule


def module(rule=None, **network):
    arguments = {"inputs": 64, "hidden": [16], "classes": 10, "seed": 1, **network}
    return MetaplasticModule(build_network("mlp", **arguments), rule=rule, loss="mse")


@pytest.fixture(scope="module")
def stream():
    return scenario("split-digits", experiences=5, seed=3)


@pytest.mark.parametrize(("epochs", "accumulate"), ((1, 1), (3, 1), (2, 3)))
def test_every_experience_takes_its_steps(stream, epochs, accumulate):
    result = fit_stream(
        module(), stream, max_epochs=epochs, batch_size=50, accumulate_grad_batches=accumulate, accelerator="cpu"
    )
    sizes = [len(e.dataset) for e in stream.train_stream]
    expected = sum(epochs * math.ceil(math.ceil(n / 50) / accumulate) for n in sizes)
    assert result.cost["steps"] == expected
    assert result.cost["samples"] == epochs * sum(sizes)


def test_a_trainer_that_stops_short_is_found_out(stream):
    class Lazy(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.fit_loop.epoch_loop._batches_that_stepped += 1
            trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed += 1

    with pytest.raises(RuntimeError, match="optimizer steps in an experience"):
        fit_stream(module(), stream, callbacks=[Lazy()], accelerator="cpu")


@pytest.mark.parametrize(("options", "steps"), (({"max_steps": 5}, 5), ({"fast_dev_run": True}, 1)))
def test_steps_that_are_limited_over_all_experiences_are_told_from_others(stream, options, steps):
    with pytest.raises(
        ValueError, match=rf"max_steps={steps} .*fast_dev_run.* ended that of index 0 after {steps}: leave"
    ):
        fit_stream(module(), stream, accelerator="cpu", max_epochs=20, **options)


@pytest.mark.parametrize("rule", (EWC(strength=10.0), NACA()), ids=lambda r: type(r).__name__)
def test_a_run_that_crashed_goes_on_to_the_same_bits(stream, rule, tmp_path):
    whole = module(rule.clone())
    expected = fit_stream(whole, stream, seed=5, accelerator="cpu")

    class Crash(Exception):
        pass

    def crash(index, row):
        if index == 2:
            raise Crash

    with pytest.raises(Crash):
        fit_stream(module(rule.clone()), stream, seed=5, accelerator="cpu", run_dir=tmp_path, on_experience=crash)
    resumed = module(rule.clone())
    result = fit_stream(resumed, stream, seed=5, accelerator="cpu", run_dir=tmp_path, resume=True)
    assert torch.equal(result.accuracy_matrix, expected.accuracy_matrix)
    assert torch.equal(result.initial, expected.initial)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert result.cost["steps"] == expected.cost["steps"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2  # Only the last two are kept.


def test_a_users_module_with_the_callback_learns_as_the_wrapper_does(stream):
    network = build_network("mlp", inputs=64, hidden=[16], classes=10, seed=1, output="identity")
    user = UserModule(network)
    rule = EWC(strength=10.0)
    result = fit_stream(user, stream, callbacks=[Metaplasticity(rule, network="body")], accelerator="cpu")
    assert len(rule.state["importance"]) == 2
    assert result.cost["state_bytes"] == rule.state.bytes > 0


def test_the_joint_bound_is_one_experience_tested_on_all(stream):
    result = fit_stream(module(), joint(stream), max_epochs=2, accelerator="cpu")
    assert result.accuracy_matrix.shape == (1, 5)
    assert result.forgetting is None
    assert result.to_dict()["forgetting"] is None


def test_the_global_random_state_is_left_alone(stream):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    fit_stream(module(), stream, accelerator="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_decides_the_order_of_samples(stream):
    results = [fit_stream(module(), stream, seed=seed, accelerator="cpu").accuracy_matrix for seed in (0, 0, 1)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"resume": True}, "needs the run_dir"),
        ({"protocol": "leaky"}, "protocol must be one of"),
    ),
)
def test_bad_arguments(stream, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_stream(module(), stream, accelerator="cpu", **arguments)


def test_labels_outside_the_head_are_one_clear_error(stream):
    narrow = module(classes=4)
    before = [p.detach().clone() for p in narrow.parameters()]
    with pytest.raises(ValueError, match=r"label \d, but the head has 4 outputs"):
        fit_stream(narrow, stream, accelerator="cpu")
    assert all(torch.equal(p, b) for p, b in zip(narrow.parameters(), before, strict=True))


def test_a_network_whose_outputs_are_no_scores_is_refused(stream):
    with pytest.raises(ValueError, match="must give outputs"):
        fit_stream(MetaplasticModule(nn.Sequential(nn.Linear(8, 10)), loss="mse"), stream, accelerator="cpu")


def test_resuming_a_complete_run_reports_the_same_cost(tmp_path):
    stream = scenario("split-digits", experiences=2)
    first = fit_stream(module(EWC()), stream, accelerator="cpu", run_dir=tmp_path)
    again = fit_stream(module(EWC()), stream, accelerator="cpu", run_dir=tmp_path, resume=True)
    assert again.cost["state_bytes"] == first.cost["state_bytes"] > 0


def test_without_a_terminal_a_progress_bar_is_a_line_for_each_experience(capsys):
    module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[4], classes=10))
    result = fit_stream(module, scenario("split-digits", experiences=2), enable_progress_bar=True, accelerator="cpu")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line[:3] for line in lines] == ["[1/", "[2/"]
    assert lines[1].endswith(f"experience 2: {100 * result.average_accuracy:.1f} % on what was learned")
    fit_stream(module, scenario("split-digits", experiences=2), accelerator="cpu")
    assert "experience" not in capsys.readouterr().err


def test_an_argument_that_nobody_has_is_refused_with_the_nearest():
    module = MetaplasticModule(build_network("mlp", inputs=64, hidden=[4], classes=10))
    for wrong, near in {
        "max_epoch": "max_epochs",
        "rundir": "run_dir",
        "enable_progressbar": "enable_progress_bar",
    }.items():
        with pytest.raises(TypeError, match=f"no argument '{wrong}'; did you mean '{near}'"):
            fit_stream(module, scenario("split-digits", experiences=2), **{wrong: 2})


@pytest.mark.parametrize("thing", (None, "split-digits", [(torch.rand(4, 64), torch.arange(4))]))
def test_something_that_is_no_benchmark_is_refused(thing):
    with pytest.raises(TypeError, match=r"see lit_meta\.scenario"):
        fit_stream(module(), thing)


def test_a_bare_network_is_refused_with_the_way_to_wrap_it(stream):
    with pytest.raises(TypeError, match=r"wrap it as MetaplasticModule\(network\)"):
        fit_stream(module().network, stream)


@pytest.mark.parametrize(
    ("path", "message"),
    (
        ("torch.optim.Nope", r"such as 'torch\.optim\.SGD'"),
        ("nomodule.SGD", r"such as 'torch\.optim\.SGD'"),
        ("SGD", r"such as 'torch\.optim\.SGD'"),
        ("", "must be text"),
    ),
)
def test_an_optimizer_that_there_is_not_is_refused_before_training(path, message):
    with pytest.raises(ValueError, match=message):
        MetaplasticModule(nn.Linear(2, 2), optimizer={"class_path": path})


@pytest.mark.parametrize(
    ("options", "samples"),
    (
        ({}, 1438),
        ({"limit_train_batches": 2}, 5 * 2 * 32),
        ({"overfit_batches": 1}, 5 * 32),
        ({"max_epochs": 2}, 2 * 1438),
    ),
)
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_the_samples_of_a_stream_are_those_that_training_saw(options, samples):
    result = fit_stream(
        module(), scenario("split-digits", experiences=5), **{"batch_size": 32, "accelerator": "cpu", **options}
    )
    assert result.cost["samples"] == samples
