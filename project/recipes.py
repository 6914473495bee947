"""The recipes in ``configs/``, where programs and people look for them."""

import re
from pathlib import Path

RECIPES = Path(__file__).resolve().parent.parent / "configs"  # of a checkout: pip install -e
DEFAULT_RECIPE = RECIPES / "tiny_voc/cascade_mask_rcnn_resnest50_fpn.yaml"


def list_recipes(folder: Path = RECIPES) -> dict[Path, str]:
    """Every recipe -> the first sentence of the comment that it begins with.

    Files that others are made from (``Base-*.yaml``) are none.
    """
    paths = sorted(folder.rglob("*.yaml"))
    return {path: _first_sentence(path) for path in paths if not path.name.startswith("Base-")}


def _first_sentence(path: Path) -> str:
    comment = re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))[0]
    text = " ".join(line.lstrip("# ") for line in comment.splitlines())
    return re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(".;")
