"""What ``train_net.py`` is to do."""

from dataclasses import dataclass

from project.errors import UserError


@dataclass(frozen=True)
class Job:
    """What to do with a config.

    Attributes:
        eval_only: evaluate ``MODEL.WEIGHTS`` instead of training.
        submission: path of the submission file to write instead of evaluating, "" for none.
        resume: go on from the newest checkpoint of ``OUTPUT_DIR``.
        overwrite: replace the run in ``OUTPUT_DIR``, or the submission file.
        dry_run: stop after a few iterations of training, and leave nothing behind.
    """

    eval_only: bool = False
    submission: str = ""
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    @property
    def trains(self) -> bool:
        """Whether it leaves a run in ``OUTPUT_DIR``."""
        return not (self.eval_only or self.dry_run)

    def __post_init__(self):
        if self.submission and not self.eval_only:
            raise UserError("--format-only needs --eval-only")
        if self.resume and (self.eval_only or self.overwrite):
            raise UserError("--resume goes with neither --eval-only nor --overwrite")
        if self.dry_run and (self.eval_only or self.resume):
            raise UserError("--dry-run goes with neither --eval-only nor --resume")
