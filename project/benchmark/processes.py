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
    command = ["-m", f"project.benchmark.{benchmark}", side, *arguments]
    return run_command(f"{benchmark}: {side}", command).splitlines()[-1]


def run_command(what: str, arguments: Sequence[str]) -> str:
    """Run Python in the root of the checkout; what it prints.

    Args:
        what: it is, for the error's message.

    Raises:
        UserError: it fails.
    """
    command = [sys.executable, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=RECIPES.parent)
    if result.returncode:
        raise UserError(f"{what} failed: {(result.stderr or result.stdout)[-500:]}")
    return result.stdout
