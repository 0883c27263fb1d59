"""The house around the code: what is installed, what is packaged, what is generated."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"


def pins(lock: Path) -> dict[str, Version]:
    requirements = [Requirement(line) for line in lock.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in requirements}


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("lock", [RUN, DEV], ids=lambda lock: lock.name)
def test_a_lock_holds_exact_versions_and_nothing_else(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert [line for line in lines[1:] if not re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+", line)] == []
    assert not any(line.startswith(("nvidia-", "cuda-", "triton=")) for line in lines)


@pytest.mark.parametrize("folder", ["examples/node", "tests/browser"])
def test_a_lock_of_node_packages_holds_their_hashes_and_names_no_registry(folder: str) -> None:
    lock = (ROOT / folder / "package-lock.json").read_text()
    assert '"integrity"' in lock
    assert "resolved" not in lock
    assert "registry." not in lock


@pytest.mark.parametrize(
    ("declared", "locks"),
    [
        (PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"], [RUN]),
        (PROJECT["dependency-groups"]["dev"], [RUN, DEV]),
    ],
    ids=["run", "dev"],
)
def test_the_locks_hold_what_the_project_declares(declared: list[str], locks: list[Path]) -> None:
    locked = {name: version for lock in locks for name, version in pins(lock).items()}
    for requirement in map(Requirement, declared):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement.name


def test_this_environment_is_the_locked_one() -> None:
    locked = pins(RUN) | pins(DEV)
    installed = {name: Version(Version(importlib.metadata.version(name)).public) for name in locked}
    assert installed == locked


def test_the_project_allows_no_library_older_than_its_generated_code() -> None:
    """Generated code refuses an older grpcio or protobuf than its generator's when it is imported."""
    declared = {r.name: r.specifier for r in map(Requirement, PROJECT["project"]["dependencies"])}
    services = (ROOT / "server/penchant/v1/admin_service_pb2_grpc.py").read_text()
    grpcio = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", services)
    messages = (ROOT / "server/penchant/v1/signal_pb2.py").read_text()
    protobuf = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+)", messages)
    assert grpcio
    assert protobuf
    assert str(declared["grpcio"]) == f">={grpcio[1]}"
    assert str(declared["protobuf"]) == f">={'.'.join(protobuf.groups())}"


def test_the_wheel_holds_what_an_installed_server_needs(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        held = set(archive.namelist())

    tops = {name.partition("/")[0] for name in held}
    assert tops == {
        "penchant",
        "penchant_pipelines",
        "penchant_finetune",
        "buf",
        f"penchant-{PROJECT['project']['version']}.dist-info",
    }
    tracked = run("git", "ls-files", "server", "pipelines").stdout.splitlines()
    expected = {path.partition("/")[2] for path in tracked if (ROOT / path).exists()}
    assert expected <= held
    assert {"penchant/py.typed", "penchant_pipelines/py.typed"} <= held
    assert {"penchant/demo/items.jsonl", "penchant_pipelines/interests/calibration.jsonl"} <= held
    assert {"penchant/v1/signal_pb2.py", "penchant/v1/signal_pb2.pyi", "buf/validate/validate_pb2.py"} <= held
    assert any(re.match(r"penchant_pipelines/record/migrations/versions/\d+_\w+\.py$", name) for name in held)
    assert any(name.endswith("stopwords/zh.txt") for name in held)
    for name in ("LICENSE", "NOTICE"):
        assert f"penchant-{PROJECT['project']['version']}.dist-info/licenses/{name}" in held


def test_the_licence_is_the_one_declared_and_the_notice_credits_what_is_carried_along() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    notice = (ROOT / "NOTICE").read_text()
    for work in ("all-MiniLM-L6-v2", "CC-CEDICT", "Tatoeba", "multilingual-e5-small", "Protovalidate", "jieba"):
        assert work in notice


def test_every_lint_ignore_has_its_reason() -> None:
    files = [ROOT / path for path in run("git", "ls-files", "*.py").stdout.splitlines()]
    bare = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in files
        if file.exists() and file.parent.name not in ("v1", "validate")  # generated
        for line in file.read_text("utf-8").splitlines()
        if re.search(r"# noqa(: [A-Z0-9, ]+)?$", line)
    ]
    assert bare == []


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """A copy of all that generating code reads and writes; gives its protos' folder."""
    for name in ("proto", "server/penchant/v1", "server/buf"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("scripts/generate.py", "buf.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path / "proto/penchant/v1"


def generate(contract: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "scripts/generate.py", *arguments, cwd=contract.parents[2])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.slow
def test_stale_generated_code_is_found_and_made_anew(contract: Path) -> None:
    assert generate(contract, "--check").returncode == 0

    edit(contract / "signal.proto", "message Signal {", "message Signal {\n  string grown = 900;")
    gone = contract.parents[2] / "server/penchant/v1/gone_pb2.py"
    gone.touch()
    found = generate(contract, "--check")
    assert found.returncode == 1
    for name in ("signal_pb2.py", "signal_pb2.pyi", "contract.binpb", "gone_pb2.py", "Run: make proto"):
        assert name in found.stderr

    assert generate(contract).returncode == 0
    assert not gone.exists()
    assert generate(contract, "--check").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string user_id = 2 ", "string person_id = 2 "),
        ("string user_id = 2 ", "string user_id = 200 "),
        ("string user_id = 2 ", "int64 user_id = 2 "),
    ],
    ids=["name", "number", "type"],
)
def test_the_contract_keeps_its_names_and_numbers(contract: Path, old: str, new: str) -> None:
    code = contract.parents[2] / "server/penchant/v1/signal_pb2.py"
    before = code.read_bytes()
    edit(contract / "signal.proto", old, new)
    refused = generate(contract)
    assert refused.returncode != 0
    assert 'Field "2"' in refused.stdout or 'field "2"' in refused.stdout
    assert code.read_bytes() == before


def test_make_lists_its_targets() -> None:
    listed = set(re.findall(r"^  make (\S+)", run("make").stdout, re.MULTILINE))
    assert {"demo", "serve", "test", "test-fast", "lint", "format", "proto", "lock", "clean"} <= listed


def test_make_says_that_python_is_missing(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    refused = run("make", "demo", "PYTHONS=python0.1", cwd=tmp_path)
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed" in refused.stderr
    assert not (tmp_path / ".venv").exists()
