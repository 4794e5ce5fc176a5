"""The hello worlds of the Go, TypeScript and Java SDKs, built outside of the checkout.

EVERSPAN_HELLO_BUILD names the folder to build in (default: one in the temporary folder,
kept between runs, so that only the first run downloads and compiles everything).
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

HERE = pathlib.Path(__file__).parent
BUILD = pathlib.Path(
    os.environ.get("EVERSPAN_HELLO_BUILD") or pathlib.Path(tempfile.gettempdir(), "everspan-hello")
)
BUILD_TIMEOUT = 540
RUN_TIMEOUT = 120


def call(command: list[str], folder: pathlib.Path, timeout: int, **environment: str) -> str:
    """Runs a command and gives what it printed; its failure is the test's."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-40:])
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{tail}", pytrace=False)
    return done.stdout


def needs(tool: str) -> None:
    """Skips where a language's tools are not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def test_go(server) -> None:
    """go.temporal.io/sdk."""
    needs("go")
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "hello-go"
    call(["go", "build", "-o", str(program), "."], HERE / "go", BUILD_TIMEOUT)
    said = call([str(program)], BUILD, RUN_TIMEOUT, EVERSPAN_ADDRESS=server.address)
    assert "Hello, Go! Goodbye." in said


def test_typescript(server) -> None:
    """@temporalio/worker and its companions."""
    needs("npm")
    folder = BUILD / "typescript"
    source = HERE / "typescript"
    lock = folder / "package-lock.json"
    if not lock.exists() or lock.read_bytes() != (source / lock.name).read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
    fresh = not folder.exists()
    shutil.copytree(
        source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "lib")
    )
    if fresh or not (folder / "node_modules" / ".package-lock.json").exists():
        call(["npm", "ci", "--no-audit", "--no-fund"], folder, BUILD_TIMEOUT)
    call(["npm", "run", "build"], folder, BUILD_TIMEOUT)
    said = call(["npm", "start"], folder, RUN_TIMEOUT, EVERSPAN_ADDRESS=server.address)
    assert "Hello, TypeScript! Goodbye." in said


def test_java(server) -> None:
    """io.temporal:temporal-sdk."""
    needs("mvn")
    build = f"-Dbuild.dir={BUILD / 'java'}"
    maven = ["mvn", "-q", "-B", build]
    call([*maven, "compile"], HERE / "java", BUILD_TIMEOUT)
    said = call([*maven, "exec:java"], HERE / "java", RUN_TIMEOUT, EVERSPAN_ADDRESS=server.address)
    assert "Hello, Java! Goodbye." in said
