"""Calls of the `temporal` command."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from dataclasses import dataclass
from typing import Any

CALL_TIMEOUT = 60


@dataclass
class Cli:
    """Calls of the command against one server."""

    command: pathlib.Path
    address: str
    home: pathlib.Path

    def run(self, *words: str, code: int = 0) -> str:
        """Runs a command and gives what it printed (with its errors, if it is to fail)."""
        done = subprocess.run(
            [str(self.command), *words, "--address", self.address, "--color", "never"],
            # No configuration of whoever runs the tests.
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=CALL_TIMEOUT,
        )
        told = f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, told
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *words: str) -> Any:
        """Runs a command and reads its JSON."""
        text = self.run(*words, "--output", "json")
        return json.loads(text) if text.strip() else None
