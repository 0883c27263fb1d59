"""Write what follows from proto/: Python code under server/, and the contract's image proto/contract.binpb.

    make proto          write it
    make check-proto    fail if it is not what proto/ says

The image is the contract as last written. A name or a number that stands in it can't be changed or taken away
any more; both commands refuse that.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
PROTO, SERVER, IMAGE = ROOT / "proto", ROOT / "server", ROOT / "proto/contract.binpb"
PACKAGES = ("penchant/v1", "buf/validate")
TOOLS = Path(sys.executable).parent
INIT = '"""Generated from proto/{package}. Do not edit; `make proto` writes it anew."""\n'


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description="Write what follows from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if anything is stale")
    check = parser.parse_args().check
    if IMAGE.exists():
        run(TOOLS / "buf", "breaking", "--against", IMAGE)
    with TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if check:
            sys.exit(report(stale(fresh)))
        install(fresh)


def generate(target: Path) -> None:
    """Generate everything into a folder."""
    messages = [source for package in PACKAGES for source in sorted((PROTO / package).glob("*.proto"))]
    services = [source for source in messages if source.stem.endswith("_service")]
    protoc = (sys.executable, "-m", "grpc_tools.protoc", "-I", PROTO)
    run(*protoc, f"--python_out={target}", f"--mypy_out=quiet:{target}", *messages)
    run(*protoc, f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services)
    for package in PACKAGES:
        (target / package / "__init__.py").write_text(INIT.format(package=package))
    run(TOOLS / "buf", "build", "--exclude-source-info", "-o", target / IMAGE.name)


def stale(fresh: Path) -> Iterator[Path]:
    """Files that differ, that are missing, and that nothing generates any more."""
    for path, made in pairs(fresh):
        if not path.exists() or path.read_bytes() != made.read_bytes():
            yield path
    for package in PACKAGES:
        made_names = {made.name for made in (fresh / package).iterdir()}
        yield from (p for p in (SERVER / package).iterdir() if p.is_file() and p.name not in made_names)


def report(paths: Iterator[Path]) -> int:
    """Say which files are stale; the exit status."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in paths)
    if not found:
        return 0
    sys.stderr.write("Not what proto/ says: " + ", ".join(found) + "\nRun: make proto\n")
    return 1


def install(fresh: Path) -> None:
    """Replace what is stale."""
    for path in stale(fresh):
        path.unlink(missing_ok=True)
    for path, made in pairs(fresh):
        if not path.exists():
            shutil.copyfile(made, path)


def pairs(fresh: Path) -> Iterator[tuple[Path, Path]]:
    """Each file in the repository with the one just made for it."""
    yield IMAGE, fresh / IMAGE.name
    for package in PACKAGES:
        for made in sorted((fresh / package).iterdir()):
            yield SERVER / package / made.name, made


def run(*command: str | Path) -> None:
    """Run a tool of this environment; protoc finds its plugins beside Python."""
    environment = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode  # noqa: S603 - our own command
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
