from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from penchant.settings import PREFIX, Settings, document, load_settings, strange_variables
from penchant_pipelines.errors import InvalidInput


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PENCHANT_")]:
        monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    path = folder / "penchant.toml"
    path.write_text(text, "utf-8")
    return path


def complaints(overrides: dict[str, Any] | None = None, config: Path | None = None) -> dict[str, str]:
    with pytest.raises(InvalidInput) as raised:
        load_settings(config, overrides)
    return {violation.field: violation.description for violation in raised.value.violations}


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, name = "interests.short_half_life_days", "PENCHANT_INTERESTS__SHORT_HALF_LIFE_DAYS"
    default = load_settings().interests
    assert default.short_half_life_days == 5.0
    config = write(tmp_path, "[interests]\nshort_half_life_days = 2\nfloor = 0.5\n")
    assert load_settings(config).interests.short_half_life_days == 2
    monkeypatch.setenv(name, "3")
    assert load_settings(config).interests.short_half_life_days == 3
    assert load_settings(config, {key: "4"}).interests.short_half_life_days == 4
    # The sources complete each other: what only the file says still holds.
    assert load_settings(config, {key: "4"}).interests.floor == 0.5
    assert load_settings(config, {key: "4"}).interests.max_interests == default.max_interests


def test_a_size_that_no_message_can_tell_is_refused() -> None:
    keys = ["limits.text_bytes", "limits.message_bytes"]
    assert list(complaints(dict.fromkeys(keys, 2**31))) == keys
    assert load_settings(overrides=dict.fromkeys(keys, 2**31 - 1)).limits.text_bytes == 2**31 - 1


def test_where_chroma_is_must_be_a_url() -> None:
    for url in (
        "localhost:8000",
        "http://",
        "http://chroma:port",
        "http://chroma:8000/v2",
        "http://[::1",
        "http://a b",
    ):
        assert "http://127.0.0.1:8000" in complaints({"index.url": url})["index.url"]
    for url in ("", "http://chroma", "https://chroma:8000/", "http://[::1]:8000"):
        assert load_settings(overrides={"index.url": url}).index.url == url


def test_dotted_keys_reach_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings(
        overrides={
            "listen": "127.0.0.1:0",
            "interests.actions.like.weight": "2",
            "interests.actions.purchase.half_life_days": "10",
            "interests.drift.trust_signals": "8",
            "limits.page_size": 7,
        }
    )
    assert found.listen == "127.0.0.1:0"
    assert (found.interests.actions["like"].weight, found.interests.actions["like"].half_life_days) == (2, 90)
    assert (
        found.interests.actions["purchase"].weight,
        found.interests.actions["purchase"].half_life_days,
    ) == (1.5, 10)
    assert len(found.interests.actions) == 13
    assert (found.interests.drift.trust_signals, found.limits.page_size) == (8, 7)
    monkeypatch.setenv("PENCHANT_INTERESTS__ACTIONS__VIEW__WEIGHT", "0.2")
    assert load_settings().interests.actions["view"].weight == 0.2


@pytest.mark.parametrize(
    "key",
    [
        "lisen",
        "text.max_term",
        "encoder.modle",
        "interests.floors",
        "interests.drift.trust_signal",
        "interests.post.half_life",
        "interests.actions.like.half_life",
        "index.pth",
        "recommend.temprature",
        "summaries.modle",
        "limits.pages",
    ],
)
def test_an_unknown_key_is_refused_by_its_name(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *groups, name = key.split(".")
    assert list(complaints({key: "1"})) == [key]
    table = f"[{'.'.join(groups)}]\n" if groups else ""
    assert list(complaints(config=write(tmp_path, f"{table}{name} = 1\n"))) == [key]
    if groups:
        monkeypatch.setenv("PENCHANT_" + key.upper().replace(".", "__"), "1")
        assert list(complaints()) == [key]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("lisen", "listen"),
        ("encoder.modle", "encoder.model"),
        ("interests.drift.trust_signal", "interests.drift.trust_signals"),
        ("similarity", "interests.similarity"),
        ("interests.actions.like.wight", "interests.actions.like.weight"),
        ("nope", "`penchant settings` prints all"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_ones(key: str, near: str) -> None:
    said = complaints({key: "1"})[key]
    assert f"there is no setting '{key}'" in said
    assert near in said


def test_an_unknown_action_is_refused_by_its_name() -> None:
    assert "'hug'" in complaints({"interests.actions.hug.weight": "1"})["interests.actions"]


def test_every_wrong_value_is_named() -> None:
    found = complaints({"interests.max_interests": "1", "recommend.diversity": "2", "log_level": "loud"})
    assert set(found) >= {"interests.max_interests", "recommend.diversity", "log_level"}
    assert all(found.values())


@pytest.mark.parametrize(
    "listen",
    [
        "0.0.0.0:50051",
        "[::]:50051",
        "192.168.1.4:50051",
        "example.com:50051",
        ":50051",
        "127.0.0.1",
        "127.0.0.1:65536",
        "127.0.0.1:x",
    ],
)
def test_only_loopback_is_listened_on(listen: str) -> None:
    assert list(complaints({"listen": listen})) == ["listen"]


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:50051", "localhost:1", "127.9.9.9:65535"])
def test_loopback_has_many_names(listen: str) -> None:
    assert load_settings(overrides={"listen": listen}).listen == listen


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert "brackets" in complaints({"listen": "::1:50051"})["listen"]


@pytest.mark.parametrize("name", ["", " "])
def test_data_has_a_folder_that_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "name a folder" in complaints({"data": name})["data"]
    monkeypatch.setenv("PENCHANT_DATA", name)
    assert list(complaints({})) == ["data"]
    (tmp_path / "file").touch()
    assert "is a file" in complaints({"data": str(tmp_path / "file")})["data"]
    assert list(complaints({"data": 5})) == ["data"]
    assert load_settings(overrides={"data": "."}).data == Path()


@pytest.mark.parametrize("listen", ["9464", ":9464", "127.0.0.1", "127.0.0.1:65536"])
def test_metrics_need_a_host_and_a_port(listen: str) -> None:
    assert list(complaints({"metrics_listen": listen})) == ["metrics_listen"]
    assert load_settings(overrides={"metrics_listen": "[::]:9464"}).metrics_listen == "[::]:9464"


@pytest.mark.parametrize(
    ("name", "example"),
    [("PENCHANT_LIMITS", "PENCHANT_LIMITS__TEXT_BYTES"), ("PENCHANT_INTERESTS__ACTIONS", "__ACTIONS__VIEW__WEIGHT")],
)
def test_a_variable_for_a_whole_table_that_is_none_is_named(
    name: str, example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENCHANT_ENCODER", '{"dimensions": 128}')
    assert load_settings().encoder.dimensions == 128
    monkeypatch.setenv(name, "abc")
    said = complaints()
    assert list(said) == [name]
    assert f"such as {PREFIX}" in said[name]
    assert example in said[name]


@pytest.mark.parametrize(("one", "two"), [("listen", "listen.host"), ("limits.page_size", "limits.page_size.most")])
def test_a_value_and_a_table_under_one_key_are_refused(one: str, two: str) -> None:
    assert two in complaints({one: "1", two: "1"})
    assert one in complaints({two: "1", one: "1"})


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http://", "http://127.0.0.1/v1?key=1"]
)
def test_an_endpoint_of_summaries_is_a_url(endpoint: str) -> None:
    assert "must be a URL" in complaints({"summaries.endpoint": endpoint})["summaries.endpoint"]


def test_an_endpoint_of_summaries_needs_the_name_of_a_model() -> None:
    assert "summaries.model" in complaints({"summaries.endpoint": "http://127.0.0.1:8000/v1"})["summaries"]


def test_a_key_is_taken_from_the_environment_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENCHANT_SUMMARIES__API_KEY", "k-42")
    settings = load_settings()
    assert settings.summaries.api_key is not None
    assert settings.summaries.api_key.get_secret_value() == "k-42"
    assert "k-42" not in repr(settings) + str(settings.model_dump())


def test_a_file_that_is_missing_or_not_toml_is_refused(tmp_path: Path) -> None:
    assert "no file" in complaints(config=tmp_path / "absent.toml")["config"]
    assert "can't be read" in complaints(config=write(tmp_path, "listen = \n"))["config"]


def test_the_document_is_toml_that_gives_the_defaults_back(tmp_path: Path) -> None:
    text = document()
    assert tomllib.loads(text)["listen"] == "127.0.0.1:50051"
    assert load_settings(write(tmp_path, text)).model_dump() == load_settings().model_dump()


def fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str | None]]:
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from fields(annotation, (*path, name))
        else:
            yield ".".join([*path, name]), info.description


def test_every_key_is_described_in_the_document() -> None:
    text = document()
    for key, description in fields(Settings):
        assert description, key
        assert description.endswith("."), key
        if key != "interests.actions":
            assert f"# {description}\n" in text, key
    for key in ("encoder.adapter", "interests.similarity"):
        assert f"# {key.rpartition('.')[2]} =\n" in text


def test_variables_that_set_nothing_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert strange_variables() == {}
    for name in ("PENCHANT_LISTEN", "PENCHANT_INTERESTS__FLOOR", "PENCHANT_SERVER", "OTHER"):
        monkeypatch.setenv(name, "0.1")
    assert strange_variables() == {}
    monkeypatch.setenv("PENCHANT_INTRESTS__FLOOR", "0.1")
    monkeypatch.setenv("PENCHANT_PORT", "tcp://10.0.0.1:50051")
    found = strange_variables()
    assert found.keys() == {"PENCHANT_INTRESTS__FLOOR", "PENCHANT_PORT"}
    assert "interests.floor" in found["PENCHANT_INTRESTS__FLOOR"]


def test_settings_are_printed_and_a_mistyped_folder_is_told_without_waiting_for_models() -> None:
    code = """
import sys
from penchant.settings import document
from penchant_pipelines.encoder import EncoderSettings, open_encoder
from penchant_pipelines.errors import WrongState

document()
try:
    open_encoder(EncoderSettings(model="/no/such/model"))
except WrongState as error:
    print(error.message)
print({"torch", "transformers", "sentence_transformers", "sklearn", "chromadb"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["encoder.model: there is no folder '/no/such/model'", "set()"]
