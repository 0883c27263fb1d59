"""LoRA layers in a sentence-transformers model (Hu et al. 2022): where they go, how they are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penchant_pipelines.encoder.adapter import WEIGHTS
from penchant_pipelines.errors import Unsupported

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

PREFIX = "base_model.model."
"""PEFT's name for the model that an adapter is put on."""


def target_modules(model: nn.Module) -> str:
    """A pattern of the linear maps inside a transformer's numbered layers, attention and MLP alike.

    What lies outside of them (poolers, heads) has no part in a sentence's vector. Raises Unsupported where there are
    none.
    """
    from torch import nn

    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.search(r"\.\d+\.", name)
    }
    if not names:
        raise Unsupported("UNTRAINABLE", "the model has no numbered layers of linear maps that LoRA could go into")
    return rf".*\.\d+\..*\b({'|'.join(sorted(names))})"


def add_lora(model: SentenceTransformer, rank: int, dropout: float) -> None:
    """Freeze the model and put new LoRA layers into its transformer; α is twice the rank."""
    from peft import LoraConfig, TaskType, inject_adapter_in_model

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    transformer = model[0].get_submodule("auto_model")
    config = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=dropout,
        target_modules=target_modules(transformer),
    )
    inject_adapter_in_model(config, transformer)


def save_lora(model: SentenceTransformer, folder: Path) -> None:
    """Write the LoRA layers as PEFT keeps an adapter."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    transformer: Any = model[0].get_submodule("auto_model")
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(transformer, save_embedding_layers=False)
    save_file({PREFIX + name: tensor.float().contiguous() for name, tensor in state.items()}, folder / WEIGHTS)
    save_configuration(transformer, folder)


def save_configuration(transformer: nn.Module, folder: Path) -> None:
    """Write where a transformer's LoRA layers are, as PEFT keeps it."""
    found: Any = transformer
    config = found.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(str(folder))


def load_lora(model: SentenceTransformer, folder: Path) -> None:
    """Read LoRA layers that `save_lora` wrote back into the model that they were taken from."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    transformer = model[0].get_submodule("auto_model")
    state = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    set_peft_model_state_dict(transformer, state)


def changes_nothing(folder: Path) -> bool:
    """Whether LoRA layers that `save_lora` wrote leave the model as it is: all their B are zero."""
    from safetensors.torch import load_file

    return not any(tensor.any() for name, tensor in load_file(folder / WEIGHTS).items() if ".lora_B." in name)
