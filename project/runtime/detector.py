"""An exported model, run by onnxruntime."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from project.data.categories import Categories
from project.errors import UserError, reason_of
from project.runtime.detections import Detections
from project.runtime.lazy_masks import LazyMasks
from project.runtime.pictures import rgb_array

# Of what a file takes, gives and says about itself; a runtime refuses another one.
FORMAT = "cascade-mask-rcnn/2"
IMAGE, SCORE_THRESHOLD, PASTE_MASKS = "image", "score_threshold", "paste_masks"
PRECISION = "precision"  # in the metadata: float32, float16 or int8
# Masks as pixels, (N, H, W), are for other programs; here they are pasted when someone looks.
MASK_PROBABILITIES, MASKS = "mask_probabilities", "masks"
OUTPUTS = ("boxes", "scores", "category_ids", MASK_PROBABILITIES)


class OnnxDetector:
    """A detector in an ONNX file that ``scripts/export_model.py`` wrote.

    Args:
        path: of the file.
        score_threshold: detections below are left out; None for the one that is in the file.
        mask_threshold: what is as probable belongs to a mask; likewise.
        threads: to compute with; None for one for each core.
        providers: onnxruntime's execution providers, the preferred one first: names, or pairs of a
            name and its options.

    Attributes:
        categories: of the model.
        metadata: what the file says about itself; "config" is its recipe, as YAML.

    Raises:
        UserError: there is no such file, it is damaged, or no such detector; a threshold is no
            probability; a provider is not there.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        score_threshold: float | None = None,
        mask_threshold: float | None = None,
        threads: int | None = None,
        providers: Sequence[str | tuple[str, dict]] = ("CPUExecutionProvider",),
    ):
        wanted = _names_of(providers)
        self._session = _open(Path(path), threads, providers)
        if wanted[0] not in self._session.get_providers():
            # onnxruntime goes on with the next one.
            raise UserError(
                f"onnxruntime cannot use {wanted[0]} here: its libraries, CUDA's say, are missing"
                " or too old"
            )
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        if self.metadata.get("format") != FORMAT:
            raise UserError(
                f"{path} was not written by this version of scripts/export_model.py (its format is"
                f" {self.metadata.get('format')!r}, not {FORMAT!r})"
            )
        self.categories = Categories.from_mapping(json.loads(self.metadata["categories"]))
        if score_threshold is None:
            score_threshold = float(self.metadata["score_threshold"])
        if not 0 <= score_threshold <= 1:
            raise UserError(f"a score threshold of {score_threshold}: choose one from 0 to 1")
        self.score_threshold = score_threshold
        if mask_threshold is None:
            mask_threshold = float(self.metadata["mask_threshold"])
        if not 0 < mask_threshold < 1:
            raise UserError(f"a mask threshold of {mask_threshold}: choose one between 0 and 1")
        self.mask_threshold = mask_threshold
        self._class_names = self.categories.to_mapping()
        names = {output.name for output in self._session.get_outputs()}
        self._outputs = [name for name in OUTPUTS if name in names]

    def __call__(self, picture: np.ndarray) -> Detections:
        """The objects of one picture.

        Args:
            picture: see :func:`project.runtime.pictures.rgb_array`.

        Raises:
            UserError: it is no such picture, or too narrow for the model.
        """
        image = np.ascontiguousarray(rgb_array(picture))
        threshold = np.array(self.score_threshold, dtype=np.float32)
        feed = {IMAGE: image, SCORE_THRESHOLD: threshold}
        if MASK_PROBABILITIES in self._outputs:
            feed[PASTE_MASKS] = np.array(False)
        values = self._run(feed)
        outputs = dict(zip(self._outputs, values, strict=True))
        boxes, scores, category_ids = (outputs[name] for name in OUTPUTS[:3])
        masks = None
        if MASK_PROBABILITIES in outputs:
            probabilities = outputs[MASK_PROBABILITIES]
            masks = LazyMasks(probabilities, boxes, image.shape[:2], self.mask_threshold)
        return Detections(
            boxes,
            scores,
            category_ids,
            tuple(self._class_names[category_id] for category_id in category_ids.tolist()),
            masks,
            image.shape[:2],
        )

    def _run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return self._session.run(self._outputs, feed)
        # onnxruntime's own exceptions have no common class but this one.
        except Exception as error:
            height, width = feed[IMAGE].shape[:2]
            raise UserError(
                f"the model fails on a picture of {width} x {height} pixels ({reason_of(error)})"
            ) from error

    def predict(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        """The objects of each picture, found in one after the other."""
        return [self(picture) for picture in pictures]


def load(path: str | os.PathLike, **options) -> OnnxDetector:
    """The detector in an ONNX file; ``options`` are those of :class:`OnnxDetector`."""
    return OnnxDetector(path, **options)


def _names_of(providers: Sequence[str | tuple[str, dict]]) -> list[str]:
    """Of execution providers that this onnxruntime has."""
    if isinstance(providers, str):
        raise UserError(f"providers: give a list, [{providers!r}]")
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    available = onnxruntime.get_available_providers()
    missing = set(names) - set(available)
    if missing:
        raise UserError(
            f"onnxruntime has no {', '.join(missing)} here; it has {', '.join(available)}"
        )
    return names


def _open(
    path: Path, threads: int | None, providers: Sequence[str | tuple[str, dict]]
) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # not errors, which are raised
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    # As in OnnxDetector._run.
    except Exception as error:
        raise UserError(f"{path} is damaged, or no ONNX model ({reason_of(error)})") from error
