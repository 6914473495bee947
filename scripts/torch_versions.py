"""Which torch goes with which torchvision, Python and NVIDIA driver.

    python scripts/torch_versions.py choose 2.7.1  -> torch==2.7.1 torchvision==0.22.1, or an error
    python scripts/torch_versions.py report        -> what the installed torch can use here

The table is of the wheels on the package index for Linux. It needs nothing but Python, so that
setup.sh can ask before it downloads gigabytes.
"""

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class TorchRelease:
    """One release of torch, and what it goes with.

    Attributes:
        pythons: lowest and highest minor version of Python 3 that both wheels exist for, among
            those that this project supports (11 to 13).
        cuda: the CUDA version that the wheel brings along.
    """

    torch: str
    torchvision: str
    pythons: tuple[int, int]
    cuda: str


RELEASES = (
    TorchRelease("2.5.0", "0.20.0", (11, 12), "12.4"),
    TorchRelease("2.5.1", "0.20.1", (11, 12), "12.4"),
    TorchRelease("2.6.0", "0.21.0", (11, 13), "12.4"),
    TorchRelease("2.7.0", "0.22.0", (11, 13), "12.6"),
    TorchRelease("2.7.1", "0.22.1", (11, 13), "12.6"),
    TorchRelease("2.8.0", "0.23.0", (11, 13), "12.8"),
    TorchRelease("2.9.0", "0.24.0", (11, 13), "12.8"),
    TorchRelease("2.9.1", "0.24.1", (11, 13), "12.8"),
    TorchRelease("2.10.0", "0.25.0", (11, 13), "12.8"),
    TorchRelease("2.11.0", "0.26.0", (11, 13), "13.0"),
    TorchRelease("2.12.0", "0.27.0", (11, 13), "13.0"),
    TorchRelease("2.12.1", "0.27.1", (11, 13), "13.0"),
    TorchRelease("2.13.0", "0.28.0", (11, 13), "13.0"),
    TorchRelease("2.14.0", "0.29.0", (11, 13), "13.0"),
    TorchRelease("2.14.1", "0.29.2", (11, 13), "13.0"),
)
DEFAULT = "2.11.0"

# Lowest and highest compute capability that wheels of a CUDA version have machine code for, all of
# them (pytorch/pytorch, RELEASE.md, "PyTorch CUDA Support Matrix"; some of 12.8 have 7.0 too).
CAPABILITIES = {
    "12.4": ((5, 0), (9, 0)),
    "12.6": ((5, 0), (9, 0)),
    "12.8": ((7, 5), (12, 0)),
    "13.0": ((7, 5), (12, 0)),
}

# NVIDIA's minimum driver on Linux for any minor version of a CUDA major version.
MINIMUM_DRIVER = {12: 525, 13: 580}


def choose(version: str, python: int) -> TorchRelease:
    """The release ``version`` for Python 3.``python``.

    Raises:
        ValueError: there is no such release in the table, or it has no wheel for that Python.
    """
    fitting = [r for r in RELEASES if r.pythons[0] <= python <= r.pythons[1]]
    if not fitting:
        raise ValueError(f"Python 3.{python} is not supported; use Python 3.11, 3.12 or 3.13")
    # "2.7" stands for its newest patch.
    matching = [r for r in RELEASES if r.torch == version or r.torch.startswith(f"{version}.")]
    if not matching:
        names = ", ".join(release.torch for release in fitting)
        raise ValueError(f"torch {version} is not in the table; with Python 3.{python}: {names}")
    for release in reversed(matching):
        if release in fitting:
            return release
    nearest = min(fitting, key=lambda r: abs(RELEASES.index(r) - RELEASES.index(matching[-1])))
    raise ValueError(
        f"torch {version} has no torchvision for Python 3.{python}; take --torch {nearest.torch},"
        f" or Python 3.{matching[-1].pythons[1]}"
    )


def newest_for(
    driver: int, python: int, capability: tuple[int, int] | None = None
) -> TorchRelease | None:
    """The newest release for a driver (its major version) and a GPU's compute capability."""
    usable = [
        r
        for r in RELEASES
        if driver >= MINIMUM_DRIVER[int(r.cuda.split(".")[0])]
        and r.pythons[0] <= python <= r.pythons[1]
        and (capability is None or CAPABILITIES[r.cuda][0] <= capability <= CAPABILITIES[r.cuda][1])
    ]
    return usable[-1] if usable else None


def nvidia_driver() -> int | None:
    """Major version of the NVIDIA driver, None where there is no NVIDIA GPU."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True).stdout.split()
    return int(answer[0].split(".")[0]) if answer and answer[0][0].isdigit() else None


def report() -> str:
    """One or two lines: the installed torch, the GPUs it can use, and what to do if it cannot."""
    import torch

    python = sys.version_info.minor
    text = f"torch {torch.__version__} on Python 3.{python}: "
    driver = nvidia_driver()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        text += f"{len(names)} GPU(s): {', '.join(names)}"
        return "\n".join([text, *_gpus_without_kernels(driver, python)])
    if driver is None:
        return text + "no NVIDIA GPU here, everything runs on the CPU"
    needed = MINIMUM_DRIVER.get(int((torch.version.cuda or "13").split(".")[0]))
    text += f"a GPU is here but not usable (driver {driver}, this torch needs {needed} or newer)"
    older = newest_for(driver, python)
    if older is None or driver >= needed:
        return text + f"\nupdate the NVIDIA driver to {needed} or newer"
    return text + f"\nupdate the driver, or: bash scripts/setup.sh --torch {older.torch}"


def _gpus_without_kernels(driver: int | None, python: int) -> list[str]:
    """A line for each GPU that torch sees but was not compiled for."""
    import torch

    from project.devices import has_kernels

    lines = []
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if not has_kernels(capability, torch.cuda.get_arch_list()):
            release = newest_for(driver or 0, python, capability)
            instead = f"bash scripts/setup.sh --torch {release.torch}" if release else "use the CPU"
            name = torch.cuda.get_device_name(index)
            lines.append(f"but this torch was not compiled for the {name}: {instead}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    choose_parser = commands.add_parser("choose", help="print the pins of torch and torchvision")
    choose_parser.add_argument("version", nargs="?", default=DEFAULT)
    commands.add_parser("report", help="print what the installed torch can use")
    args = parser.parse_args()
    if args.command == "report":
        print(report())
        return
    try:
        release = choose(args.version, sys.version_info.minor)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"torch=={release.torch} torchvision=={release.torchvision}")


if __name__ == "__main__":
    main()
