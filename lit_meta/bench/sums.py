"""A readout of wide features: its sums and one solution, against scikit-learn's Ridge and LDA and the plain recursion."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_meta.bench._benchmark import Benchmark, Scaling, Work
from lit_meta.rules import RecursiveReadout, StreamingLDA
from lit_meta.rules._readout_sums import Precision

_BATCH = 500
_CLASSES = 10
_RIDGE = 1e-3
_SHRINKAGE = 1e-3


def _samples(samples: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(64, width, generator=generator)
    x = torch.relu(torch.randn(samples, 64, generator=generator) @ mixing)
    return x, x[:, :_CLASSES].argmax(1)


def readout(*, width: int, samples: int, precision: Precision = "float64") -> Work:
    """Sums of all samples in batches, stored in this precision, and one solution; the call returns the head's weights."""
    x, y = _samples(samples, width)
    batches = list(zip(x.split(_BATCH), y.split(_BATCH), strict=True))

    def work() -> Tensor:
        head = nn.Linear(width, _CLASSES)
        rule = RecursiveReadout(ridge=_RIDGE, precision=precision)
        rule.learn(head, batches)
        rule.write(head)
        return head.weight.detach()

    return work


def sklearn_ridge(*, width: int, samples: int) -> Work:
    """The same regression by scikit-learn on all samples at once, in float64."""
    from sklearn.linear_model import Ridge

    x, y = _samples(samples, width)

    def work() -> Tensor:
        wide = x.double()
        scale = float((wide - wide.mean(0)).square().sum(0).mean())
        model = Ridge(alpha=_RIDGE * scale, solver="cholesky")
        return torch.from_numpy(model.fit(wide.numpy(), F.one_hot(y, _CLASSES).double().numpy()).coef_)

    return work


def discriminant(*, width: int, samples: int) -> Work:
    """Sums of all samples in batches and one linear discriminant analysis; the call returns the head."""
    x, y = _samples(samples, width)
    batches = list(zip(x.split(_BATCH), y.split(_BATCH), strict=True))

    def work() -> nn.Linear:
        head = nn.Linear(width, _CLASSES)
        rule = StreamingLDA(shrinkage=_SHRINKAGE)
        rule.learn(head, batches)
        rule.write(head)
        return head

    return work


def sklearn_discriminant(*, width: int, samples: int) -> Work:
    """The same by scikit-learn on all samples at once, in float64, with the faster of its solvers that shrink."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = _samples(samples, width)

    def work() -> LinearDiscriminantAnalysis:
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_SHRINKAGE)
        return model.fit(x.double().numpy(), y.numpy())

    return work


def recursion(*, width: int, samples: int) -> Work:
    """Recursive least squares as it is written, sample by sample: P, (width, width), in float64, without an intercept."""
    x, y = _samples(samples, width)

    def work() -> Tensor:
        wide = x.double()
        scale = float(wide.square().sum(0).mean())
        inverse = torch.eye(width, dtype=torch.float64) / (_RIDGE * scale)
        weight = torch.zeros(_CLASSES, width, dtype=torch.float64)
        for h, label in zip(wide, F.one_hot(y, _CLASSES).double(), strict=True):
            image = inverse @ h
            gain = image / (1 + h @ image)
            weight.addr_(label - weight @ h, gain)
            inverse.addr_(gain, image, alpha=-1)
        return weight

    return work


def peak_bytes(make: str, *, width: int, samples: int, **options: str) -> Callable[[], int]:
    """Peak memory of one of the works above in a process of its own, beyond what it has taken before the work begins.

    Args:
        make: the work's name in this file.
        width: features.
        samples: samples, which are prepared before.
        options: further arguments of the work.
    """
    script = (
        "import torch; torch.set_num_threads(1)\n"
        "from lit_meta.bench import sums\n"
        "from lit_meta.utils.heap import peak_bytes as peak\n"
        f"sums.{make}(width=64, samples=100)()\n"
        f"work = sums.{make}(width={width}, samples={samples}, **{options!r})\n"
        "before = peak(); work(); print(peak() - before)"
    )

    def work() -> int:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    return work


_TIMED: dict[str, Any] = {"width": 4096, "samples": 4000}
_WIDE: dict[str, Any] = {"width": 8192, "samples": 2000}
# With fewer samples than features scikit-learn solves for the samples, which is another problem.
_TALL: dict[str, Any] = {"width": 8192, "samples": 10_000}
_CLASSED: dict[str, Any] = {"width": 2048, "samples": 4000}
_PLAIN: dict[str, Any] = {"width": 2048, "samples": 1000}

BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    Benchmark(
        "sums/ridge-time",
        "4,000 samples of 4,096 features: sums in batches of 500, and one solution",
        "scikit-learn's Ridge (Cholesky) on all at once",
        lambda: readout(**_TIMED),
        lambda: sklearn_ridge(**_TIMED),
        1.0,
    ),
    Benchmark(
        "sums/lda-time",
        "4,000 samples of 2,048 features: sums in batches of 500, and one discriminant analysis",
        "scikit-learn's LinearDiscriminantAnalysis (lsqr) on all at once",
        lambda: discriminant(**_CLASSED),
        lambda: sklearn_discriminant(**_CLASSED),
        1.0,
    ),
    Benchmark(
        "sums/recursion-time",
        "1,000 samples of 2,048 features: sums in batches of 500, and one solution",
        "recursive least squares, sample by sample",
        lambda: readout(**_PLAIN),
        lambda: recursion(**_PLAIN),
        1.0,
    ),
    Benchmark(
        "sums/ridge-memory",
        "peak memory of 8,192 features, 10,000 samples",
        "scikit-learn's Ridge (Cholesky) on all at once",
        lambda: peak_bytes("readout", **_TALL),
        lambda: peak_bytes("sklearn_ridge", **_TALL),
        0.5,
        "bytes",
    ),
    Benchmark(
        "sums/recursion-memory",
        "peak memory of 8,192 features, 20 samples",
        "recursive least squares, sample by sample",
        lambda: peak_bytes("readout", width=8192, samples=20),
        lambda: peak_bytes("recursion", width=8192, samples=20),
        1.0,
        "bytes",
    ),
    Benchmark(
        "sums/float32-memory",
        "peak memory of 8,192 features, 2,000 samples, sums in float32",
        "the same in float64",
        lambda: peak_bytes("readout", **_WIDE, precision="float32"),
        lambda: peak_bytes("readout", **_WIDE),
        0.75,
        "bytes",
    ),
    Scaling(
        "sums/width",
        "2,000 samples: sums in batches of 500, and one solution",
        "features",
        (1024, 2048, 4096),
        lambda width: readout(width=width, samples=2000),
    ),
)
