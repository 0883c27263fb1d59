"""What every kind of test may share: the embedded encoder is loaded once."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Tests share the cores: threads that wait for each other at every operation hold up all. Read when first used, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# gRPC's core writes to stderr by itself, into what other tests capture. It reads this when it is first used.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import hypothesis
import structlog

from penchant_pipelines.encoder import Encoder, EncoderSettings, open_encoder
from penchant_pipelines.encoder.adapter import write_manifest
from penchant_pipelines.encoder.sentence import SentenceEncoder
from penchant_pipelines.interests import Calibration, calibrate
from penchant_pipelines.interests.subjects import Subjects
from penchant_pipelines.spaces import space, stock

# An example may wait for a core that another test has.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

# Who starts the tests from a script's background has Ctrl-C ignored, and so would have every command that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logs_as_ever() -> Iterator[None]:
    """Undo what a command that ran in this process set for all logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return open_encoder(EncoderSettings())


@pytest.fixture(scope="session", autouse=True)
def calibrated_once() -> Iterator[Callable[[Any], Calibration]]:
    """How a space reads is measured once here rather than for each data folder."""
    known: dict[str, Calibration] = {}

    def measured(encode: Any) -> Calibration:
        space_id = encode.__self__.space_id
        if space_id not in known:
            known[space_id] = calibrate(encode)
        return known[space_id]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "calibrate", measured)
        yield measured


@pytest.fixture(scope="session", autouse=True)
def subjects_once() -> Iterator[None]:
    """And so is how it reads the subjects."""
    known: dict[tuple[str, float], Subjects] = {}

    def read(encode: Any, calibration: Calibration) -> Subjects:
        key = encode.__self__.space_id, calibration.similarity
        if key not in known:
            known[key] = Subjects(encode, calibration)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "Subjects", read)
        yield


@pytest.fixture(scope="session")
def calibration(encoder: Encoder, calibrated_once: Callable[[Any], Calibration]) -> Calibration:
    """How the embedded encoder's space reads."""
    return calibrated_once(encoder.encode)


@pytest.fixture(scope="session")
def make_adapter(encoder: Encoder) -> Callable[[Path, int], Path]:
    """Makes an adapter folder for the embedded encoder: LoRA of random weights by a seed, and its manifest."""
    import torch
    from peft import LoraConfig, get_peft_model

    def make(folder: Path, seed: int) -> Path:
        torch.manual_seed(seed)
        assert isinstance(encoder, SentenceEncoder)
        model = copy.deepcopy(encoder._model[0].get_submodule("auto_model"))
        config = LoraConfig(r=4, lora_alpha=4, target_modules=["query", "value"])
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:  # zero at first, which would change nothing
                    parameter.normal_(0, 0.2)
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
        write_manifest(folder, encoder.space_id, encoder.dimensions, {"recall@10": 0.25})
        return folder

    return make
