"""Set-up: the edit table, the table of torch releases, and what setup.sh refuses."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import REPOSITORY


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


build_detectron2 = load_script("build_detectron2")
torch_versions = load_script("torch_versions")


def write_source(root: Path) -> None:
    """A tree that holds just what the edits look for."""
    for edit in build_detectron2.EDITS:
        path = root / edit.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(f"{edit.old}\n" * edit.count)


def test_every_edit_is_applied(tmp_path):
    write_source(tmp_path)
    build_detectron2.apply_edits(tmp_path)
    for edit in build_detectron2.EDITS:
        text = (tmp_path / edit.file).read_text()
        assert text.count(edit.new) >= edit.count, edit
        assert edit.old in edit.new or edit.old not in text, edit


@pytest.mark.parametrize("edit", build_detectron2.EDITS, ids=lambda e: e.file)
def test_an_edit_that_no_longer_matches_fails_loudly(tmp_path, edit):
    write_source(tmp_path)
    path = tmp_path / edit.file
    path.write_text(path.read_text().replace(edit.old, "something else", 1))
    with pytest.raises(build_detectron2.EditError, match=edit.file):
        build_detectron2.apply_edits(tmp_path)


def test_an_edit_of_a_file_that_is_gone_fails_loudly(tmp_path):
    with pytest.raises(build_detectron2.EditError, match="no such file"):
        build_detectron2.apply_edits(tmp_path)


def test_the_installed_detectron2_is_the_edited_one_where_setup_made_it():
    import detectron2

    if not (Path(detectron2.__file__).parent / "_C.py").is_file():
        pytest.skip("another Detectron2 is installed here")
    root = Path(detectron2.__file__).parent.parent
    for edit in build_detectron2.EDITS:
        assert edit.new in (root / edit.file).read_text(), edit
    from detectron2 import _C

    with pytest.raises(AttributeError, match="pure-Python build"):
        _ = _C.box_iou_rotated


@pytest.mark.parametrize(
    ("version", "python", "torch", "torchvision"),
    [
        ("2.11.0", 11, "2.11.0", "0.26.0"),
        ("2.7.1", 13, "2.7.1", "0.22.1"),
        ("2.7", 12, "2.7.1", "0.22.1"),
        ("2.5", 12, "2.5.1", "0.20.1"),
    ],
)
def test_torch_gets_its_torchvision(version, python, torch, torchvision):
    release = torch_versions.choose(version, python)
    assert (release.torch, release.torchvision) == (torch, torchvision)


@pytest.mark.parametrize(
    ("version", "python", "message"),
    [
        ("2.5.1", 13, r"--torch 2\.6\.0, or Python 3\.12"),
        ("1.13.1", 11, "not in the table; with Python 3.11: 2.5.0"),
        ("2.11.0", 10, "use Python 3.11"),
        ("2.11.0", 14, "use Python 3.11"),
    ],
)
def test_pairs_that_do_not_exist_are_refused_with_one_that_does(version, python, message):
    with pytest.raises(ValueError, match=message):
        torch_versions.choose(version, python)


@pytest.mark.parametrize(("driver", "torch"), [(470, None), (535, "2.10.0"), (580, "2.14.1")])
def test_the_newest_torch_for_a_driver(driver, torch):
    release = torch_versions.newest_for(driver, 11)
    assert (release and release.torch) == torch


@pytest.mark.parametrize(
    ("capability", "torch"),
    [((6, 1), "2.7.1"), ((7, 0), "2.7.1"), ((7, 5), "2.14.1"), ((12, 0), "2.14.1"), ((3, 5), None)],
)
def test_the_newest_torch_for_a_gpu(capability, torch):
    release = torch_versions.newest_for(580, 11, capability)
    assert (release and release.torch) == torch


def test_the_report_names_a_torch_for_a_gpu_that_this_one_was_not_compiled_for(monkeypatch):
    monkeypatch.setattr(torch_versions, "nvidia_driver", lambda: 580)
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda index: ("Tesla V100", "RTX 4090")[index],
        "get_device_capability": lambda index: ((7, 0), (8, 9))[index],
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_86", "sm_90"],
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)
    first, *others = torch_versions.report().splitlines()
    assert first.endswith("2 GPU(s): Tesla V100, RTX 4090")
    python = sys.version_info.minor
    assert others == [
        "but this torch was not compiled for the Tesla V100: bash scripts/setup.sh --torch"
        f" {torch_versions.newest_for(580, python, (7, 0)).torch}"
    ]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the set-up scripts and no .venv, so that the real one is left alone."""
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")
    return tmp_path


def run_setup(checkout: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(checkout / "scripts/setup.sh"), *options],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def fake_python(folder: Path, body: str) -> str:
    path = folder / "python-of-the-test"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


OLD = '[ "$1" = -V ] && echo "Python 3.9.1" && exit 0; exit 1'
WITHOUT_VENV = (
    f"""[ "$2" = venv ] && echo "No module named venv" && exit 1; exec {sys.executable} "$@\""""
)


@pytest.mark.parametrize(
    ("options", "python", "message"),
    [
        (["--torch", "1.13"], sys.executable, "torch 1.13 is not in the table"),
        (["--torch"], sys.executable, "--torch needs a version"),
        (["--cuda"], sys.executable, "unknown option --cuda"),
        ([], "no-such-python", "there is no such program"),
        ([], OLD, "is Python 3.9.1; Python 3.11, 3.12 or 3.13 is needed"),
        ([], WITHOUT_VENV, "(No module named venv); on Debian or Ubuntu: apt install python3-venv"),
    ],
)
def test_setup_ends_with_one_line(checkout, options, python, message):
    if " " in python:
        python = fake_python(checkout, python)
    result = run_setup(checkout, *options, PYTHON=python)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_a_network_setup_says_so_and_is_not_done(checkout):
    offline = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    for options in (["--torch", "2.7.1"], []):  # the second time there is a .venv to repair
        result = run_setup(checkout, *options, **offline)
        assert result.returncode == 2
        assert "no network?" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not (checkout / ".venv/setup.stamp").exists()
        assert "installing torch==2.7.1" in result.stdout  # an interruption forgets no choice


@pytest.mark.parametrize("named", [True, False])
def test_a_moved_folder_gets_an_environment_of_its_own(checkout, tmp_path_factory, named):
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    run_setup(checkout, PYTHON=sys.executable, **offline)
    assert f"{checkout}/.venv" in (checkout / ".venv/bin/activate").read_text()
    moved = tmp_path_factory.mktemp("moved") / "project"
    checkout.rename(moved)
    run_setup(moved, **offline, **({"PYTHON": sys.executable} if named else {}))
    assert f"{moved}/.venv" in (moved / ".venv/bin/activate").read_text()


def test_a_second_setup_does_nothing(tmp_path):
    if not (REPOSITORY / ".venv/setup.stamp").is_file():
        pytest.skip("this checkout was not set up with scripts/setup.sh")
    run_setup(REPOSITORY)
    link = tmp_path / "link"
    link.symlink_to(REPOSITORY)
    for place in (REPOSITORY, link):
        result = run_setup(place)
        assert result.returncode == 0
        assert "everything is in place" in result.stdout
