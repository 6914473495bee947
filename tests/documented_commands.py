"""The commands that README and docs show."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import REPOSITORY

_PROGRAMS = ("python", "bash", "torchrun", "sbatch", "tensorboard", "find", "pip", "source")


@dataclass(frozen=True)
class Command:
    """A command as it is shown.

    Attributes:
        file: of the documentation.
        text: in one line, without comments.
    """

    file: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def documented_python() -> dict[str, str]:
    """File -> the Python that it shows, all blocks in one."""
    found = {}
    for path in _files():
        blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        if blocks:
            found[path.relative_to(REPOSITORY).as_posix()] = "\n".join(blocks)
    return found


def documented_commands() -> list[Command]:
    """Every command in a ``bash`` block, or between backticks, of README and docs, each once."""
    found: dict[str, Command] = {}
    for path in _files():
        for text in _commands_of(path):
            found.setdefault(text, Command(path.relative_to(REPOSITORY).as_posix(), text))
    return list(found.values())


def _files() -> list[Path]:
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def _commands_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    # A line of prose may break within backticks.
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    commands = []
    for line in lines:
        words = shlex.split(line, comments=True) if line.count('"') % 2 == 0 else []
        if len(words) > 1 and words[0] in _PROGRAMS:
            commands.append(re.sub(r"\s+#.*$", "", re.sub(r"\s+", " ", line)).strip())
    return commands
