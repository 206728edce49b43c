"""Experiments from YAML files, and settings that change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from lit_meta.experiments.config import Experiment
from lit_meta.utils.annotations import annotations_of, fits
from lit_meta.utils.arguments import nearest
from lit_meta.utils.io import load_text, parse_yaml
from lit_meta.utils.paths import config_file
from lit_meta.utils.specs import Spec

_FIELDS = {f.name: f for f in fields(Experiment)}
_TYPES = annotations_of(Experiment)


def load_experiment(path_or_name: str, overrides: Sequence[str] = (), *, files: Sequence[str] = ()) -> Experiment:
    """An experiment from a YAML file, or by its name in ``configs/experiment/``.

    Nothing that the file names is imported.

    Args:
        path_or_name: of the config.
        overrides: settings that differ, such as ``["max_epochs=2", "rule.strength=50", "rule.0.strength=50"]``: a path into
            the config, and its value as YAML.
        files: further YAML files, whose keys take the place of the config's, one file after the other.

    Raises:
        FileNotFoundError: no such file.
        KeyError: no config of that name; the nearest are named.
        ValueError: the file, or a setting, does not describe an experiment.

    Example:
        >>> load_experiment("mlp.ewc_split-digits", ["rule.strength=50", "seeds=[0]"]).rule["strength"]
        50
    """
    path = config_file("experiment", path_or_name)
    values = read_config(path)
    for file in files:
        values |= read_config(Path(file))
    try:
        for setting in overrides:
            values = with_setting(values, setting)
        return Experiment.from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, or holds something else.
    """
    content = yaml_value(load_text(path), str(path))
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} should hold a mapping, it holds {'nothing' if content is None else f'a {type(content).__name__}'}"
        )
    return content


def yaml_value(text: str, where: str) -> Any:
    """Text read as YAML, in which ``1e-4`` is a number, as on the command line of LightningCLI.

    Raises:
        ValueError: it is not YAML.

    Example:
        >>> yaml_value("{strength: 1e-4, layers: all}", "--rule")
        {'strength': 0.0001, 'layers': 'all'}
    """
    from jsonargparse import get_loader

    return parse_yaml(text, where, get_loader("yaml"))


def with_setting(values: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """The content of a config with one value put in place.

    Args:
        values: the content of a config.
        setting: ``"max_epochs=2"``, or a path such as ``"optimizer.init_args.lr=0.1"``; also with ``--`` before it.

    Raises:
        ValueError: another form, or a path that does not exist.

    Example:
        >>> with_setting({"rule": "ewc"}, "rule.strength=50")
        {'rule': {'name': 'ewc', 'strength': 50}}
    """
    path, equals, text = setting.removeprefix("--").partition("=")
    if not equals:
        raise ValueError(f"a setting is KEY=VALUE, such as max_epochs=2 or rule.strength=50, got {setting!r}")
    top, *rest = path.split(".")
    if top not in _FIELDS:
        raise ValueError(f"an experiment has no key {top!r}{nearest(top, _FIELDS)} It has {', '.join(_FIELDS)}")
    # If only text fits, it is not parsed as YAML: a name may be 2024, a note may contain a colon.
    others: tuple[object, ...] = (None, {}, [])
    only_text = not rest and fits(text, _TYPES[top]) and not any(fits(other, _TYPES[top]) for other in others)
    value = text if only_text else yaml_value(text, path)
    return {**values, top: replaced(values.get(top, _default(top)), rest, value, path)}


def replaced(container: Any, path: Sequence[str], value: Any, whole: str) -> Any:
    """A copy of nested mappings and lists with one value put in place.

    Args:
        container: mappings, lists, or a spec that is only a name.
        path: keys, and positions in lists.
        value: the new value.
        whole: the path as the user wrote it, for error messages.

    Raises:
        ValueError: the path does not exist.
    """
    if not path:
        return value
    key, *rest = path
    if isinstance(container, str):  # A spec that is a name, which gets an argument now.
        container = Spec.parse(container, whole).to_dict()
    if container is None or isinstance(container, Mapping):
        inner = dict(container or {})
        return {**inner, key: replaced(inner.get(key), rest, value, whole)}
    if isinstance(container, list):
        if not key.isdigit() or int(key) >= len(container):
            position = f"a list of {len(container)} there: give a position, from 0 to {len(container) - 1}"
            raise ValueError(f"{whole!r} leads nowhere: the experiment has {position}, in place of {key!r}")
        items = list(container)
        items[int(key)] = replaced(items[int(key)], rest, value, whole)
        return items
    raise ValueError(f"{whole!r} leads nowhere: the experiment has {container!r} there")


def _default(name: str) -> Any:
    field = _FIELDS[name]
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default
