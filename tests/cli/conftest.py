"""The `temporal` command of the field, installed where the hello worlds keep their builds."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
import uuid

import pytest

from command import Cli

VERSION = "v1.5.1"
MODULE = "github.com/temporalio/cli/cmd/temporal"
CACHE = pathlib.Path(
    os.environ.get("EVERSPAN_HELLO_BUILD") or pathlib.Path(tempfile.gettempdir(), "everspan-hello")
)
# It holds a whole server; two cores take their time.
INSTALL_TIMEOUT = 1800


@pytest.fixture(scope="session")
def temporal() -> pathlib.Path:
    """The command: EVERSPAN_CLI names one, otherwise `go install` makes it once."""
    named = os.environ.get("EVERSPAN_CLI")
    if named:
        return pathlib.Path(named)
    folder = CACHE / f"temporal-cli-{VERSION}"
    command = folder / "temporal"
    if command.exists():
        return command
    if shutil.which("go") is None:
        pytest.skip("the CLI is installed with go, which is not there")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["go", "install", f"{MODULE}@{VERSION}"],
        env=os.environ | {"GOBIN": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT,
    )
    if done.returncode != 0:
        pytest.skip(f"the CLI cannot be installed: {done.stdout[-2000:]}")
    return command


@pytest.fixture
def cli(temporal: pathlib.Path, server, tmp_path: pathlib.Path) -> Cli:
    """The command against the tested server."""
    return Cli(temporal, server.address, tmp_path)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A workflow ID, queue or namespace that no other test uses."""
    return f"{request.node.name.replace('_', '-')}-{uuid.uuid4().hex[:10]}"
