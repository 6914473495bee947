"""Importing the package costs nothing, and says what is missing only when it is needed."""

import subprocess
import sys

from tests.helpers import REPOSITORY


def run_python(code: str, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)


def test_importing_the_package_imports_neither_torch_nor_detectron2():
    code = "import project, project.errors, sys; print({'torch', 'detectron2'} & set(sys.modules))"
    assert run_python(code).stdout.strip() == "set()"


def test_public_names_are_reached_lazily():
    import project

    assert callable(project.add_project_config)
    assert "load_weights" in dir(project)
    assert not hasattr(project, "no_such_name")


def test_without_detectron2_one_line_says_how_to_get_it():
    def without_packages(*options: str) -> subprocess.CompletedProcess:
        # -S leaves site-packages out: a Python where nothing is installed.
        command = [sys.executable, "-S", "train_net.py", *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env={})

    result = without_packages("--resume")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "setup.sh" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "--num-gpus" in without_packages("--help").stdout
