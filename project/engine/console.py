"""Logging to the console and to the run's ``log.txt``."""

import logging
from pathlib import Path

from detectron2.utils.logger import setup_logger

LOGGERS = ("detectron2", "fvcore", "project")


def log_to_console(rank: int = 0) -> None:
    """Show the log of Detectron2 and of this project; of the main process only."""
    for name in LOGGERS:
        setup_logger(
            name=name, abbrev_name={"detectron2": "d2"}.get(name, name), distributed_rank=rank
        )


def log_to_file(output_dir: str, rank: int = 0) -> None:
    """Also append the log to ``output_dir/log.txt`` (``log.txt.rank1``, ... of other processes)."""
    log_to_console(rank)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("log.txt" if rank == 0 else f"log.txt.rank{rank}")
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            logger.removeHandler(handler)
            handler.close()
        handler = logging.FileHandler(path)
        handler.setFormatter(
            logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S")
        )
        logger.addHandler(handler)
