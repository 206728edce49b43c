"""The measures are Avalanche's: its own evaluation plugin sees the same predictions of a real strategy."""

from __future__ import annotations

import pytest
import torch

from lit_meta.data import scenario
from lit_meta.functional import matrix as functional
from lit_meta.metrics import AccuracyMatrix, BackwardTransfer, Forgetting, ForwardTransfer

EXPERIENCES = 5


@pytest.mark.filterwarnings("ignore:.*[Ll]ogger.*")
@pytest.mark.parametrize("name", ("split-digits", "permuted-digits"))
def test_every_measure_equals_avalanches_after_every_experience(name: str) -> None:
    from avalanche.core import SupervisedPlugin
    from avalanche.evaluation.metrics import (
        accuracy_metrics,
        bwt_metrics,
        forgetting_metrics,
        forward_transfer_metrics,
    )
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    ours = [kind(EXPERIENCES) for kind in (AccuracyMatrix, Forgetting, BackwardTransfer, ForwardTransfer)]

    class Record(SupervisedPlugin):
        """Hands the predictions of every evaluation to our metrics."""

        learned: int | None = None

        def before_training_exp(self, strategy, **kwargs):
            self.learned = strategy.experience.logging().current_experience

        def after_eval_iteration(self, strategy, **kwargs):
            tested = strategy.experience.logging().current_experience
            for metric in ours:
                metric.update(self.learned, tested, strategy.mb_output.detach(), strategy.mb_y)

    torch.manual_seed(0)
    benchmark = scenario(name, experiences=EXPERIENCES, seed=1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))
    evaluator = EvaluationPlugin(
        accuracy_metrics(experience=True, stream=True),
        forgetting_metrics(experience=True, stream=True),
        bwt_metrics(experience=True, stream=True),
        forward_transfer_metrics(experience=True, stream=True),
        loggers=[],
    )
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.05),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=32,
        eval_mb_size=512,
        train_epochs=2,
        plugins=[Record()],
        evaluator=evaluator,
        eval_every=0,  # before any training and after every experience
    )
    seen_forgetting = []
    for k, experience in enumerate(benchmark.train_stream):
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        theirs = evaluator.get_last_metrics()
        accuracies, forgetting, backward, forward = (metric.compute() for metric in ours)
        for j in range(EXPERIENCES):
            expected = theirs[f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{j:03d}"]
            assert accuracies[k, j].item() == pytest.approx(expected, abs=1e-6)
        assert accuracies[k + 1 :].isnan().all()
        sizes = torch.tensor([len(e.dataset) for e in benchmark.test_stream])
        stream_accuracy = (accuracies[k] * sizes).sum() / sizes.sum()
        assert stream_accuracy.item() == pytest.approx(
            theirs["Top1_Acc_Stream/eval_phase/test_stream/Task000"], abs=1e-6
        )
        for value, measure in (
            (forgetting, "StreamForgetting"),
            (backward, "StreamBWT"),
            (forward, "StreamForwardTransfer"),
        ):
            assert value.item() == pytest.approx(theirs[f"{measure}/eval_phase/test_stream"], abs=1e-6), (
                k,
                measure,
            )
        initial = ours[0].initial()
        torch.testing.assert_close(functional.forgetting(accuracies), forgetting)
        torch.testing.assert_close(functional.forward_transfer(accuracies, initial), forward)
        seen_forgetting.append(forgetting.item())
    assert seen_forgetting[0] == 0
    assert seen_forgetting[-1] > 0.01, "a network that forgets nothing would prove nothing"
