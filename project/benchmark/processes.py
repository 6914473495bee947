"""Sides of a benchmark that run in processes of their own."""

import subprocess
import sys
from collections.abc import Sequence

from project.errors import UserError
from project.recipes import RECIPES


def run_apart(benchmark: str, side: str, arguments: Sequence[str]) -> str:
    """Run ``project.benchmark.<benchmark>`` for one side; the last line that it prints.

    Raises:
        UserError: it fails.
    """
    command = [sys.executable, "-m", f"project.benchmark.{benchmark}", side, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=RECIPES.parent)
    if result.returncode:
        raise UserError(f"{benchmark}: {side} failed: {(result.stderr or result.stdout)[-500:]}")
    return result.stdout.splitlines()[-1]
