"""Adapter folders: what is taken, and what is refused with which words."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from penchant_finetune.lora import target_modules
from penchant_pipelines.encoder import Encoder, EncoderSettings
from penchant_pipelines.encoder.adapter import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    check_adapter,
    open_adapter,
    read_manifest,
    write_manifest,
)
from penchant_pipelines.encoder.sentence import SentenceEncoder, file_sha256
from penchant_pipelines.errors import WrongState

# peft asks transformers in a way that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def made(make_adapter: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapters") / "books", 0)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "books")


def opened(folder: Path, encoder: Encoder) -> Encoder:
    return open_adapter(EncoderSettings(device="cpu"), folder, encoder)


def test_an_adapter_makes_a_space_that_depends_on_its_bytes(
    folder: Path, encoder: Encoder, make_adapter: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    adapted = opened(folder, encoder)
    other = opened(make_adapter(tmp_path / "other" / "books", 1), encoder)
    assert adapted.adapter_id == other.adapter_id == "books"
    assert len({encoder.space_id, adapted.space_id, other.space_id}) == 3
    texts = ["trail running in the rain", "an espresso"]
    assert 0.01 < np.abs(adapted.encode(texts) - encoder.encode(texts)).max() < 1
    assert opened(folder, encoder).space_id == adapted.space_id


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    (folder / "README.md").write_text("# Books", "utf-8")
    write_manifest(folder, "base-1", 384, {"recall@10": 0.25, "data": "own logs", "kept": True})
    manifest = read_manifest(folder)
    assert (manifest.base, manifest.dimensions) == ("base-1", 384)
    assert set(manifest.files) == {CONFIG, WEIGHTS}
    assert manifest.metrics == {"recall@10": 0.25}


@pytest.mark.parametrize("named", [True, False])
def test_a_card_may_be_filled_in(folder: Path, encoder: Encoder, named: bool) -> None:
    space_id = opened(folder, encoder).space_id
    card = folder / "README.md"
    if named:
        card.write_text("To be filled in", "utf-8")
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        manifest["files"]["README.md"] = file_sha256(card)
        (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    card.write_text("MIT", "utf-8")
    assert opened(folder, encoder).space_id == space_id


def test_a_manifest_needs_a_finished_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(WrongState) as raised:
        write_manifest(folder, "base", 384, {})
    assert WEIGHTS in raised.value.message


def sealed_anew(folder: Path, encoder: Encoder) -> None:
    write_manifest(folder, encoder.space_id, encoder.dimensions, {})


def no_folder(folder: Path, encoder: Encoder) -> None:
    shutil.rmtree(folder)


def no_manifest(folder: Path, encoder: Encoder) -> None:
    (folder / MANIFEST).unlink()


def manifest_of_a_pipe(folder: Path, encoder: Encoder) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)


def config_of_a_pipe(folder: Path, encoder: Encoder) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def manifest_with_more(folder: Path, encoder: Encoder) -> None:
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    (folder / MANIFEST).write_text(json.dumps(content | {"run": "x"}), "utf-8")


def path_in_manifest(folder: Path, encoder: Encoder) -> None:
    content = json.loads((folder / MANIFEST).read_text("utf-8"))
    content["files"]["../../secret"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(content), "utf-8")


def no_weights(folder: Path, encoder: Encoder) -> None:
    (folder / WEIGHTS).unlink()


def pickle_beside(folder: Path, encoder: Encoder) -> None:
    torch.save({}, folder / "adapter_model.bin")


def pickle_below(folder: Path, encoder: Encoder) -> None:
    (folder / "runs").mkdir()
    torch.save({}, folder / "runs" / "optimizer.PT")


def link_out(folder: Path, encoder: Encoder) -> None:
    weights = (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    (folder / WEIGHTS).symlink_to(weights)


def other_weights(folder: Path, encoder: Encoder) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, folder / WEIGHTS)


def other_config(folder: Path, encoder: Encoder) -> None:
    content = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps(content | {"lora_alpha": 99}), "utf-8")


def unnamed_part(folder: Path, encoder: Encoder) -> None:
    shutil.copy(folder / WEIGHTS, folder / "stance.safetensors")


def other_base(folder: Path, encoder: Encoder) -> None:
    write_manifest(folder, "some-other-model", encoder.dimensions, {})


def other_dimensions(folder: Path, encoder: Encoder) -> None:
    write_manifest(folder, encoder.space_id, 512, {})


def not_numbers(folder: Path, encoder: Encoder) -> None:
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, folder / WEIGHTS)
    sealed_anew(folder, encoder)


def numbers_too_large(folder: Path, encoder: Encoder) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor * 1e30 for name, tensor in tensors.items()}, folder / WEIGHTS)
    sealed_anew(folder, encoder)


def not_tensors(folder: Path, encoder: Encoder) -> None:
    (folder / WEIGHTS).write_bytes(b"\x80\x04K\x01.")
    sealed_anew(folder, encoder)


def a_tensor_too_few(folder: Path, encoder: Encoder) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.popitem()
    save_file(tensors, folder / WEIGHTS)
    sealed_anew(folder, encoder)


def a_tensor_too_many(folder: Path, encoder: Encoder) -> None:
    save_file({**load_file(folder / WEIGHTS), "base_model.model.extra": torch.ones(2)}, folder / WEIGHTS)
    sealed_anew(folder, encoder)


def wrong_shape(folder: Path, encoder: Encoder) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors = {name: torch.ones(tensor.shape[0], tensor.shape[1] + 1) for name, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    sealed_anew(folder, encoder)


def changed_config(change: dict[str, object]) -> Callable[[Path, Encoder], None]:
    def damage(folder: Path, encoder: Encoder) -> None:
        content = json.loads((folder / CONFIG).read_text("utf-8"))
        (folder / CONFIG).write_text(json.dumps(content | change), "utf-8")
        sealed_anew(folder, encoder)

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_folder, "ADAPTER_UNREADABLE"),
        (no_manifest, "ADAPTER_UNREADABLE"),
        (manifest_of_a_pipe, "ADAPTER_UNREADABLE"),
        (config_of_a_pipe, "ADAPTER_UNREADABLE"),
        (manifest_with_more, "ADAPTER_UNREADABLE"),
        (path_in_manifest, "ADAPTER_UNREADABLE"),
        (no_weights, "ADAPTER_UNREADABLE"),
        (pickle_beside, "ADAPTER_UNSAFE"),
        (pickle_below, "ADAPTER_UNSAFE"),
        (link_out, "ADAPTER_UNSAFE"),
        (other_weights, "ADAPTER_ALTERED"),
        (other_config, "ADAPTER_ALTERED"),
        (unnamed_part, "ADAPTER_UNREADABLE"),
        (other_base, "ADAPTER_WRONG_BASE"),
        (other_dimensions, "ADAPTER_MISMATCH"),
        (not_numbers, "ADAPTER_MISMATCH"),
        (numbers_too_large, "ADAPTER_MISMATCH"),
        (not_tensors, "ADAPTER_UNREADABLE"),
        (a_tensor_too_few, "ADAPTER_MISMATCH"),
        (a_tensor_too_many, "ADAPTER_MISMATCH"),
        (wrong_shape, "ADAPTER_MISMATCH"),
        pytest.param(changed_config({"peft_type": "IA3"}), "ADAPTER_UNREADABLE", id="no-lora"),
        pytest.param(changed_config({"r": 1 << 20}), "ADAPTER_MISMATCH", id="huge-rank"),
        pytest.param(changed_config({"r": 3}), "ADAPTER_MISMATCH", id="other-rank"),
        pytest.param(changed_config({"rank_pattern": {"query": 9999}}), "ADAPTER_MISMATCH", id="huge-pattern"),
        pytest.param(changed_config({"lora_alpha": float("nan")}), "ADAPTER_MISMATCH", id="alpha-no-number"),
        pytest.param(changed_config({"lora_alpha": 1e38}), "ADAPTER_MISMATCH", id="huge-alpha"),
        pytest.param(changed_config({"alpha_pattern": {"query": -1}}), "ADAPTER_MISMATCH", id="alpha-below-zero"),
        pytest.param(changed_config({"target_modules": ["nowhere"]}), "ADAPTER_MISMATCH", id="no-such-layer"),
        pytest.param(changed_config({"target_modules": 5}), "ADAPTER_UNREADABLE", id="no-name"),
        pytest.param(changed_config({"task_type": "CAUSAL_LM"}), "ADAPTER_MISMATCH", id="other-task"),
        pytest.param(changed_config({"layer_replication": [[0, 3], [2, 6]]}), "ADAPTER_UNREADABLE", id="more-layers"),
    ],
)
def test_a_damaged_or_foreign_adapter_is_refused(
    folder: Path, encoder: Encoder, damage: Callable[[Path, Encoder], None], reason: str
) -> None:
    damage(folder, encoder)
    with pytest.raises(WrongState) as raised:
        opened(folder, encoder)
    assert raised.value.reason == reason
    assert "books" in raised.value.message


# Matching it against a name takes longer than anybody waits, in one piece that no other thread interrupts.
WICKED = r"((\w+\.?)+)+!"


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": WICKED},
        {"exclude_modules": WICKED},
        {"modules_to_save": [WICKED]},
        {"layers_to_transform": [0], "layers_pattern": [WICKED]},
        {"rank_pattern": {WICKED: 4}},
        {"alpha_pattern": {WICKED: 4}},
    ],
    ids=lambda change: list(change)[-1],
)
def test_no_pattern_of_an_adapters_own_is_matched(folder: Path, encoder: Encoder, change: dict[str, object]) -> None:
    changed_config(change)(folder, encoder)
    with pytest.raises(WrongState) as raised:
        check_adapter(folder)
    assert raised.value.reason == "ADAPTER_UNREADABLE"
    assert list(change)[-1] in raised.value.message


def test_the_pattern_that_an_export_writes_is_taken(folder: Path, encoder: Encoder) -> None:
    assert isinstance(encoder, SentenceEncoder)
    pattern = target_modules(encoder._model[0].get_submodule("auto_model"))
    changed_config({"target_modules": pattern, "exclude_modules": ["pooler.dense"], "rank_pattern": {"0.query": 4}})(
        folder, encoder
    )
    check_adapter(folder)


def test_a_check_alone_needs_no_model(folder: Path, encoder: Encoder) -> None:
    assert check_adapter(folder).base == encoder.space_id
