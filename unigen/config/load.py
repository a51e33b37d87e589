# SPDX-License-Identifier: Apache-2.0
"""Reading a configuration: defaults <- YAML <- key=value -> one frozen object."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from unigen.config.evaluation import EvaluationConfig
from unigen.config.schema import Config
from unigen.config.uae import UaeParts
from unigen.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The frozen configuration of a YAML file with `key=value` overrides on top.

    A YAML file may name a parent under `base:` (relative to itself), whose values it overrides.

    Raises:
        ConfigError: unknown key (with the nearest right one), wrong type, missing value or impossible combination.
    """
    config = _merge(Config, _file_layers(Path(path)), overrides, str(path))
    assert isinstance(config, Config)
    return config


def load_evaluation(path: str | Path | None, overrides: Sequence[str] = ()) -> EvaluationConfig:
    """The frozen settings of an evaluation: those of a YAML file, or the defaults, with `key=value` on top.

    The file is one of evaluation settings alone, or the configuration of a training run, of which only its `evaluation:`
    section is read: a model is described by its checkpoint and by nothing else.

    Raises:
        ConfigError: as `load_config`.
    """
    layers = [] if path is None else _file_layers(Path(path))
    if any("stage" in layer for layer, _ in layers):
        sections = [(layer["evaluation"], place) for layer, place in layers if layer.get("evaluation") is not None]
        assert path is not None
        load_config(path)
        layers = sections
    config = _merge(EvaluationConfig, layers, overrides, str(path or "the evaluation's settings"))
    assert isinstance(config, EvaluationConfig)
    return config


def load_uae_parts(path: Path) -> UaeParts:
    """What a `model.yaml` says of a released UAE.

    Raises:
        ConfigError: as `load_config`.
    """
    parts = _merge(UaeParts, _file_layers(path), (), str(path))
    assert isinstance(parts, UaeParts)
    return parts


def _merge(schema: type[Any], layers: Sequence[tuple[DictConfig, str]], overrides: Sequence[str], name: str) -> object:
    """The object of a schema with layers on top of its defaults, the later over the earlier."""
    merged = OmegaConf.structured(schema)
    OmegaConf.set_readonly(merged, False)
    for layer, place in [*layers, (_dotlist(overrides), "the command line")]:
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{place}: {_one_line(error)}") from error
    try:
        return OmegaConf.to_object(merged)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{name}: {_one_line(error)}; add it to the file or give it as key=value") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name}: {_one_line(error)}") from error


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML that `load_config` reads back to an equal object."""
    OmegaConf.save(OmegaConf.create(asdict(config)), path)


def _file_layers(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[DictConfig, str]]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base:` comes back to a file that is being read already; break the circle")
    try:
        layer = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration file {path}; the shipped ones are under configs/") from error
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not readable YAML: {_one_line(error)}") from error
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"{path} holds a list or a bare value; a configuration is a mapping of keys")
    parent = layer.pop("base", None)
    below = _file_layers(path.parent / parent, (*seen, path.resolve())) if parent else []
    return [*below, (layer, str(path))]


def _dotlist(overrides: Sequence[str]) -> DictConfig:
    merged = OmegaConf.create()
    for entry in overrides:
        key, separator, _ = entry.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"'{entry}' is not key=value; write for example training.steps=100")
        try:
            merged.merge_with_dotlist([entry])
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"the value of '{entry}' is not readable YAML: {_one_line(error)}; quote it") from error
    return merged


def _one_line(error: Exception) -> str:
    """OmegaConf's message without its trailing lines about types, with the full key in front."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), None)
    text = " ".join(line for line in lines if not line.startswith(("full_key:", "reference_type=", "object_type=")))
    return f"{key}: {text}" if key else text
