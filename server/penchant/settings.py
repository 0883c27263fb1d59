"""All settings of the server in one object: defaults, then a TOML file, then the environment, then flags.

`penchant settings` prints every key with its default and what it means, as a file to start from.
A key in the environment: PENCHANT_INTERESTS__SHORT_HALF_LIFE_DAYS=3; as a flag:
--set interests.short_half_life_days=3.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from penchant._channel import SERVER_VARIABLE
from penchant_pipelines.engine import EngineSettings
from penchant_pipelines.errors import InvalidInput, Violation
from penchant_pipelines.settings import Section

PREFIX, DELIMITER = "PENCHANT_", "__"

# What gRPC, and GetServerInfo, can say of a size.
_MOST_BYTES = 2**31 - 1


class LimitSettings(Section):
    """Sizes above which a request is refused; GetServerInfo tells them to callers."""

    text_bytes: int = Field(default=65_536, ge=256, le=_MOST_BYTES, description="Most bytes (UTF-8) of one text.")
    batch_size: int = Field(default=500, ge=1, le=10_000, description="Most signals, items or candidates in one call.")
    page_size: int = Field(default=100, ge=1, le=1_000, description="Most entries of one page; more are cut to this.")
    message_bytes: int = Field(
        default=33_554_432, ge=65_536, le=_MOST_BYTES, description="Most bytes of one message on the wire."
    )


class Settings(BaseSettings, EngineSettings):
    """Settings of `penchant serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="forbid", validate_default=True
    )

    data: Path = Field(default=Path("penchant-data"), description="Folder that holds all that the server keeps.")
    listen: str = Field(
        default="127.0.0.1:50051",
        description=(
            "HOST:PORT to listen on; port 0 takes a free one. Loopback only: this version has no authentication."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["console", "json"] = Field(default="console", description="Logs for people or for machines.")
    metrics_listen: str = Field(
        default="",
        description=(
            "HOST:PORT of an HTTP endpoint for Prometheus, such as 127.0.0.1:9464; empty: none. It tells counts and "
            "times, of no user, to whoever can reach it."
        ),
    )
    drain_seconds: float = Field(
        default=20.0, ge=0, description="After SIGTERM, seconds that calls in hand may take to finish."
    )
    limits: LimitSettings = Field(default_factory=LimitSettings, description="Sizes above which a request is refused.")

    @field_validator("data", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        # An empty name, as of a variable that is not set, would be the folder of the moment.
        if isinstance(value, str):
            if not value.strip():
                raise ValueError("must name a folder; . is the current one")
            if Path(value).is_file():
                raise ValueError(f"must name a folder, and {value!r} is a file")
        return value

    @field_validator("metrics_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and port.isdigit() and int(port) <= 65_535):
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:9464, or empty")
        return value

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65_535:
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051")
        if ":" in host and not host.startswith("["):
            raise ValueError("must have an IPv6 address in brackets, such as [::1]:50051")
        host = host.strip("[]")
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = host == "localhost"
        if not loopback:
            raise ValueError(
                "must be a loopback address: there is no authentication yet, so put a proxy with it in front"
            )
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before the environment before the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Load settings from a TOML file, the environment and overrides with dotted keys.

    Raises InvalidInput that names each wrong key.
    """
    if config is not None and not config.is_file():
        raise InvalidInput.at("config", f"there is no file {str(config)!r}")

    class _FromFile(Settings):
        model_config = SettingsConfigDict(**{**Settings.model_config, "toml_file": config})

    try:
        return _FromFile(**_nested(overrides or {}))
    except ValidationError as error:
        raise InvalidInput(
            [
                Violation(key := ".".join(map(str, problem["loc"])) or "settings", _complaint(key, problem))
                for problem in error.errors()
            ]
        ) from error
    except SettingsError as error:  # a variable
        raise InvalidInput(list(_unreadable_tables())) from error
    except ValueError as error:  # a TOML syntax error
        raise InvalidInput.at("config", f"{config} can't be read: {error}") from error


def strange_variables() -> dict[str, str]:
    """Variables of the environment that look like settings and are none, each with what may have been meant.

    They are not refused: a cluster may set some for a service of this name. What begins like a setting and goes on
    wrongly is refused by `load_settings`.
    """
    return {
        name: _unknown(key)
        for name, key in _variables().items()
        if name != SERVER_VARIABLE and key.partition(".")[0] not in Settings.model_fields
    }


def _variables() -> dict[str, str]:
    """Variables of the environment that look like settings, each with the key that it would set."""
    return {
        name: name[len(PREFIX) :].lower().replace(DELIMITER, ".")
        for name in os.environ
        if name.upper().startswith(PREFIX)
    }


def _unreadable_tables() -> Iterator[Violation]:
    """What of the environment stands for a whole table and is no JSON."""
    known = list(_keys(Settings.model_construct(), ()))
    for name, table in _variables().items():
        single = next((key for key in known if key.startswith(f"{table}.")), None)
        if single is not None and not _is_json(os.environ[name]):
            variable = PREFIX + single.upper().replace(".", DELIMITER)
            yield Violation(name, f"is a table: give it as JSON, or its keys one by one, such as {variable}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _complaint(key: str, problem: ErrorDetails) -> str:
    if problem["type"] != "extra_forbidden":
        return problem["msg"].removeprefix("Value error, ")
    return _unknown(key)


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, _keys(Settings.model_construct(), ()), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`penchant settings` prints all there are"
    return f"there is no setting {key!r}; {hint}"


def _keys(values: BaseModel, path: tuple[str, ...]) -> Iterator[str]:
    """Every key that holds a value, dotted."""
    for name in type(values).model_fields:
        value = getattr(values, name)
        members = value if isinstance(value, dict) else {"": value}
        for key, member in members.items():
            place = (*path, name, key) if key else (*path, name)
            if isinstance(member, BaseModel):
                yield from _keys(member, place)
            else:
                yield ".".join(place)


def document() -> str:
    """Every key with its default and its meaning, as TOML."""
    return "\n".join(_document(Settings.model_construct(), ())) + "\n"


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        table = whole
        for group in groups:
            table = table.setdefault(group, {})
            if not isinstance(table, dict):
                raise InvalidInput.at(key, f"can't be set beside {group}, which is given as a whole")
        if name in table:
            raise InvalidInput.at(key, "can't be set as a whole beside keys in it")
        table[name] = value
    return whole


def _document(values: BaseModel, path: tuple[str, ...]) -> Iterator[str]:
    groups: list[tuple[str, str, BaseModel | dict[str, BaseModel]]] = []
    for name, info in type(values).model_fields.items():
        value = getattr(values, name)
        if isinstance(value, BaseModel | dict):
            groups.append((name, info.description or (type(value).__doc__ or "").strip(), value))
            continue
        yield f"# {info.description}"
        yield f"# {name} =" if value is None else f"{name} = {_toml(value)}"
    for name, description, group in groups:
        yield ""
        yield f"# {description}"
        yield f"[{'.'.join([*path, name])}]"
        if isinstance(group, dict):
            for key, member in group.items():
                yield f"{key} = {_toml(member)}"
        else:
            yield from _document(group, (*path, name))


def _toml(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.model_dump().items()) + " }"
    return json.dumps(str(value) if isinstance(value, Path) else value)
