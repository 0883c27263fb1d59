"""Adapter folders: a LoRA adapter in PEFT's format with a manifest that says what it is made for.

    adapter_config.json          PEFT's configuration
    adapter_model.safetensors    the weights; pickle files are refused wherever they lie in the folder
    penchant.json                the manifest: base encoder, dimensions, sha256 of each file, quality figures

words.txt with words.safetensors (Chinese words as tokens), sequence.safetensors and stance.safetensors may lie beside
them and are hashed too. README.md is the adapter's card, for people: whoever fills it in alters no vector.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from penchant_pipelines.encoder.base import Encoder
from penchant_pipelines.encoder.sentence import BILINGUAL, SentenceEncoder, file_sha256, merge_adapter, open_model
from penchant_pipelines.encoder.settings import EncoderSettings
from penchant_pipelines.errors import Unavailable, WrongState

MANIFEST = "penchant.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NEEDED = (CONFIG, WEIGHTS)
OPTIONAL = ("words.txt", "words.safetensors", "sequence.safetensors", "stance.safetensors", "run.json")
CARD = "README.md"
"""Named by the manifests of adapters that were exported before it was left to people."""
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
MOST_BYTES = 2 << 30
"""Most bytes of a file of tensors; the largest adapters of 8B models stay far below."""
MOST_JSON_BYTES = 1 << 20
MOST_RANK = 1024
MOST_ALPHA = 1 << 16
PROBES = ("", "a walk in the rain", "雨中散步")

_NAMING = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "rank_pattern", "alpha_pattern")
"""What of a configuration names layers."""
_LAYERS = re.compile(r"\w+(\.\w+)*|\.\*\\\.\\d\+\\\.\.\*\\b\(\w+(\|\w+)*\)")
"""The name of layers, or the pattern that an export writes: some names inside numbered layers."""


class Manifest(BaseModel):
    """What an adapter is made for, and what it must consist of."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    base: str = Field(min_length=1, description="space_id of the encoder that it was trained on.")
    dimensions: int = Field(ge=1, description="Length of its vectors.")
    files: dict[str, str] = Field(description="Sha256 in hex by file name.")
    figures: dict[str, JsonValue] = Field(default_factory=dict, description="Quality figures, free in form.")

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that are plain numbers."""
        return {
            name: float(value)
            for name, value in self.figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }


def write_manifest(folder: Path, base_space_id: str, dimensions: int, figures: dict[str, JsonValue]) -> None:
    """Write the manifest of a finished adapter folder, last of all its files.

    Raises WrongState where the configuration or the weights are missing.
    """
    files = {name: file_sha256(folder / name) for name in (*NEEDED, *OPTIONAL) if (folder / name).is_file()}
    for name in NEEDED:
        if name not in files:
            raise _unreadable(folder, f"holds no {name}")
    manifest = Manifest(base=base_space_id, dimensions=dimensions, files=files, figures=figures)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an adapter folder. Raises WrongState where it is missing or malformed."""
    try:
        return Manifest.model_validate_json(_small_file(folder, MANIFEST))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "as a whole"
        raise _unreadable(folder, f"has a {MANIFEST} that is wrong at {where}: {problem['msg']}") from error


def open_encoder(settings: EncoderSettings) -> Encoder:
    """Load the configured model and merge its adapter, if any, into it; blocks for seconds.

    The hub is asked only for a hub name. Raises WrongState where the model is missing, altered or of the wrong kind, or
    where the adapter must be refused.
    """
    folder = settings.adapter
    # Before the model is loaded, which may take long.
    manifest = None if folder is None else check_adapter(folder)
    if not settings.model:
        check_adapter(BILINGUAL)
    model, name, digest = open_model(settings)
    base = SentenceEncoder(model, name, "", digest, settings.batch_size)
    if folder is None or manifest is None:
        return base
    _check_base(folder, manifest, base)
    digest += merge_adapter(model, folder)
    encoder = SentenceEncoder(model, name, folder.name, digest, settings.batch_size)
    _check_vectors(folder, encoder)
    return encoder


def open_adapter(settings: EncoderSettings, folder: Path, base: Encoder | None = None) -> Encoder:
    """Load the configured model with this adapter in place of the settings' own; as `open_encoder`.

    `base` is the loaded base encoder, where there is one at hand: for another's adapter no model is loaded.
    """
    if base is not None:
        _check_base(folder, read_manifest(folder), base)
    return open_encoder(settings.model_copy(update={"adapter": folder}))


def check_adapter(folder: Path) -> Manifest:
    """Check all of an adapter folder that can be told without a model: files, hashes, configuration, numbers.

    Whether it is made for a model is checked where it is merged into it. Raises WrongState; Unavailable where files
    that are there can't be read.
    """
    if not folder.is_dir():
        raise _unreadable(folder, "is no folder")
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if path.suffix.lower() in PICKLES:
            raise WrongState(
                "ADAPTER_UNSAFE",
                f"adapter {folder.name!r} holds the pickle file {path.name!r}, which could run any code; "
                "keep weights as safetensors and remove it",
            )
        if not path.resolve().is_relative_to(inside):
            raise WrongState(
                "ADAPTER_UNSAFE", f"adapter {folder.name!r} has a link that leads out of it: {path.name!r}"
            )
    manifest = read_manifest(folder)
    for name in manifest.files:
        if name not in (*NEEDED, *OPTIONAL, CARD):
            raise _unreadable(folder, f"has a manifest that names {name!r}, which is no part of an adapter")
    for name in (*NEEDED, *OPTIONAL):
        _check_file(folder, name, manifest.files.get(name))
    _check_config(folder)
    for name in manifest.files:
        if name.endswith(".safetensors"):
            _check_tensors(folder, name)
    return manifest


def _check_base(folder: Path, manifest: Manifest, base: Encoder) -> None:
    if manifest.base != base.space_id:
        raise WrongState(
            "ADAPTER_WRONG_BASE",
            f"adapter {folder.name!r} was trained on {manifest.base}, but this server's base encoder is "
            f"{base.space_id}; train it anew on that, or set encoder.model, prompt and dimensions as they were",
        )
    if manifest.dimensions != base.dimensions:
        raise _mismatch(folder, f"makes vectors of {manifest.dimensions} dimensions, the base of {base.dimensions}")


def _check_vectors(folder: Path, encoder: Encoder) -> None:
    """Weights may be finite, and yet what is computed with them not."""
    lengths = np.linalg.norm(encoder.encode(PROBES), axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        raise _mismatch(folder, "makes no unit vectors of plain texts; its weights or its lora_alpha are too large")


def _check_file(folder: Path, name: str, expected: str | None) -> None:
    path = folder / name
    if not path.is_file():
        if name in NEEDED or expected is not None:
            raise _unreadable(folder, f"holds no {name}")
        return
    if path.stat().st_size > (MOST_BYTES if path.suffix == ".safetensors" else MOST_JSON_BYTES):
        raise _unreadable(folder, f"has a {name} of {path.stat().st_size:,} bytes, which no adapter needs")
    if expected is None:
        raise _unreadable(folder, f"has a {name} that its manifest doesn't name")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise _out_of_reach(folder, error) from error
    if found != expected:
        raise WrongState(
            "ADAPTER_ALTERED",
            f"adapter {folder.name!r} was altered: {name} has sha256 {found}, its manifest says {expected}",
        )


def _check_config(folder: Path) -> None:
    """Refuse a configuration that is no plain LoRA: others change the model's shape or import code."""
    try:
        config: Any = json.loads(_small_file(folder, CONFIG))
    except (RecursionError, ValueError) as error:
        raise _unreadable(folder, f"has a {CONFIG} that is not JSON") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _unreadable(folder, f"has a {CONFIG} whose peft_type is not LORA")
    for key in ("layer_replication", "megatron_config"):
        if config.get(key):
            raise _unreadable(folder, f"has a {CONFIG} that sets {key}, which is not supported")
    for key in _NAMING:
        value = config.get(key) or []
        # PEFT matches each of these as a regular expression, and there are such that hold up all threads for good.
        for name in value if isinstance(value, list | dict) else [value]:
            if not isinstance(name, str) or not _LAYERS.fullmatch(name):
                raise _unreadable(
                    folder,
                    f"has a {CONFIG} whose {key} holds {str(name)[:80]!r}; give names of layers, such as 'query'",
                )
    for rank in _numbers(config, "r", "rank_pattern"):
        if type(rank) is not int or not 1 <= rank <= MOST_RANK:
            raise _mismatch(folder, f"has a rank of {rank}; it must be a whole number from 1 to {MOST_RANK}")
    for alpha in _numbers(config, "lora_alpha", "alpha_pattern"):
        if type(alpha) not in (int, float) or not 0 < alpha <= MOST_ALPHA:
            raise _mismatch(folder, f"has a lora_alpha of {alpha}; it must be a number above 0, at most {MOST_ALPHA}")


def _numbers(config: dict[str, Any], key: str, pattern: str) -> list[Any]:
    """A number of a configuration, and those that stand in its place for some layers."""
    others = config.get(pattern) or {}
    return [config.get(key), *(others.values() if isinstance(others, dict) else [others])]


def _check_tensors(folder: Path, file: str) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a file, not a dict)
                if not bool(torch.isfinite(tensors.get_tensor(name)).all()):
                    raise _mismatch(folder, f"has numbers that are not finite in {name} of {file}")
    except (OSError, SafetensorError) as error:
        raise _unreadable(folder, f"has a {file} that can't be read: {error}") from error


def _small_file(folder: Path, name: str) -> str:
    path = folder / name
    # Reading a pipe waits for whoever writes into it, for good.
    if not path.is_file():
        raise _unreadable(folder, f"holds no {name}")
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise _unreadable(folder, f"has a {name} of {path.stat().st_size:,} bytes, which no adapter needs")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise _out_of_reach(folder, error) from error
    except UnicodeDecodeError as error:
        raise _unreadable(folder, f"has a {name} that is not UTF-8") from error


def _out_of_reach(folder: Path, error: OSError) -> Unavailable:
    # Not as one that is altered or gone: what that had made is dropped at a start.
    return Unavailable("ADAPTER_OUT_OF_REACH", f"adapter {folder.name!r} can't be read ({error}): see to that first")


def _unreadable(folder: Path, problem: str) -> WrongState:
    return WrongState("ADAPTER_UNREADABLE", f"adapter {folder.name!r} {problem}")


def _mismatch(folder: Path, problem: str) -> WrongState:
    return WrongState("ADAPTER_MISMATCH", f"adapter {folder.name!r} {problem}")
