import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from typer.main import get_command
from typer.testing import CliRunner

from penchant.cli import app
from penchant_pipelines.encoder import sentence
from penchant_pipelines.record import Record

# Port 9 (discard) is reserved: nothing of ours listens there.
NOBODY = "127.0.0.1:9"

runner = CliRunner()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["capture"], "FILE"),
        (["capture", "--user", "mei"], "--text"),
        (["capture", "no-such-file.jsonl"], "does not exist"),
        (["capture", "."], "folder"),
        (["items", "import", "no-such-file.jsonl"], "does not exist"),
        (["profile"], "USER"),
        (["profile", "mei", "--as-of", "yesterday"], "yesterday"),
        (["recommend", "mei", "-n", "0"], "-n"),
        (["find-users"], "--item"),
        (["find-users", "soup", "--item", "i"], "--item"),
        (["steer", "mei"], "--topic"),
        (["steer", "mei", "--topic", "soup", "--bias", "2"], "--bias"),
        (["serve", "--set", "encoder.device"], "KEY=VALUE"),
        (["call", "GetProfiles"], "GetProfile"),
        (["call", "penchant.v1.AdminService/GetProfile"], "no call"),
        (["call", "GetProfile", '{"user": "mei"}'], "user: is not a field"),
        (["call", "GetProfile", "{"], "not JSON"),
        (["embed", "no-such-file.jsonl", "out.npy"], "does not exist"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert said in err
    assert out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["profile", "mei"],
        ["capture", "--user", "mei", "--text", "hi"],
        ["watch"],
        ["export", "mei"],
        ["forget", "mei", "--yes"],
        ["items", "list"],
        ["jobs"],
        ["reindex"],
        ["info"],
    ],
)
def test_without_a_server_commands_say_so_in_one_line(arguments: list[str]) -> None:
    result = runner.invoke(app, [*arguments, "--server", NOBODY])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no server answers")
    assert len(result.stderr.strip().splitlines()) == 1


def test_every_command_that_asks_a_server_has_json() -> None:
    def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], set[str]]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from leaves(inner, (*path, name))
        yield path, {option for parameter in command.params for option in parameter.opts}

    asking = {path: options for path, options in leaves(get_command(app), ()) if "--server" in options}
    assert {("jobs",), ("export",), ("adapters", "experiment", "report")} <= set(asking)
    assert [" ".join(path) for path, options in asking.items() if "--json" not in options] == []


def test_the_version_is_that_of_the_package() -> None:
    code, out, err = run("--version")
    assert (code, out, err) == (0, f"penchant {version('penchant')}\n", "")


def test_what_is_written_is_utf_8_whatever_the_locale() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "penchant", "--help"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, b"")
    assert "…" in said.stdout.decode("utf-8")


def test_the_server_comes_from_the_environment() -> None:
    result = runner.invoke(app, ["info"], env={"PENCHANT_SERVER": "127.0.0.1:19"})
    assert result.exit_code == 1
    assert "127.0.0.1:19" in result.stderr


def test_forget_asks_first() -> None:
    result = runner.invoke(app, ["forget", "mei", "--server", NOBODY], input="n\n")
    assert result.exit_code == 1
    assert "Erase mei" in result.stderr
    assert "error: nothing was erased" in result.stderr


def test_forget_asks_how_many_signals_are_meant() -> None:
    result = runner.invoke(app, ["forget", "mei", "--signal", "a", "--signal", "b", "--server", NOBODY], input="n\n")
    assert "Erase 2 of mei's signals for good?" in result.stderr


def test_wrong_settings_name_their_keys() -> None:
    result = runner.invoke(app, ["serve", "--listen", "nowhere", "--set", "no.such.key=1"])
    assert result.exit_code == 1
    assert "listen: " in result.stderr
    assert "no: " in result.stderr


def test_forget_says_what_to_give_where_there_is_nobody_to_ask() -> None:
    result = runner.invoke(app, ["forget", "mei", "--server", NOBODY], input="")
    assert result.exit_code == 1
    assert "give --yes" in result.stderr


def doctor(check: str, *arguments: str | Path) -> tuple[bool, str]:
    """What `doctor` says of one thing: whether it is in order, and the words for it."""
    result = runner.invoke(app, ["doctor", "--server", NOBODY, "--json", *map(str, arguments)])
    findings = map(json.loads, result.stdout.splitlines())
    return next((found["ok"], found["detail"]) for found in findings if found["check"] == check)


def test_doctor_looks_into_the_record(tmp_path: Path) -> None:
    assert doctor("record", "--data", tmp_path)[0]
    Record(tmp_path).close()
    assert doctor("record", "--data", tmp_path) == (True, "sound")
    (tmp_path / "record.sqlite3").write_bytes(b"\xde\xad\xbe\xef" * 5_000)
    ok, detail = doctor("record", "--data", tmp_path)
    assert not ok
    assert "backup" in detail
    (tmp_path / "index").mkdir()
    (tmp_path / "record.sqlite3").write_bytes(b"")
    ok, detail = doctor("record", "--data", tmp_path)
    assert (ok, "missing or empty" in detail) == (False, True)


def test_doctor_refuses_the_weights_that_a_server_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor("encoder weights")[0]
    altered = tmp_path / "bilingual"
    shutil.copytree(sentence.BILINGUAL, altered)
    words = altered / "words.txt"
    words.write_bytes(words.read_bytes()[:-100])
    monkeypatch.setattr(sentence, "BILINGUAL", altered)
    ok, detail = doctor("encoder weights")
    assert not ok
    assert "words.txt" in detail
    # A server with a model of its own has no use for it.
    config = tmp_path / "penchant.toml"
    config.write_text('encoder.model = "/models/e5"')
    assert doctor("encoder weights", "--config", config) == (True, "/models/e5 (configured)")


def test_doctor_looks_where_the_settings_say(tmp_path: Path) -> None:
    data, config = tmp_path / "data", tmp_path / "penchant.toml"
    config.write_text(f"data = '{data}'")
    ok, detail = doctor("data folder", "--config", config)
    assert (ok, f"there is no folder {data}" in detail) == (False, True)
    Record(data).close()
    assert doctor("data folder", "--config", config)[0]
    assert doctor("record", "--config", config) == (True, "sound")
    config.write_text("limits.page_size = 0")
    ok, detail = doctor("settings", "--config", config)
    assert (ok, "limits.page_size" in detail) == (False, True)
    with pytest.raises(StopIteration):  # of what they name nothing can be told
        doctor("record", "--config", config)


def test_doctor_asks_the_server_of_its_settings_unless_another_is_named(tmp_path: Path) -> None:
    config = tmp_path / "penchant.toml"
    config.write_text('listen = "127.0.0.1:2"')
    for arguments, asked in ((["--config", config], "127.0.0.1:2"), (["--config", config, "--server", NOBODY], NOBODY)):
        result = runner.invoke(app, ["doctor", "--json", *map(str, arguments)])
        told = {found["check"]: found["detail"] for found in map(json.loads, result.stdout.splitlines())}
        assert asked in told["server health"]
        assert asked in told["server index"]


def test_doctor_is_not_content_without_a_server(tmp_path: Path) -> None:
    result = runner.invoke(app, ["doctor", "--server", NOBODY, "--data", str(tmp_path), "--json"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    broken = {line.split('"')[3] for line in lines if '"ok": false' in line}
    assert {"server health", "server index"} <= broken
    assert "python" not in broken


def test_doctor_says_where_a_data_folder_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ok, detail = doctor("data folder")
    assert (ok, "penchant-data, which is not there yet" in detail) == (True, True)
    ok, detail = doctor("data folder", "--data", tmp_path / "nope")
    assert (ok, f"there is no folder {tmp_path / 'nope'}" in detail) == (False, True)
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))  # root may write anywhere
    ok, detail = doctor("data folder", "--data", tmp_path)
    assert (ok, f"{tmp_path} can't be written" in detail) == (False, True)


def test_embed_names_the_line_that_has_no_text(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.npy"
    source.write_text('{"text": "a"}\n\n{"txt": "b"}\n')
    result = runner.invoke(app, ["embed", str(source), str(output)])
    assert result.exit_code == 1
    assert "line 3: text: must be a string" in result.stderr
    assert list(tmp_path.iterdir()) == [source]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "penchant", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_nobody_reading_the_output_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        command = [sys.executable, "-m", "penchant", "settings"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""


def test_ctrl_c_exits_130_with_one_line() -> None:
    # It waits for an answer that this prompt never gets.
    with start("forget", "mei", "--server", NOBODY) as process:
        assert process.stderr is not None
        while process.stderr.read(1) != "]":
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert "Traceback" not in said


def test_a_command_that_is_told_to_stop_ends_though_what_it_closes_waits_forever() -> None:
    """As gRPC's channels do where the signal comes while a call is made."""
    program = """
import os, signal, threading
from penchant import cli

def waits(**_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("cleared up", flush=True)
        threading.Event().wait()

cli.app, cli.LONGEST_END = waits, 0.2
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (143, "cleared up\n")
