"""Metaplasticity for PyTorch Lightning: the plasticity of a synapse depends on its history and on neuromodulators."""

from __future__ import annotations

import lazy_loader

from lit_meta import _moved
from lit_meta._version import __version__ as __version__

# Lightning and Avalanche take seconds to import: each name of __init__.pyi, the one list of exports, is looked up when used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_moved.install()
