"""Kill a training run with signal 9 again and again; each time it must go on from its last save.

python tests/tools/kill_and_resume.py [--kills 100] [--while-writing 40]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from project.checkpoint.reading import newest_checkpoint, read_checkpoint
from tests.helpers import REPOSITORY, SMALL_CONFIG


def program(root: Path, output: Path, *options: str) -> list[str]:
    """The command of a run with a checkpoint every second iteration, of which there are many."""
    return [
        *(sys.executable, "train_net.py", "--config-file", str(SMALL_CONFIG), *options),
        *("MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(root), "OUTPUT_DIR", str(output)),
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "DATASETS.TEST", "()", "SOLVER.IMS_PER_BATCH", "1"),
        *("SOLVER.MAX_ITER", "1000000", "SOLVER.CHECKPOINT_PERIOD", "2", "SEED", "1"),
        *("SOLVER.CHECKPOINT_KEEP.LAST", "2"),
    ]


def newest_iteration(output: Path) -> int:
    """The iteration of the newest whole checkpoint by its name; -1 without one."""
    numbers = [int(p.stem[6:]) for p in output.glob("model_*.pth") if p.stem[6:].isdigit()]
    return max(numbers, default=-1)


def wait_for(condition, process: subprocess.Popen, pause: float = 0.05) -> None:
    """Until ``condition()`` holds; it is an error if the process ends before."""
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            output = "".join(filter(None, process.communicate()))
            raise AssertionError(f"no progress: {output[-2000:]}")
        time.sleep(pause)


def kill_and_resume(root: Path, output: Path, kills: int, while_writing: int) -> dict[str, int]:
    """Start or resume the run, kill it at a random moment after its next save, check; repeat.

    Args:
        while_writing: so many of the kills come when a checkpoint is half written.

    Returns:
        "kills"; "while_writing": those after which a half-written file was left; "iteration": the
        last one saved.
    """
    random = torch.Generator().manual_seed(0)
    writing = torch.zeros(kills, dtype=torch.bool)
    writing[torch.randperm(kills, generator=random)[:while_writing]] = True
    options: tuple[str, ...] = ()
    counts = {"kills": 0, "while_writing": 0, "iteration": -1}
    for waits_for_writing in writing.tolist():
        for leftover in output.glob("*.tmp"):
            leftover.unlink()
        process = subprocess.Popen(
            program(root, output, *options),
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        before = counts["iteration"]
        wait_for(lambda before=before: newest_iteration(output) > before, process)
        time.sleep(float(torch.rand(1, generator=random)))
        if waits_for_writing:
            wait_for(lambda: any(output.glob("model_*.tmp")), process, pause=0.0)
        saved = newest_iteration(output)
        process.kill()
        process.communicate()
        counts["kills"] += 1
        counts["while_writing"] += any(output.glob("model_*.tmp"))
        # What was saved before the kill is there, whole, after it.
        reached = read_checkpoint(newest_checkpoint(str(output)))["iteration"]
        latest = read_checkpoint(str(output / "latest.pth"))["iteration"]
        assert reached >= saved > before, f"iteration {saved} was saved, {reached} is there"
        assert latest <= reached
        counts["iteration"] = reached
        options = ("--resume",)
    return counts


def main() -> None:
    from project.data.synthetic import generate_dataset

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--while-writing", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generate_dataset(Path(folder) / "data", num_train=12, num_test=1, seed=7)
        data, output = Path(folder) / "data", Path(folder) / "run"
        print(kill_and_resume(data, output, args.kills, args.while_writing))


if __name__ == "__main__":
    main()
