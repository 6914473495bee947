"""The memory that is reported is that of this process."""

import subprocess
import sys

import numpy as np

from project.memory import peak_memory
from tests.helpers import REPOSITORY


def test_a_started_process_does_not_count_the_memory_of_the_one_that_started_it():
    before = peak_memory()
    content = np.ones(600 * 2**20, dtype=np.uint8)
    assert peak_memory() >= before and content.all()
    command = [sys.executable, "-c", "from project.memory import peak_memory; print(peak_memory())"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert 50 * 2**20 < int(result.stdout) < 500 * 2**20
