"""Every config key of the project, and the one way in which programs find their config."""

import difflib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg

import project.registration  # noqa: F401  (a config names what it registers)
from project.checkpoint.reading import find_weights, newest_checkpoint, read_description
from project.errors import UserError
from project.recipes import DEFAULT_RECIPE
from project.schedule import EPOCH_KEYS
from project.values import value_of

logger = logging.getLogger(__name__)


def add_project_config(cfg: CfgNode) -> None:
    """Add the project's keys, with their defaults, to a Detectron2 config."""
    # ---- the backbone
    cfg.MODEL.TIMM = CfgNode()
    # timm model of build_timm_fpn_backbone; build_resnest50_fpn_backbone does not read it.
    cfg.MODEL.TIMM.NAME = "resnest50d"
    # BN, SyncBN or FrozenBN, in the body. What MODEL.BACKBONE.FREEZE_AT freezes is as in FrozenBN.
    cfg.MODEL.TIMM.NORM = "BN"

    # ---- speed
    # Of convolutions and linear layers at inference, with MODEL.META_ARCHITECTURE ExtendedRCNN:
    # float32, bfloat16, float16, or "auto": bfloat16 where the machine computes with it.
    cfg.MODEL.INFERENCE_DTYPE = "auto"
    # At inference on a GPU, start body and FPN, RPN, stages and mask heads as one CUDA graph each
    # where a batch has the size of the one before: for videos, or pictures of one size. Others take
    # longer with it.
    cfg.MODEL.CUDA_GRAPHS = False

    # ---- the original's computation; the default of each key is Detectron2's (docs/parity.md)
    # Clamp the deltas dw and dh from above only ("upper") or on "both" sides, in RPN and cascade.
    cfg.MODEL.DELTA_CLAMP = "upper"
    # ExtendedRPN: MODEL.RPN.BOUNDARY_THRESH 0 leaves out anchors that leave the picture. The best
    # anchors of an object are positive from this IoU on; they are matched to that object (True) or
    # to the one that they overlap most. Losses are divided by the "batch_size" that was asked for
    # or by the "sampled" anchors.
    cfg.MODEL.RPN.LOW_QUALITY_MIN_IOU = 0.0
    cfg.MODEL.RPN.LOW_QUALITY_REASSIGN = False
    cfg.MODEL.RPN.LOSS_NORMALIZER = "batch_size"
    # ExtendedCascadeROIHeads: weights of the stages' losses; whether each stage samples RoIs anew;
    # average the stages' "probs" or "logits"; divide the gradients into the features by the number
    # of stages (goes with equal weights).
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS = [1.0, 1.0, 1.0]
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE = False
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.SCORE_FUSION = "probs"
    cfg.MODEL.ROI_BOX_CASCADE_HEAD.AVERAGE_GRADIENT = True
    # One mask head, or one for each stage.
    cfg.MODEL.ROI_MASK_HEAD.NUM_HEADS = 1
    # What is as probable belongs to a mask, at inference. Where masks have an IoU of J with the
    # objects, J / (1 + J) gives the highest (docs/accuracy.md).
    cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST = 0.5
    # Resize pictures with "pillow" (antialiased) or "opencv" (not).
    cfg.INPUT.RESIZE_BACKEND = "pillow"
    # Decode JPEG files at 1/2, 1/4 or 1/8 of their size where resizing takes as much away.
    cfg.INPUT.REDUCED_DECODING = False

    # ---- augmentation of small data sets (docs/data.md); INPUT.CROP is Detectron2's
    # Brightness, contrast and saturation times 1 - x to 1 + x, hue turned by -x to x circles.
    cfg.INPUT.COLOR_JITTER = CfgNode()
    cfg.INPUT.COLOR_JITTER.ENABLED = False
    cfg.INPUT.COLOR_JITTER.BRIGHTNESS = 0.4
    cfg.INPUT.COLOR_JITTER.CONTRAST = 0.4
    cfg.INPUT.COLOR_JITTER.SATURATION = 0.4
    cfg.INPUT.COLOR_JITTER.HUE = 0.05
    # Large-scale jitter, instead of MIN_SIZE_TRAIN and MAX_SIZE_TRAIN: fitted into a square of SIZE
    # pixels, times a scale, cropped to the square.
    cfg.INPUT.LSJ = CfgNode()
    cfg.INPUT.LSJ.ENABLED = False
    cfg.INPUT.LSJ.SIZE = 1024
    cfg.INPUT.LSJ.MIN_SCALE = 0.1
    cfg.INPUT.LSJ.MAX_SCALE = 2.0
    # How often objects of another picture are pasted in; needs MODEL.MASK_ON and bit-masks.
    cfg.INPUT.COPY_PASTE = CfgNode()
    cfg.INPUT.COPY_PASTE.PROBABILITY = 0.0

    # ---- weights
    # Take from MODEL.WEIGHTS what fits, where it does not fill all that it should: fine-tuning a
    # detector on other classes, say. What was left is always printed.
    cfg.MODEL.WEIGHTS_ALLOW_PARTIAL = False

    # ---- data sets
    # Folder of the "tiny PASCAL VOC" layout; tiny_voc_* and custom_* are registered from it.
    cfg.DATASETS.ROOT = "data"
    # Any other COCO-format data, as custom_train and custom_test; relative to DATASETS.ROOT.
    cfg.DATASETS.TRAIN_JSON = ""
    cfg.DATASETS.TRAIN_IMAGES = ""
    cfg.DATASETS.TEST_JSON = ""
    cfg.DATASETS.TEST_IMAGES = ""
    # Leave out records with errors (scripts/check_dataset.py), and list them, instead of refusing.
    cfg.DATASETS.SKIP_BAD = False
    # The set that --format-only exports; "" stands for the one in DATASETS.TEST.
    cfg.DATASETS.SUBMISSION = ""

    # ---- training
    # In epochs; where one is given (not 0, not empty), it overrules the key in iterations:
    # MAX_ITER, STEPS, CHECKPOINT_PERIOD and TEST.EVAL_PERIOD.
    cfg.SOLVER.MAX_EPOCH = 0
    cfg.SOLVER.STEP_EPOCHS = ()
    cfg.SOLVER.CHECKPOINT_EPOCHS = 0
    cfg.TEST.EVAL_EPOCHS = 0
    # Take a batch in so many parts, one after the other: less memory, the same step but for
    # BatchNorm, and for losses where the parts have unequal numbers of samples (a mean of means).
    cfg.SOLVER.ACCUMULATE = 1
    # Divide losses by the mean count of samples of all processes; else each process divides by its
    # own, as mmdetection and Detectron2 do. On: 2 processes x 1 picture are 1 x 2, BN apart.
    cfg.SOLVER.SYNC_LOSS_NORMALIZER = False
    # Checkpoints that stay: so many of the newest (0: all), so many of those with the best
    # TEST.BEST_METRIC, and those after every so many iterations (0: none). best.pth is apart.
    cfg.SOLVER.CHECKPOINT_KEEP = CfgNode()
    cfg.SOLVER.CHECKPOINT_KEEP.LAST = 3
    cfg.SOLVER.CHECKPOINT_KEEP.BEST = 0
    cfg.SOLVER.CHECKPOINT_KEEP.EVERY = 0
    # Stop at the operation whose gradient is NaN, and say where it was called. Slow.
    cfg.SOLVER.DETECT_ANOMALY = False
    # Evaluate and keep a moving average of the weights, whose decay rises to this. A checkpoint's
    # "model" is the average; what trains on is in its "trainer".
    cfg.MODEL.EMA = CfgNode()
    cfg.MODEL.EMA.ENABLED = False
    cfg.MODEL.EMA.DECAY = 0.999
    # With SOLVER.AMP.ENABLED: bfloat16, float16 (with a gradient scaler), float32, or "auto":
    # bfloat16 where the machine computes with it, else float16 on a GPU and float32 on a CPU.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # best.pth is the model with the largest value of this metric on the first test set; training
    # stops after so many evaluations without a better one (0: never).
    cfg.TEST.BEST_METRIC = "segm/AP"
    cfg.TEST.EARLY_STOP_PATIENCE = 0
    # In training, every evaluation shows so many pictures of the first test set on TensorBoard,
    # predictions beside ground truth; 0 for none.
    cfg.TEST.PANEL_IMAGES = 4

    # ---- test-time augmentation, with TEST.AUG.ENABLED: boxes of all pictures, masks averaged
    # Short sides, as parts of INPUT.MIN_SIZE_TEST, each with the part of INPUT.MAX_SIZE_TEST; ()
    # for Detectron2's keys in pixels, TEST.AUG.MIN_SIZES and MAX_SIZE. TEST.AUG.FLIP doubles them.
    cfg.TEST.AUG.SCALES = (0.75, 1.0, 1.25)

    # ---- the console
    # Seconds after which a progress line is printed, even where fewer than 20 iterations are done.
    cfg.LOG_PERIOD_SECONDS = 8.0


def get_project_cfg() -> CfgNode:
    """Detectron2's default config with the project's keys."""
    cfg = get_cfg()
    add_project_config(cfg)
    return cfg


def load_config(
    config_file: str = "",
    opts: Sequence[str] = (),
    *,
    default_config: str | Path = DEFAULT_RECIPE,
    weights: str = "",
    resume: bool = False,
) -> CfgNode:
    """The config of a program, from the first of these that there is, then ``opts`` on top:

    1. ``config_file``;
    2. the config stored in the checkpoint, where weights are given or a run is resumed;
    3. ``config.yaml`` beside that checkpoint;
    4. ``default_config``.

    Which one it was is logged.

    Args:
        config_file: path of a YAML file, "" for none.
        opts: ``KEY VALUE KEY VALUE ...``.
        default_config: the recipe where nothing else is said: weights of other projects, say.
            Relative weights are looked up in its ``OUTPUT_DIR`` too, unless ``opts`` name one.
        weights: the checkpoint; "" stands for ``MODEL.WEIGHTS`` in ``opts``.
        resume: the checkpoint is the newest one in the output directory.

    Raises:
        UserError: a file is missing or no YAML, or a key or value is wrong.
    """
    given = parse_opts(opts)
    if weights:
        given["MODEL.WEIGHTS"] = weights
    cfg = get_project_cfg()
    if config_file:
        _merge_file(cfg, config_file)
        source = config_file
    else:
        fallback = get_project_cfg()
        _merge_file(fallback, str(default_config))
        output_dir = given.get("OUTPUT_DIR", fallback.OUTPUT_DIR)
        checkpoint = newest_checkpoint(output_dir) if resume else given.get("MODEL.WEIGHTS", "")
        source = _merge_config_of_weights(cfg, checkpoint, output_dir)
        if source is None:
            cfg, source = fallback, str(default_config)
    _merge_opts(cfg, given)
    logger.info(f"Config: {source}" + (f", then {' '.join(opts)}" if opts else ""))
    return cfg


def parse_opts(opts: Sequence[str]) -> dict[str, str]:
    """``KEY VALUE ...`` of a command line as a dictionary.

    Raises:
        UserError: a key has no value, or an option stands after them.
    """
    late = [word for word in opts[::2] if word.startswith("--")]
    if late:
        raise UserError(f"{late[0]} must stand before the KEY VALUE pairs")
    if len(opts) % 2:
        raise UserError(f"KEY VALUE pairs: {opts[-1]!r} has no value")
    return dict(zip(opts[::2], opts[1::2], strict=True))


def _merge_config_of_weights(cfg: CfgNode, weights: str, output_dir: str) -> str | None:
    """Merge what a checkpoint says about its config; the place it was found, or None."""
    if not weights or "://" in weights:
        return None
    path = find_weights(weights, output_dir)
    stored = read_description(path).get("config")
    beside = Path(path).with_name("config.yaml")
    if isinstance(stored, str):
        source = f"stored in {path}"
        _merge_yaml(cfg, stored, source=f"the config {source}")
    elif beside.is_file():
        source = str(beside)
        _merge_file(cfg, source)
    else:
        return None
    # The device belongs to the machine that trained, not to the recipe.
    cfg.MODEL.DEVICE = get_cfg().MODEL.DEVICE
    if Path(path).with_name("run.json").is_file():
        cfg.OUTPUT_DIR = str(Path(path).parent)  # the run may have been moved
    return source


def _merge_file(cfg: CfgNode, path: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"--config-file: there is no file {path!r}")
    try:
        # Detectron2's default would build any Python object that a YAML tag names.
        loaded = cfg.load_yaml_with_base(path, allow_unsafe=False)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a plain YAML file: {_one_line(error)}") from error
    except OSError as error:
        raise UserError(f"{path}: {_one_line(error)}") from error
    except RecursionError as error:
        raise UserError(f"{path}: _BASE_ leads back to the file itself") from error
    except (TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{path}, or its _BASE_, is no YAML file of config keys in sections"
        ) from error
    _merge(cfg, loaded, path)


def _merge_yaml(cfg: CfgNode, text: str, source: str) -> None:
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not plain YAML: {_one_line(error)}") from error
    _merge(cfg, loaded, source)


def _merge(cfg: CfgNode, loaded: dict, source: str) -> None:
    if not isinstance(loaded, dict):
        raise UserError(f"{source} holds no config keys")
    try:
        cfg.merge_from_other_cfg(CfgNode(loaded))
    except (KeyError, ValueError, AssertionError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: {_one_line(error)}{_similar_key(cfg, error)}") from error


def _merge_opts(cfg: CfgNode, given: dict[str, str]) -> None:
    for epoch_key, iteration_key in EPOCH_KEYS.items():
        if iteration_key in given and epoch_key not in given:
            # Whoever names iterations means them, whatever a file says in epochs.
            given = {epoch_key: "()" if epoch_key == "SOLVER.STEP_EPOCHS" else "0", **given}
    for key, value in given.items():
        if key not in _flat_keys(cfg):
            raise UserError(f"there is no config key {key}{_similar_key(cfg, key)}")
        try:
            # A threshold of 0, say: yacs takes no whole number for a float.
            if isinstance(value_of(cfg, key), float) and re.fullmatch(r"[+-]?\d+", value):
                value = f"{value}.0"
            cfg.merge_from_list([key, value])
        except (ValueError, AssertionError, TypeError) as error:
            raise UserError(f"{key} {value}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())


def _similar_key(cfg: CfgNode, wrong: object) -> str:
    """ "; did you mean ..." for an unknown key, which is the last word of Detectron2's message."""
    keys = list(_flat_keys(cfg))
    text = _one_line(wrong) if isinstance(wrong, Exception) else str(wrong)
    word = text.split()[-1].strip("'\"")
    if word in keys:
        return ""
    similar = difflib.get_close_matches(word, keys, n=1)
    return f"; did you mean {similar[0]}?" if similar else ""


def _flat_keys(cfg: CfgNode, prefix: str = ""):
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _flat_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
