"""Build a pure-Python wheel of Detectron2 0.6 that works with today's torch, numpy and Pillow.

    python scripts/build_detectron2.py FOLDER

downloads a source archive of the release (by its hash, see detectron2-sdist.txt), applies the edits
of the table below, and leaves the wheel in FOLDER. What needs Detectron2's C++ extension (rotated
boxes, its own deformable convolutions) is not in it; RoIAlign and NMS are torchvision's.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

SDIST = Path(__file__).with_name("detectron2-sdist.txt")
VERSION = "0.6+pure"  # a local version: nobody should take it for the compiled release


class BuildError(Exception):
    """The wheel cannot be built; the message is one line."""


class EditError(BuildError):
    """An edit does not match the source."""


@dataclass(frozen=True)
class Edit:
    """Replace ``old`` by ``new`` in ``file``, where it stands exactly ``count`` times."""

    file: str
    old: str
    new: str
    why: str
    count: int = 1


EDITS = (
    Edit(
        "detectron2/data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "Pillow 10 dropped the alias",
    ),
    Edit(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt",
        "from faster_coco_eval import COCOeval_faster as COCOeval_opt",
        "Detectron2's fast evaluation is in its C++ extension",
    ),
    Edit(
        "detectron2/data/build.py",
        "dtype=np.int)",
        "dtype=int)",
        "numpy 1.24 dropped the alias",
    ),
    Edit(
        "detectron2/data/build.py",
        'if not x.get("iscrowd", 0)], dtype=np.int\n',
        'if not x.get("iscrowd", 0)], dtype=int\n',
        "numpy 1.24 dropped the alias",
    ),
    Edit(
        "detectron2/evaluation/sem_seg_evaluation.py",
        "dtype=np.int)",
        "dtype=int)",
        "numpy 1.24 dropped the alias",
        count=2,
    ),
    Edit(
        "detectron2/evaluation/sem_seg_evaluation.py",
        "np.float)",
        "float)",
        "numpy 1.24 dropped the alias",
        count=5,
    ),
    Edit(
        "detectron2/data/common.py",
        "self._rng.sample(self._fallback_candidates, k=1)",
        "self._rng.sample(sorted(self._fallback_candidates), k=1)",
        "Python 3.11 samples from sequences only",
    ),
    Edit(
        "detectron2/engine/hooks.py",
        "torch.optim.lr_scheduler._LRScheduler",
        "torch.optim.lr_scheduler.LRScheduler",
        "torch's own schedulers are no _LRScheduler any more: their state was silently not saved",
        count=2,
    ),
    Edit(
        "detectron2/model_zoo/model_zoo.py",
        "import pkg_resources\n",
        "from importlib.resources import files\n",
        "setuptools 82 dropped pkg_resources",
    ),
    Edit(
        "detectron2/model_zoo/model_zoo.py",
        """    cfg_file = pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )
""",
        """    cfg_file = str(files("detectron2.model_zoo").joinpath("configs", config_path))
""",
        "setuptools 82 dropped pkg_resources",
    ),
    Edit(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        """try:
    from .api import *
except ImportError:  # caffe2 is not a part of torch any more
    pass
""",
        "caffe2 is gone; TracingAdapter does not need it",
    ),
    Edit(
        "detectron2/checkpoint/detection_checkpoint.py",
        "data = torch.load(f)",
        "data = torch.load(f, weights_only=True)",
        "a checkpoint must not run code",
    ),
    Edit(
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        "torch warns about the missing argument",
    ),
    Edit(
        "detectron2/data/detection_utils.py",
        "torch.stack([torch.from_numpy(np.ascontiguousarray(x)) for x in masks])",
        "torch.stack([torch.from_numpy(np.array(x)) for x in masks])",
        "torch warns about arrays that are not writable",
    ),
    Edit(
        "detectron2/engine/train_loop.py",
        "def __init__(self, model, data_loader, optimizer, grad_scaler=None):",
        "def __init__(\n"
        "        self, model, data_loader, optimizer, grad_scaler=None, precision=torch.float16\n"
        "    ):",
        "bfloat16, as on Detectron2's main branch",
    ),
    Edit(
        "detectron2/engine/train_loop.py",
        """            from torch.cuda.amp import GradScaler

            grad_scaler = GradScaler()
        self.grad_scaler = grad_scaler
""",
        """            from torch.amp import GradScaler

            grad_scaler = GradScaler(next(model.parameters()).device.type)
        self.grad_scaler = grad_scaler
        self.precision = precision
""",
        "torch.cuda.amp is deprecated, and CPUs have mixed precision too",
    ),
    Edit(
        "detectron2/engine/train_loop.py",
        '        assert torch.cuda.is_available(), "[AMPTrainer] CUDA is required for AMP '
        """training!"
        from torch.cuda.amp import autocast
""",
        """        from torch.amp import autocast
""",
        "torch.cuda.amp is deprecated, and CPUs have mixed precision too",
    ),
    Edit(
        "detectron2/engine/train_loop.py",
        "        with autocast():\n",
        "        device_type = next(self.model.parameters()).device.type\n"
        "        with autocast(device_type, dtype=self.precision):\n",
        "torch.cuda.amp is deprecated, and CPUs have mixed precision too",
    ),
)

# Stands in for the C++ extension, so that what imports it need not be edited.
MISSING_EXTENSION = '''"""Stands in for Detectron2's C++ extension, which this build leaves out."""


def has_cuda():
    return False


def get_compiler_version():
    return "none (pure-Python build)"


def get_cuda_version():
    return "none (pure-Python build)"


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name}: this is a pure-Python build of Detectron2 without its C++ operators"
        " (rotated boxes, Detectron2's own deformable convolutions)"
    )
'''

PYPROJECT = f"""[build-system]
requires = ["setuptools", "wheel"]
build-backend = "setuptools.build_meta"

[project]
name = "detectron2"
version = "{VERSION}"
description = "Detectron2 0.6, pure Python, edited for today's torch, numpy and Pillow"
readme = {{ file = "EDITS.md", content-type = "text/markdown" }}
license = {{ text = "Apache-2.0" }}
requires-python = ">=3.11"
dependencies = [
    "torch", "torchvision", "numpy", "Pillow", "matplotlib", "pycocotools", "faster-coco-eval",
    "termcolor", "yacs", "tabulate", "cloudpickle", "tqdm", "tensorboard", "fvcore", "iopath",
    "omegaconf", "hydra-core",
]

[tool.setuptools]
license-files = ["LICENSE"]

[tool.setuptools.packages.find]
include = ["detectron2*"]

[tool.setuptools.package-data]
"detectron2.model_zoo" = ["configs/**/*"]
"""

# What v0.6's own setup.py installs under detectron2.projects.
PROJECTS = {
    "point_rend": "projects/PointRend/point_rend",
    "deeplab": "projects/DeepLab/deeplab",
    "panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}


def apply_edits(source: Path, edits: tuple[Edit, ...] = EDITS) -> None:
    """Apply ``edits`` to the tree ``source``.

    Raises:
        EditError: a file is missing, or does not hold the old text as often as it should.
    """
    for edit in edits:
        path = source / edit.file
        if not path.is_file():
            raise EditError(f"{edit.file}: no such file in the source archive")
        text = path.read_text(encoding="utf-8")
        found = text.count(edit.old)
        if found != edit.count:
            raise EditError(
                f"{edit.file}: this stands there {found} times instead of {edit.count}, so it was"
                f" not edited: {edit.old.strip()!r}"
            )
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def describe_edits(edits: tuple[Edit, ...] = EDITS) -> str:
    """The edits as a table, which the wheel carries as its description."""
    rows = "\n".join(f"| {edit.file} | {edit.why} |" for edit in edits)
    return (
        "Detectron2 0.6 (Apache-2.0), built without its C++ extension and with these edits:\n\n"
        f"| file | why |\n|---|---|\n{rows}\n| detectron2/_C.py | new: says what is missing |\n"
    )


def pip(*arguments: str) -> None:
    """Run pip quietly.

    Raises:
        BuildError: it failed; pip's own words are on stderr then.
    """
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-build-isolation"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 0:
        return
    sys.stderr.write(result.stdout + result.stderr)
    if "HASHES" in result.stderr:
        raise BuildError(
            f"the downloaded archive has another hash than {SDIST.name} says: it is not the release"
            " that the edits were written for"
        )
    raise BuildError(f"pip {arguments[0]} failed (no network?)")


def download(folder: Path) -> Path:
    """Fetch the source archive into ``folder``, checked against its hash; returns the file."""
    source = ("--no-binary", ":all:", "--require-hashes", "-r", str(SDIST))
    pip("download", "--no-deps", *source, "-d", str(folder))
    (archive,) = folder.glob("*.tar.gz")
    return archive


def build(archive: Path, output: Path, work: Path) -> Path:
    """Unpack, edit and build; returns the wheel in ``output``."""
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    (source,) = (path for path in work.iterdir() if (path / "detectron2").is_dir())
    apply_edits(source)
    (source / "detectron2/_C.py").write_text(MISSING_EXTENSION)
    for name, folder in PROJECTS.items():
        shutil.copytree(source / folder, source / "detectron2/projects" / name)
    for leftover in ("setup.py", "setup.cfg"):
        (source / leftover).unlink()
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "EDITS.md").write_text(describe_edits())
    pip("wheel", "--no-deps", "--wheel-dir", str(output), str(source))
    (wheel,) = output.glob("detectron2-*.whl")
    return wheel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to put the wheel")
    output = parser.parse_args().folder
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("detectron2-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        try:
            print(build(download(work), output, work))
        except BuildError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
