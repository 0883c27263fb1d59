"""Training, measuring and exporting an adapter, on models of random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from penchant_finetune import validation
from penchant_finetune.base import open_base
from penchant_finetune.corpus import VALIDATION, Ints
from penchant_finetune.evaluate import EVALUATION, caution, compare, evaluate, open_tuned
from penchant_finetune.export import export, refusal
from penchant_finetune.folder import new_folder
from penchant_finetune.log import read_log
from penchant_finetune.lora import add_lora, target_modules
from penchant_finetune.losses import BoundedLoss, GradedLoss, UserAwareRankingLoss
from penchant_finetune.next_items import Asked, Values, measure, questions
from penchant_finetune.pairs import Vectors
from penchant_finetune.prepare import MANIFEST, Prepared, PrepareSettings, evidence, load_prepared, prepare
from penchant_finetune.run import ADAPTER, RUN, TrainSettings, held, load_run, write
from penchant_finetune.sequence_data import prepared_log
from penchant_finetune.train import CHECKPOINTS, AdapterTrainer, last_checkpoint, train
from penchant_finetune.validation import NextItems
from penchant_pipelines.encoder import EncoderSettings
from penchant_pipelines.encoder.adapter import WEIGHTS, open_adapter, read_manifest
from penchant_pipelines.encoder.sentence import file_sha256
from penchant_pipelines.errors import InvalidInput, WrongState
from penchant_pipelines.interests import Calibration, InterestSettings
from penchant_pipelines.model import MICROS_PER_DAY, Action, Behavior, Post, Signal
from penchant_pipelines.text import TextPipeline, TextSettings

# peft asks transformers by a name that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

QUICK = TrainSettings(epochs=6, batch_size=64, bf16=False, learning_rate=5e-3, threads=1)

Make = Callable[..., Prepared]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "bert": tiny_models.tiny_bert(folder / "tiny-bert"),
        "qwen": tiny_models.tiny_qwen(folder / "tiny-qwen"),
    }


@pytest.fixture(scope="module")
def make(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Prepares the small log for a model."""

    def made(model: str = "bert", max_pairs: int = 1000, dimensions: int = 0) -> Prepared:
        folder = tmp_path_factory.mktemp("prepared")
        text = TextPipeline(TextSettings())
        prompt = "query" if model == "qwen" else ""
        settings = EncoderSettings(model=str(models[model]), prompt=prompt, dimensions=dimensions, device="cpu")
        encoder, _ = open_base(settings)
        chosen = PrepareSettings(max_pairs=max_pairs, validation_from=0.7, test_from=0.8)
        prepare(read_log(*tiny_models.small_log(), text), encoder, settings, InterestSettings(), chosen, folder)
        return load_prepared(folder)

    return made


@pytest.fixture(scope="module")
def prepared(make: Make) -> Prepared:
    return make()


@pytest.fixture(scope="module")
def run(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    train(prepared, QUICK, folder)
    return folder


@pytest.fixture(scope="module")
def report(prepared: Prepared, run: Path) -> dict[str, Any]:
    return evaluate(prepared, [run])[0][0]


# -- where LoRA goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("bert", {"query", "key", "value", "dense"}),
        ("qwen", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_lora_goes_into_every_linear_map_of_the_layers_and_nowhere_else(
    models: dict[str, Path], model: str, names: set[str]
) -> None:
    _, opened = open_base(EncoderSettings(model=str(models[model]), device="cpu"))
    transformer = opened[0].get_submodule("auto_model")
    linear = {name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    add_lora(opened, rank=4, dropout=0.0)
    trained = {name for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    adapted = {name.partition(".lora_")[0] for name in trained}
    assert adapted == {name for name in linear if not name.startswith("pooler")}
    assert {name.rpartition(".")[2] for name in adapted} == names


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(Exception, match="no numbered layers"):
        target_modules(nn.Sequential(nn.ReLU()))


# -- the loss ----------------------------------------------------------------------------------------------------


class Lookup(nn.Module):
    """Stands for a model whose vectors are known: row i of a table for text i."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": self.table[features["input_ids"][:, 0]]}


def ranking_loss(touched: list[list[int]], paired: list[list[int]], **changes: Any) -> UserAwareRankingLoss:
    model: Any = Lookup(torch.randn(10, 8, generator=torch.Generator().manual_seed(1)))
    pairs = np.array([[*pair, -1] for pair in paired], dtype=np.int64).reshape(-1, 3)
    own = np.array(touched, dtype=np.int64).reshape(-1, 2)
    settings: dict[str, Any] = {"temperature": 0.1, "tokens_in_memory": 8192} | changes
    return UserAwareRankingLoss(model, own, pairs, 10, **settings)


def column(*texts: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor(texts)[:, None], "attention_mask": torch.ones(len(texts), 1)}


def test_what_is_known_to_belong_is_no_negative() -> None:
    # Rows: user, anchor, positive, negative.
    labels = torch.tensor([[0, 1, 2, 3], [1, 4, 5, 6], [0, 7, 8, 9], [2, 1, 6, 3]])
    loss = ranking_loss(touched=[[1, 2], [0, 9]], paired=[[4, 3]])
    found = {(row, column) for row, column in loss.excluded(labels).nonzero().tolist()}
    positives = {(0, 2), (2, 0), (1, 0)}  # one user; user 1 touched text 2
    negatives = {
        (0, 6),  # user 0 touched text 9 …
        (2, 6),  # … which counts for their other row too
        (1, 4),
        (1, 7),  # text 3 was paired with anchor 4
        (3, 5),  # text 6 is the row's own positive
    }
    assert found == positives | negatives
    assert not loss.excluded(labels)[range(4), range(4)].any()


def test_the_loss_is_symmetric_infonce_where_nothing_is_known() -> None:
    loss = ranking_loss([], [])
    labels = torch.tensor([[0, 0, 1], [1, 2, 3], [2, 4, 5]])
    table = nn.functional.normalize(loss.model.table.detach(), dim=1)
    scores = table[[0, 2, 4]] @ table[[1, 3, 5]].T / 0.1
    by_hand = -(scores.log_softmax(1).diag() + scores.log_softmax(0).diag()).mean() / 2
    assert loss([column(0, 2, 4), column(1, 3, 5)], labels).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_texts_of_many_pairs_are_no_stronger_negatives_for_it() -> None:
    # Text 3 is the positive of four pairs of six, texts 1 and 5 of one each; the anchors are of one or two.
    pairs = [[0, 1], [2, 3], [4, 5], [6, 3], [7, 3], [2, 3]]
    loss = ranking_loss([], pairs)
    labels = torch.tensor([[0, 0, 1], [1, 2, 3], [2, 4, 5]])
    table = nn.functional.normalize(loss.model.table.detach(), dim=1)
    scores = table[[0, 2, 4]] @ table[[1, 3, 5]].T / 0.1
    there = scores - torch.tensor([1 / 6, 4 / 6, 1 / 6]).log()
    back = scores.T - torch.tensor([1 / 6, 2 / 6, 1 / 6]).log()
    by_hand = -(there.log_softmax(1).diag() + back.log_softmax(1).diag()).mean() / 2
    assert loss([column(0, 2, 4), column(1, 3, 5)], labels).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("dimensions", [(), (8, 4)])
def test_gradient_caching_changes_nothing(dimensions: tuple[int, ...]) -> None:
    labels = torch.tensor([[0, 0, 1, 6], [1, 2, 3, 7], [0, 4, 5, 8], [3, 8, 9, 0]])
    features = [column(0, 2, 4, 8), column(1, 3, 5, 9), column(6, 7, 8, 0)]
    gradients = []
    for size in (64, 2):
        loss = ranking_loss([[1, 5]], [[0, 9]], tokens_in_memory=size, dimensions=dimensions)
        value = loss(features, labels)
        value.backward()
        gradients.append((value.item(), loss.model.table.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-6)
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


@pytest.mark.parametrize("dimensions", [(), (8, 4)])
def test_what_is_graded_higher_is_drawn_nearer_whatever_fits_into_memory(dimensions: tuple[int, ...]) -> None:
    features, grades = [column(0, 2, 4), column(1, 3, 5)], torch.tensor([1.0, -0.5, 0.2])
    gradients = []
    for size in (64, 2):
        model: Any = Lookup(torch.randn(10, 8, generator=torch.Generator().manual_seed(1)))
        loss = GradedLoss(model, size, dimensions)
        value = loss(features, grades)
        value.backward()
        gradients.append((value.item(), model.table.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-6)
    torch.testing.assert_close(gradients[0][1], gradients[1][1])
    table = model.table.detach()
    scores = [
        20 * nn.functional.cosine_similarity(table[[0, 2, 4], :cut], table[[1, 3, 5], :cut])
        for cut in dimensions or (8,)
    ]
    wrong = [torch.stack([s[1] - s[0], s[2] - s[0], s[1] - s[2]]).exp().sum().log1p() for s in scores]
    assert gradients[0][0] == pytest.approx(float(torch.stack(wrong).mean()), rel=1e-4)


def test_shorter_vectors_are_trained_where_asked_for() -> None:
    labels = torch.tensor([[0, 0, 1], [1, 2, 3]])
    features = [column(0, 2), column(1, 3)]
    whole, half = (ranking_loss([], [], dimensions=cut)(features, labels).item() for cut in ((), (4,)))
    both = ranking_loss([], [], dimensions=(8, 4))(features, labels).item()
    assert both == pytest.approx((whole + half) / 2, rel=1e-5)
    assert whole != pytest.approx(half, rel=1e-3)


# -- what is prepared --------------------------------------------------------------------------------------------


def test_a_prepared_signal_is_the_one_that_was_read(prepared: Prepared, tmp_path: Path) -> None:
    items, signals = tiny_models.small_log()
    said = [Post("lol"), Post("lol", item_id="unknown"), Post("tea, please", rating=-1.0)]
    more = [Signal(f"more-{number}", "u0", post, tiny_models.START + number) for number, post in enumerate(said)]
    log = read_log(items, [*signals, *more], TextPipeline(TextSettings()))
    manifest = prepared.manifest
    encoder, _ = open_base(manifest.encoder)
    prepare(log, encoder, manifest.encoder, manifest.interests, manifest.settings, tmp_path)
    again = load_prepared(tmp_path)
    rows = np.arange(len(log.signals))
    found = [evidence(again, row, again.base, again.base[again.items]) for row in rows.tolist()]
    assert [replace(one, vector=None) for one in found] == [signal.evidence for signal in log.signals]
    read = sum(len(user.history) for user in prepared_log(again, again.base, rows).users)
    assert read == len(rows) - 1


def test_whom_preparing_counts_are_those_who_are_asked_about(prepared: Prepared, tmp_path: Path) -> None:
    # One comes on the day before the last alone, another on both.
    day = max(np.array(prepared.signals["time"])) // MICROS_PER_DAY - 1
    come = [("once", 0, "0-1"), ("once", 1, "0-2"), ("again", 0, "0-1"), ("again", MICROS_PER_DAY, "0-2")]
    items, signals = tiny_models.small_log()
    more = [
        Signal(f"{user}-{later}", user, Behavior(item, Action.LIKE), int(day * MICROS_PER_DAY) + later)
        for user, later, item in come
    ]
    manifest = prepared.manifest
    encoder, _ = open_base(manifest.encoder)
    log = read_log(items, [*signals, *more], TextPipeline(TextSettings()))
    counts = prepare(log, encoder, manifest.encoder, manifest.interests, manifest.settings, tmp_path).counts
    again = load_prepared(tmp_path)
    assert counts["users measured"] == len(questions(again).signals) == tiny_models.USERS + 1
    assert counts["users to validate by"] == len(questions(again, VALIDATION).signals)


def test_what_another_version_prepared_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    older = (prepared.folder / MANIFEST).read_text().replace('"format": 7', '"format": 6')
    (tmp_path / MANIFEST).write_text(older)
    with pytest.raises(WrongState, match="make one with `penchant finetune prepare`"):
        load_prepared(tmp_path)


# -- the validation part -----------------------------------------------------------------------------------------


def test_validation_asks_what_evaluation_would_before_the_test_part(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, model = open_base(prepared.manifest.encoder)
    asked = questions(prepared, VALIDATION)
    parts = np.array(prepared.signals["part"])
    assert all((parts[rows] <= VALIDATION).all() for rows in asked.signals.values())
    figures = measure(prepared, asked, prepared.base, prepared.manifest.calibration)
    untuned = NextItems(prepared, encoder)(model)
    for place, metric in ((1, "recall@50"), (2, "ndcg@10")):
        assert untuned[metric] == pytest.approx(np.mean([values[place] for values in figures.values()]))
    # Fewer items to choose from, the same ones to find.
    monkeypatch.setattr(validation, "ITEMS", 60)
    monkeypatch.setattr(validation, "USERS", 2)
    assert NextItems(prepared, encoder)(model)["recall@50"] > untuned["recall@50"]


def test_what_is_not_there_yet_is_no_rival_but_may_be_asked_for(prepared: Prepared) -> None:
    asked = questions(prepared)
    question = asked.questions[0]
    asked = replace(asked, questions=[question])
    old, unborn = (np.full(len(prepared.items), question.start + shift * MICROS_PER_DAY) for shift in (-1000, 1))
    unborn[question.asked] = old[question.asked]

    def found(created: Ints) -> float:
        by_user = measure(replace(prepared, created=created), asked, prepared.base, prepared.manifest.calibration)
        return float(by_user[question.user][-1])

    assert found(old) < 1
    assert found(unborn) == 1
    assert found(np.full_like(old, question.start + 1)) == 1
    # Before 1970 what has no creation time was there.
    asked = replace(asked, questions=[replace(question, start=-MICROS_PER_DAY)])
    assert found(np.zeros_like(old)) < 1


# -- whole runs --------------------------------------------------------------------------------------------------


def test_tuning_finds_what_users_take_to_next(prepared: Prepared, run: Path, report: dict[str, Any]) -> None:
    done = load_run(run)
    assert done.best_recall > done.untuned_recall
    assert report["difference"]["recall@10"][1] > 0
    assert report["tuned"]["recall@10"][0] > 2 * report["live"]["recall@10"][0] > 0.2
    assert report["protocol"]["users"] == tiny_models.USERS
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    asked = [event.step for event in events.Scalars("eval/recall@50")]
    assert asked[0] == 0
    assert len(events.Scalars("train/loss")) > 2 * len(asked)


def test_random_pairs_do_not_help(prepared: Prepared, run: Path, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"control": "random-pairs"})
    train(prepared, settings, tmp_path / "control")
    reports, together = evaluate(prepared, [run, tmp_path / "control"])
    assert reports[1]["control"] == "random-pairs"
    assert reports[1]["difference"]["recall@10"][0] < reports[0]["difference"]["recall@10"][0] / 3
    assert together == []
    with pytest.raises(WrongState, match="control"):
        export(prepared, tmp_path / "control", tmp_path / "adapter")


def test_seeds_of_the_same_settings_are_taken_together(prepared: Prepared, run: Path, tmp_path: Path) -> None:
    done = load_run(run)

    def other(name: str, **changes: Any) -> Path:
        folder = Path(shutil.copytree(run, tmp_path / name))
        write(done.model_copy(update={"settings": done.settings.model_copy(update=changes)}), folder)
        return folder

    seed, longer = other("seed", seed=1, threads=2), other("longer", seed=1, epochs=9.0)
    reports, (together,) = evaluate(prepared, [run, seed, run, longer])
    assert len(reports) == 4
    assert together["run"] == "mean of 2"
    assert together["tuned"] == reports[0]["tuned"]


@pytest.mark.parametrize("rate", [10.0, 1e9])
def test_where_no_step_beats_the_untuned_encoder_it_is_kept(prepared: Prepared, tmp_path: Path, rate: float) -> None:
    ruined = QUICK.model_copy(update={"learning_rate": rate, "epochs": 1.0})
    done = train(prepared, ruined, tmp_path / "run")
    assert done.best_step == 0
    assert done.best_recall == done.untuned_recall > 0
    kept = open_tuned(prepared, tmp_path / "run").encode(prepared.texts[: len(prepared.base)])
    np.testing.assert_allclose(kept, prepared.base, atol=1e-5)
    (report,), _ = evaluate(prepared, [tmp_path / "run"])
    assert report["difference"]["recall@50"][0] == pytest.approx(0, abs=1e-3)
    with pytest.raises(WrongState, match="nothing beat the untuned encoder"):
        export(prepared, tmp_path / "run", tmp_path / "adapter")


def test_a_run_that_is_refused_leaves_nothing_and_one_at_a_time_works_on_a_folder(
    prepared: Prepared, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InvalidInput, match="dimensions"):
        train(prepared, QUICK.model_copy(update={"matryoshka": (9999,)}), folder)
    assert not folder.exists()
    with held(folder):
        (folder / "settings.json").touch()
        with pytest.raises(WrongState, match="another `train` works on"):
            train(prepared, QUICK, folder)
    assert {path.name for path in folder.iterdir()} == {"lock", "settings.json"}


def test_where_every_step_finds_all_the_order_decides(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What three users touched is less than 50 items.
    monkeypatch.setattr(validation, "ITEMS", 1)
    monkeypatch.setattr(validation, "USERS", 3)
    done = train(prepared, QUICK, tmp_path / "run")
    assert done.best_recall == done.untuned_recall == 1
    assert done.best_step > 0


def test_a_decoder_with_instructions_is_tuned_too(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = make("qwen")
    read = set()
    lengths: set[tuple[int, ...]] = set()
    step = AdapterTrainer.training_step

    def watched(self: AdapterTrainer, model: Any, inputs: dict[str, Any], *more: Any) -> torch.Tensor:
        assert isinstance(self.loss, dict)
        lengths.update(loss.dimensions for loss in self.loss.values() if isinstance(loss, BoundedLoss))
        for name, tokens in inputs.items():
            if name.endswith("_input_ids"):
                read.update(self._unwrapped().tokenizer.batch_decode(tokens, skip_special_tokens=True))
        return step(self, model, inputs, *more)

    monkeypatch.setattr(AdapterTrainer, "training_step", watched)
    done = train(prepared, QUICK.model_copy(update={"matryoshka": (16,), "epochs": 3.0}), tmp_path / "run")
    assert done.best_recall > done.untuned_recall
    assert lengths == {(32, 16)}  # the whole is what is served
    (report,), _ = evaluate(prepared, [tmp_path / "run"])
    assert report["difference"]["recall@50"][0] > 0
    assert list(report["shorter"]) == ["16"]
    assert report["shorter"]["16"]["tuned"] != report["tuned"]
    assert report["shorter"]["16"]["difference"]["recall@50"][0] > 0
    export(prepared, tmp_path / "run", tmp_path / "adapter")
    assert (
        f"| 16 | mrr | {report['shorter']['16']['tuned']['mrr'][0]:.4f}"
        in (tmp_path / "adapter" / "README.md").read_text()
    )
    served = open_adapter(prepared.manifest.encoder, tmp_path / "adapter")
    texts = prepared.texts[:20]
    np.testing.assert_allclose(
        served.encode(texts), open_tuned(prepared, tmp_path / "run").encode(texts), rtol=0, atol=1e-5
    )
    # What was trained with the instruction is not what it would be without.
    assert read
    assert all(text.startswith(tiny_models.INSTRUCTION) for text in read)
    encoder, model = open_base(prepared.manifest.encoder)
    plain = model.encode(texts, prompt="", normalize_embeddings=True)
    assert np.abs(encoder.encode(texts) - plain).max() > 1e-3
    with pytest.raises(WrongState, match=r"set encoder\.model, prompt and dimensions"):
        open_adapter(prepared.manifest.encoder.model_copy(update={"prompt": ""}), tmp_path / "adapter")


def test_vectors_that_are_cut_are_trained_measured_and_served_cut(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(dimensions=16)
    assert prepared.base.shape == (len(prepared.base), 16)
    lengths = set()
    compare_columns = UserAwareRankingLoss.compare

    def watched(self: UserAwareRankingLoss, columns: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        lengths.add(self.dimensions)
        return compare_columns(self, columns, labels)

    monkeypatch.setattr(UserAwareRankingLoss, "compare", watched)
    train(prepared, QUICK, tmp_path / "run")
    assert lengths == {(16,)}
    (report,), _ = evaluate(prepared, [tmp_path / "run"])
    assert report["shorter"] == {}
    export(prepared, tmp_path / "run", tmp_path / "adapter")
    served = open_adapter(prepared.manifest.encoder, tmp_path / "adapter")
    assert served.dimensions == read_manifest(tmp_path / "adapter").dimensions == 16
    texts = prepared.texts[:20]
    np.testing.assert_allclose(
        served.encode(texts), open_tuned(prepared, tmp_path / "run").encode(texts), rtol=0, atol=1e-5
    )


def test_the_same_seed_gives_the_same_weights_and_an_interrupted_run_goes_on(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(max_pairs=200)
    settings = QUICK.model_copy(update={"epochs": 3.0})
    train(prepared, settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        step = AdapterTrainer.training_step
        taken = 0

        def interrupted(self: AdapterTrainer, *arguments: Any, **more: Any) -> torch.Tensor:
            nonlocal taken
            taken += 1
            if taken > 6:
                raise KeyboardInterrupt
            return step(self, *arguments, **more)

        patch.setattr(AdapterTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(prepared, settings, tmp_path / "cut")
    with pytest.raises(WrongState, match="no finished run"):
        load_run(tmp_path / "cut")
    # A crash while a checkpoint was written leaves a part of it.
    checkpoints = tmp_path / "cut" / CHECKPOINTS
    reached = last_checkpoint(checkpoints)
    assert reached is not None
    (checkpoints / "checkpoint-900").mkdir()
    shutil.copytree(reached, checkpoints / "checkpoint-901")
    (checkpoints / "checkpoint-901" / "trainer_state.json").unlink()
    shutil.copytree(reached, checkpoints / "checkpoint-902")
    (checkpoints / "checkpoint-902" / WEIGHTS).unlink()
    shutil.copytree(reached, checkpoints / "checkpoint-903")
    (checkpoints / "checkpoint-903" / "trainer_state.json").write_text("{")
    state = json.loads((reached / "trainer_state.json").read_text())
    state["stateful_callbacks"]["Clock"]["args"]["seconds"] = 1000.0
    (reached / "trainer_state.json").write_text(json.dumps(state))
    told: list[tuple[int, int]] = []
    resumed = train(prepared, settings, tmp_path / "cut", lambda done, total: told.append((done, total)))
    first = int(reached.name.rpartition("-")[2]) + 1
    assert told == [(step, told[0][1]) for step in range(first, resumed.steps + 1)]
    assert told[0][1] >= resumed.steps
    assert resumed.seconds > 1000
    assert not list(checkpoints.glob("checkpoint-9??"))
    assert resumed.steps == load_run(tmp_path / "whole").steps
    one, other = (open_tuned(prepared, tmp_path / name).encode(prepared.texts[:10]) for name in ("whole", "cut"))
    np.testing.assert_allclose(one, other, atol=1e-5)
    # Finished: nothing is done anew.
    weights = tmp_path / "cut" / ADAPTER / WEIGHTS
    written = weights.stat().st_mtime_ns
    assert train(prepared, settings, tmp_path / "cut") == resumed
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(WrongState, match=r"other settings \(seed was 0, is 1\)"):
        train(prepared, settings.model_copy(update={"seed": 1}), tmp_path / "cut")


def test_a_run_stops_where_it_would_have_without_interruptions(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(max_pairs=200)
    # No state is better than the one before: it stops after the third of five evaluations.
    still = QUICK.model_copy(update={"learning_rate": 1e-30, "epochs": 5.0})
    whole = train(prepared, still, tmp_path / "whole")
    assert whole.steps == 15
    step = AdapterTrainer.training_step

    def interrupted(self: AdapterTrainer, *arguments: Any, **more: Any) -> torch.Tensor:
        if self.state.global_step > 10:
            raise KeyboardInterrupt
        return step(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(prepared, still, tmp_path / "cut")
    assert train(prepared, still, tmp_path / "cut").steps == whole.steps
    # Killed once more, between its last checkpoint and the file that says it is finished.
    (tmp_path / "cut" / RUN).unlink()
    again = train(prepared, still, tmp_path / "cut")
    assert again.model_dump(exclude={"seconds"}) == whole.model_dump(exclude={"seconds"})
    assert not (tmp_path / "cut" / CHECKPOINTS / "checkpoint-16").exists()


def test_a_run_is_not_gone_on_with_from_another_prepared_folder(
    make: Make, prepared: Prepared, run: Path, tmp_path: Path
) -> None:
    other = make(max_pairs=100)
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(WrongState, match="not trained from"):
        train(other, QUICK, tmp_path / "run")
    (tmp_path / "run" / RUN).unlink()
    with pytest.raises(WrongState, match="not trained from"):
        train(other, QUICK, tmp_path / "run")


def test_a_run_is_not_gone_on_with_by_another_number_of_processes(
    prepared: Prepared, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    # Finished: nothing is left to do, by however many.
    assert train(prepared, load_run(run).settings, tmp_path / "run") == load_run(run)
    (tmp_path / "run" / RUN).unlink()
    with pytest.raises(WrongState, match=r"processes was 1, is 2"):
        train(prepared, load_run(run).settings, tmp_path / "run")


def test_one_trains_in_a_folder_at_a_time(prepared: Prepared, tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(WrongState, match="another `train`"):
        train(prepared, QUICK, tmp_path)


def test_states_that_change_nothing_do_not_beat_the_untuned_encoder(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watched(prepared: Prepared, questions: Asked, texts: Vectors, calibration: Calibration) -> dict[int, Values]:
        asked.append(texts)
        return measure(prepared, questions, texts, calibration)

    monkeypatch.setattr(validation, "measure", watched)
    # In bfloat16 no vector is quite what it is in float32.
    still = QUICK.model_copy(update={"learning_rate": 1e-30, "epochs": 0.5, "bf16": True})
    assert train(prepared, still, tmp_path / "run").best_step == 0
    assert len(asked) > 1
    assert all((texts == asked[0]).all() for texts in asked)


# -- export ------------------------------------------------------------------------------------------------------


def test_an_export_is_what_the_server_loads_whole_or_not_there(
    prepared: Prepared, run: Path, report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("penchant_finetune.export.write_manifest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export(prepared, run, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
    export(prepared, run, tmp_path / "adapter")
    base, _ = open_base(prepared.manifest.encoder)
    served = open_adapter(prepared.manifest.encoder, tmp_path / "adapter", base)
    texts = prepared.texts[:20]
    np.testing.assert_allclose(served.encode(texts), open_tuned(prepared, run).encode(texts), rtol=0, atol=1e-5)
    assert np.abs(served.encode(texts) - base.encode(texts)).max() > 0.01
    manifest = read_manifest(tmp_path / "adapter")
    assert manifest.base == base.space_id
    assert manifest.metrics["recall@10"] == report["tuned"]["recall@10"][0]
    gained = [manifest.metrics[f"recall@50 gained{end}"] for end in ("", ", low", ", high")]
    assert gained == report["difference"]["recall@50"]
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert f'"Live" is {prepared.manifest.live_space_id}' in card
    assert f"{report['difference']['recall@50'][0]:+.4f}" in card
    assert "Licence" in card
    with pytest.raises(WrongState, match="holds something"):
        export(prepared, run, tmp_path / "adapter")


def test_what_is_worse_or_not_measured_is_not_exported(
    prepared: Prepared, run: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    evaluation = copy / "evaluation.json"
    evaluation.unlink()
    with pytest.raises(WrongState, match="not evaluated"):
        export(prepared, copy, tmp_path / "adapter")
    worse = json.loads(json.dumps(report))
    worse["difference"]["recall@50"] = [-0.02, -0.05, 0.01]
    evaluation.write_text(json.dumps(worse))
    with pytest.raises(WrongState, match=r"recall@50 is 0\.0200 lower"):
        export(prepared, copy, tmp_path / "adapter")
    # Both find all that there is among the first 50.
    worse["difference"] |= {"recall@50": [0.0, 0.0, 0.0], "ndcg@10": [-0.03, -0.07, 0.01]}
    evaluation.write_text(json.dumps(worse))
    with pytest.raises(WrongState, match=r"ndcg@10 is 0\.0300 lower"):
        export(prepared, copy, tmp_path / "adapter")
    weights = copy / ADAPTER / "adapter_model.safetensors"
    evaluation.write_text(json.dumps(report))
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(WrongState, match="trained anew"):
        export(prepared, copy, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_that_changes_nothing_is_not_exported(
    prepared: Prepared, run: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    weights = copy / ADAPTER / WEIGHTS
    save_file({name: value * ("lora_B" not in name) for name, value in load_file(weights).items()}, weights)
    (copy / EVALUATION).write_text(json.dumps({**report, "adapter": file_sha256(weights)}))
    with pytest.raises(WrongState, match="changes nothing"):
        export(prepared, copy, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("gained", "live", "said"),
    [
        ([0.02, 0.01, 0.03], None, None),
        ([0.02, -0.01, 0.05], None, "changes nothing"),
        ([0.02, 0.01, 0.03], Path("adapter"), "changes nothing"),
    ],
)
def test_an_adapter_that_changes_nothing_is_exported_for_a_sequence_model_that_surely_helps(
    prepared: Prepared,
    run: Path,
    report: dict[str, Any],
    tmp_path: Path,
    gained: list[float],
    live: Path | None,
    said: str | None,
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    weights, sequence = copy / ADAPTER / WEIGHTS, copy / "sequence.safetensors"
    save_file({name: value * ("lora_B" not in name) for name, value in load_file(weights).items()}, weights)
    sequence.write_bytes(b"a model")
    alone = {
        "mean_length": 3,
        "queries": 9,
        "users": 5,
        "methods": {"mean": {}, "sequence": {}},
        "against": {"mean": {}},
    }
    helps = {"file": file_sha256(sequence), "tuned": report["tuned"], "next items": alone}
    helps["difference"] = dict.fromkeys(report["difference"], gained)
    (copy / EVALUATION).write_text(json.dumps({**report, "adapter": file_sha256(weights), "sequence": helps}))
    encoder = prepared.manifest.encoder.model_copy(update={"adapter": live})
    told = replace(prepared, manifest=prepared.manifest.model_copy(update={"encoder": encoder}))
    if said is not None:
        with pytest.raises(WrongState, match=said):
            export(told, copy, tmp_path / "adapter")
        return
    assert export(told, copy, tmp_path / "adapter") is None
    assert (tmp_path / "adapter" / "sequence.safetensors").read_bytes() == b"a model"
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "leaves all vectors as they were (it changes nothing" in card
    control = json.loads((copy / EVALUATION).read_text()) | {"control": "random-pairs"}
    (copy / EVALUATION).write_text(json.dumps(control))
    with pytest.raises(WrongState, match="is a control"):
        export(told, copy, tmp_path / "other")


def test_one_user_gives_no_interval_and_few_give_one_that_is_too_narrow() -> None:
    figures = {user: np.array([0.1, 0.2, 0.3, 0.4]) for user in range(3)}
    found = compare({0: figures[0]}, {0: figures[1] + 0.1})
    assert found["difference"]["recall@50"] == [pytest.approx(0.1)]
    assert len(compare(figures, figures)["difference"]["recall@50"]) == 3
    assert "no interval" in caution(1)
    assert "too narrow" in caution(9)
    assert not caution(10)


def test_where_nothing_can_be_asked_it_is_said(prepared: Prepared, run: Path) -> None:
    nothing = {**prepared.signals, "new": [False] * len(prepared.signals["new"])}
    with pytest.raises(WrongState, match="no user takes to anything new"):
        evaluate(replace(prepared, signals=nothing), [run])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"recall@50": [0.0, -0.1, 0.1]}, None),
        ({"recall@50": [0.1]}, "measured on one user"),
        ({"mrr": [-0.1, -0.2, 0.01]}, None),
        ({"mrr": [-0.1, -0.2, -0.01]}, "mrr is surely lower"),
        ({"recall@50": [-0.001, -0.1, 0.1]}, "recall@50 is 0.0010 lower"),
    ],
)
def test_the_gate(changes: dict[str, list[float]], said: str | None) -> None:
    difference = {metric: [0.1, 0.05, 0.2] for metric in ("recall@10", "recall@50", "ndcg@10", "mrr")} | changes
    found = refusal({"control": None, "difference": difference})
    assert (found is None) if said is None else (found is not None and said in found)


def test_a_run_belongs_to_its_prepared_folder(make: Make, run: Path, tmp_path: Path) -> None:
    other = make(max_pairs=100)
    with pytest.raises(WrongState, match="not trained from"):
        evaluate(other, [run])
    with pytest.raises(WrongState, match="not trained from"):
        export(other, run, tmp_path / "adapter")


def test_model_and_live_adapter_are_found_from_anywhere_and_it_must_be_as_it_was(
    prepared: Prepared, run: Path, report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(prepared, run, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    model = Path(prepared.manifest.encoder.model)
    Path(model.name).symlink_to(model)
    changes = {"adapter": Path("adapter"), "model": model.name}
    settings = prepared.manifest.encoder.model_copy(update=changes)
    encoder, _ = open_base(settings)
    log = read_log(*tiny_models.small_log(), TextPipeline(TextSettings()))
    prepare(log, encoder, settings, InterestSettings(), prepared.manifest.settings, tmp_path / "prepared")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = load_prepared(tmp_path / "prepared")
    train(again, QUICK.model_copy(update={"epochs": 0.2}), tmp_path / "run")
    assert evaluate(again, [tmp_path / "run"])[0][0]["live"] == report["tuned"]
    config = tmp_path / "adapter" / "adapter_config.json"
    manifest = tmp_path / "adapter" / "penchant.json"
    before = file_sha256(config)
    config.write_text(config.read_text() + "\n")
    manifest.write_text(manifest.read_text().replace(before, file_sha256(config)))
    with pytest.raises(WrongState, match="was changed since"):
        evaluate(again, [tmp_path / "run"])


def test_a_folder_that_was_filled_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    def filled_by_two() -> None:
        with new_folder(tmp_path / "out") as whole:
            (whole / "mine").touch()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").touch()

    with pytest.raises(WrongState, match="meanwhile; name a new folder"):
        filled_by_two()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
