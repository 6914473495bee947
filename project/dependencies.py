"""What the project cannot do without, and how to get it."""

from importlib.util import find_spec

from project.errors import MissingDependencyError


def require_detectron2() -> None:
    """Raise :class:`MissingDependencyError` with the way to install it if Detectron2 is missing."""
    for package in ("torch", "detectron2"):
        require_package(package)


def require_package(package: str) -> None:
    """Raise :class:`MissingDependencyError` with the way to install ``package`` if need be."""
    if find_spec(package) is None:
        raise MissingDependencyError(
            f"the Python package {package!r} is not installed here; run `bash scripts/setup.sh` in"
            " the project's folder and use .venv/bin/python (other ways: docs/install.md)"
        )
