"""Pin every package the project needs: pyproject.toml in, requirements.lock and requirements-dev.lock out.

    make lock

pip resolves without installing anything. Pins name versions only: where packages come from is pip's own
configuration, and builds of torch differ by platform, so neither addresses nor hashes are written down.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
RUN, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
HEADER = "# {what}. Written by `make lock` from pyproject.toml.\n"
HELD = {"torch==2.13.0": "the release that the committed measurements were made with"}
"""Versions that are not simply the newest, each with its reason. To move one, change it here."""
ACCELERATOR = re.compile(r"nvidia-|cuda-|triton$")
"""torch's own dependencies on some platforms; pip finds the ones that fit."""


def main() -> None:
    """Resolve the run-time packages, then the development packages on top of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = resolve([*project["project"]["dependencies"], *project["build-system"]["requires"], *HELD])
    write(RUN, "What running Penchant needs, and the backend that installs it", run)
    both = resolve([*pins(run), *project["dependency-groups"]["dev"]])
    write(DEV, "What developing adds to requirements.lock", {n: v for n, v in both.items() if n not in run})


def resolve(requirements: list[str]) -> dict[str, str]:
    """Versions by name that satisfy the requirements and all that they need, newest first."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", report, *requirements], check=True)  # noqa: S603 - our own command
        chosen = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    versions = {re.sub(r"[-_.]+", "-", package["name"]).lower(): package["version"] for package in chosen}
    return {
        name: version.partition("+")[0] for name, version in sorted(versions.items()) if not ACCELERATOR.match(name)
    }


def pins(versions: dict[str, str]) -> list[str]:
    """Exact requirements, one a package."""
    return [f"{name}=={version}" for name, version in versions.items()]


def write(path: Path, what: str, versions: dict[str, str]) -> None:
    """Replace a lock file."""
    path.write_text(HEADER.format(what=what) + "".join(f"{pin}\n" for pin in pins(versions)))


if __name__ == "__main__":
    main()
