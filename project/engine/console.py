"""Logging to the console and to the run's ``log.txt``."""

import logging
from pathlib import Path

from detectron2.utils.logger import setup_logger

from project.errors import UserError
from project.files import make_folder

LOGGERS = ("detectron2", "fvcore", "project")


def log_to_console(rank: int = 0) -> None:
    """Show the log of Detectron2 and of this project; of the main process only."""
    for name in LOGGERS:
        setup_logger(
            name=name, abbrev_name={"detectron2": "d2"}.get(name, name), distributed_rank=rank
        )
    # Where training ends with an error, Detectron2 logs its traceback.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_has_no_user_error)


def _has_no_user_error(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))


def log_to_file(output_dir: str, rank: int = 0) -> None:
    """Also append the log to ``output_dir/log.txt`` (``log.txt.rank1``, ... of other processes).

    Raises:
        UserError: nothing can be written there.
    """
    log_to_console(rank)
    folder = Path(output_dir)
    path = folder / ("log.txt" if rank == 0 else f"log.txt.rank{rank}")
    make_folder(folder, "OUTPUT_DIR")
    try:
        path.touch()
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {output_dir!r}: {error.strerror}") from error
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
