"""How long the package lets people wait before anything happens, in processor time of a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from lit_meta.bench._benchmark import Benchmark, Scaling, Work

_LIST = "import sys; sys.argv = ['lit-meta', 'rules']; from lit_meta.cli import main; main()"


def interpreter(code: str) -> Work:
    """Runs code in an interpreter of its own and returns the seconds of processor time that it took."""

    import resource

    def work() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return work


BENCHMARKS: tuple[Benchmark | Scaling, ...] = (
    Benchmark(
        "startup/list",
        "lit-meta rules",
        "import torch",
        lambda: interpreter(_LIST),
        lambda: interpreter("import torch"),
        0.5,
        quantity="processor seconds",
        requires=("resource",),
    ),
    Benchmark(
        "startup/import",
        "import lightning, lit_meta",
        "import lightning",
        lambda: interpreter("import lightning, lit_meta; lit_meta.__version__"),
        lambda: interpreter("import lightning"),
        1.05,
        quantity="processor seconds",
        requires=("resource",),
    ),
)
