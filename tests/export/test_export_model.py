"""An exported file finds what the model finds, in pictures of any size."""

import json

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from detectron2.modeling import build_model

from project.data.categories import Categories
from project.errors import UserError
from project.export import checking, graph
from project.export.checking import Agreement, Limits, compare
from project.export.graph import score_threshold_of
from project.export.onnx_file import export_onnx
from project.prediction.predictor import Predictor
from project.runtime import load
from project.runtime.detections import Detections
from scripts import export_model
from tests.helpers import load_small_config


def noise(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", [(32, 32), (1600, 90), (120, 160), (333, 500), (1200, 1600)])
def test_the_file_and_the_model_find_the_same(seeded_checkpoint, exported, size):
    predictor = Predictor(seeded_checkpoint, opts=["MODEL.DEVICE", "cpu"])
    picture = noise(*size)
    agreement = compare(predictor, load(exported), [picture], Limits(0.0, 0.5, 100))
    assert agreement.detections > 0 and agreement.is_close, agreement


def test_equally_certain_proposals_are_chosen_alike(seeded_checkpoint, tmp_path):
    predictor = Predictor(seeded_checkpoint, opts=["MODEL.DEVICE", "cpu"])
    torch.nn.init.zeros_(predictor.model.proposal_generator.rpn_head.objectness_logits.weight)
    path = tmp_path / "model.onnx"
    export_onnx(predictor.model, predictor.cfg, predictor.categories, path)
    agreement = compare(predictor, load(path), [noise(200, 300)], Limits(0.0, 0.5, 100))
    assert agreement.detections > 0 and agreement.is_close, agreement


def test_the_program_says_what_it_checked(seeded_checkpoint, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    arguments = ["--weights", str(seeded_checkpoint), "--output", str(path)]
    export_model.main([*arguments, "--max-detections", "7", "--score", "0.06"])
    output = capsys.readouterr().out
    assert "scores from 0.06" in output and "scores from 0.0" in output and "boxes differ" in output
    detector = load(path)
    assert detector.score_threshold == 0.06
    assert len(load(path, score_threshold=0)(noise(100, 150))) == 7
    with pytest.raises(SystemExit, match="2"):
        export_model.main(arguments)
    assert "is there already" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_name_that_no_program_takes_for_a_model_is_refused(seeded_checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        export_model.main(["--weights", str(seeded_checkpoint), "--output", str(tmp_path / "m")])
    assert "suffix, .onnx" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_file_that_finds_other_objects_is_an_error(
    seeded_checkpoint, generated_root, tmp_path, capsys, monkeypatch
):
    output_size = graph.output_size
    monkeypatch.setattr(graph, "output_size", lambda *arguments: output_size(*arguments) + 32)
    picture = str(min((generated_root / "test_images").iterdir()))
    arguments = ["--weights", str(seeded_checkpoint), "--output", str(tmp_path / "model.onnx")]
    with pytest.raises(SystemExit, match="2"):
        export_model.main([*arguments, "--check-on", picture])
    assert "it is not written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_frames_are_read_when_they_are_looked_at_and_as_often(monkeypatch):
    read = []

    class Video:
        def __init__(self, number):
            self.number = number

        def frames(self):
            read.append(self.number)
            yield self.number

    monkeypatch.setattr(export_model, "MAX_PICTURES", 3)
    frames = export_model._Frames([Video(number) for number in range(7)])
    assert len(frames) == 3 and not read
    assert next(iter(frames)) == 0 and read == [0]
    assert list(frames) == list(frames) == [0, 2, 4]
    assert list(export_model._Frames([Video(number) for number in range(5)])) == [0, 1, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "opts",
    [
        # The original's heads and resizing.
        [
            *(
                "MODEL.ROI_MASK_HEAD.NUM_HEADS",
                "3",
                "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK",
                "False",
            ),
            *("MODEL.ROI_BOX_CASCADE_HEAD.SCORE_FUSION", "logits", "MODEL.DELTA_CLAMP", "both"),
            *("INPUT.RESIZE_BACKEND", "opencv", "INPUT.FORMAT", "BGR"),
            *("MODEL.ROI_MASK_HEAD.THRESH_TEST", "0.47"),
        ],
        # Detectron2's own parts.
        [
            *(
                "MODEL.META_ARCHITECTURE",
                "GeneralizedRCNN",
                "MODEL.ROI_HEADS.NAME",
                "CascadeROIHeads",
            ),
            *("MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),
        ],
        ["MODEL.MASK_ON", "False"],
    ],
    ids=["original", "detectron2", "boxes"],
)
def test_with_other_heads(opts, generated_root, tmp_path):
    common = ["MODEL.DEVICE", "cpu", "DATASETS.ROOT", str(generated_root)]
    common += ["INPUT.MIN_SIZE_TEST", "96", "MODEL.INFERENCE_DTYPE", "float32"]
    cfg = load_small_config([*common, *opts])
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    categories = Categories(tuple(range(3, 3 + number)), tuple(f"class {i}" for i in range(number)))
    torch.manual_seed(3)
    checkpoint = tmp_path / "model.pth"
    torch.save(
        {
            "model": build_model(cfg).state_dict(),
            "config": cfg.dump(),
            "categories": categories.to_mapping(),
        },
        checkpoint,
    )
    predictor = Predictor(checkpoint, opts=["MODEL.DEVICE", "cpu"], score_threshold=0.0)
    path = tmp_path / "model.onnx"
    export_onnx(predictor.model, predictor.cfg, predictor.categories, path)
    detector = load(path)
    for size in ((100, 120), (240, 100)):
        agreement = compare(predictor, detector, [noise(*size)], Limits(0.0, 0.5, 100))
        assert agreement.detections > 0 and agreement.is_close, agreement
    assert detector.categories == categories
    found = detector(noise(100, 120))
    assert (found.masks is None) == (not cfg.MODEL.MASK_ON)
    if found.masks is not None:
        session = onnxruntime.InferenceSession(str(path))
        (pixels,) = session.run(["masks"], {"image": noise(100, 120)})
        assert found.masks.threshold == cfg.MODEL.ROI_MASK_HEAD.THRESH_TEST
        assert len(found) > 0 and (np.asarray(found.masks) != pixels).mean() < 1e-4


def test_without_objects_the_outputs_are_empty(exported):
    found = load(exported, score_threshold=1.0)(noise(90, 120))
    assert len(found) == 0 and found.boxes_xyxy.shape == (0, 4) and found.class_names == ()
    assert np.asarray(found.masks).shape == (0, 90, 120)


def test_other_programs_get_masks_as_pixels(exported):
    picture = noise(90, 120)
    session = onnxruntime.InferenceSession(str(exported))
    # Without a threshold: the file has one.
    outputs = session.run(None, {"image": picture})
    names = [output.name for output in session.get_outputs()]
    assert names == ["boxes", "scores", "category_ids", "mask_probabilities", "masks"]
    found = load(exported)(picture)
    assert len(found) == len(outputs[1]) > 0
    assert outputs[-1].shape == (len(found), 90, 120) and outputs[-1].dtype == bool
    # The runtime computes in float64, so that pixels whose probability is 0.5 may differ.
    assert (np.asarray(found.masks) != outputs[-1]).mean() < 1e-4


def test_the_file_knows_where_it_is_from(exported, seeded_checkpoint):
    stored = torch.load(seeded_checkpoint, weights_only=True)
    metadata = load(exported).metadata
    categories = {int(key): value for key, value in json.loads(metadata["categories"]).items()}
    assert categories == stored["categories"]
    assert "INFERENCE_DTYPE: float32" in metadata["config"]
    assert len(metadata["config_sha256"]) == 64 and "torch" in json.loads(metadata["versions"])


def test_export_leaves_the_model_as_it_was(seeded_checkpoint, tmp_path):
    predictor = Predictor(seeded_checkpoint, opts=["MODEL.DEVICE", "cpu"], score_threshold=0.06)
    picture = noise(90, 120)
    before = predictor(picture)
    export_onnx(predictor.model, predictor.cfg, predictor.categories, tmp_path / "model.onnx")
    after = predictor(picture)
    assert np.array_equal(before.scores, after.scores) and not predictor.model.training
    with score_threshold_of(predictor.model, 1.0):
        assert len(predictor(picture)) == 0
    assert len(predictor(picture)) == len(before) > 0


def test_an_operation_that_onnx_lacks_is_one_line(seeded_checkpoint, tmp_path):
    predictor = Predictor(seeded_checkpoint, opts=["MODEL.DEVICE", "cpu"])
    predictor.model.backbone.register_forward_hook(
        lambda module, inputs, features: {k: torch.linalg.pinv(v) for k, v in features.items()}
    )
    with pytest.raises(
        UserError, match="tf_efficientnet_lite0 cannot be exported to ONNX"
    ) as error:
        export_onnx(predictor.model, predictor.cfg, predictor.categories, tmp_path / "model.onnx")
    assert len(str(error.value).splitlines()) == 1 and not list(tmp_path.iterdir())


def some_detections(number: int = 4) -> Detections:
    boxes = np.array([[10, 10, 50, 60]], dtype=np.float32) + 70 * np.arange(number)[:, None]
    masks = np.zeros((number, 400, 400), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    scores = np.linspace(0.9, 0.3, number).astype(np.float32)
    ids = np.arange(number) % 2 + 1
    names = tuple("ab"[i - 1] for i in ids)
    return Detections(boxes.astype(np.float32), scores, ids, names, masks, (400, 400))


def agreement_of(expected: Detections, found: Detections, limits: Limits) -> Agreement:
    picture = np.zeros((1, 1, 3), dtype=np.uint8)
    return compare(lambda _: expected, lambda _: found, [picture], limits)


def test_differences_are_seen():
    limits = Limits(0.1, 0.5, 100)
    whole = some_detections()
    assert agreement_of(whole, whole, limits).is_close
    moved = Detections(**{**vars(whole), "boxes_xyxy": whole.boxes_xyxy + 0.06})
    assert agreement_of(whole, moved, limits).box == pytest.approx(0.06, rel=1e-3)
    surer = Detections(**{**vars(whole), "scores": whole.scores + 2e-4})
    other_mask = Detections(**{**vars(whole), "masks": whole.masks & (np.arange(400) > 11)})
    other_class = Detections(**{**vars(whole), "category_ids": whole.category_ids[::-1]})
    for different in (moved, surer, other_mask, other_class, whole[:3]):
        assert not agreement_of(whole, different, limits).is_close
        assert not agreement_of(different, whole, limits).is_close
    assert agreement_of(whole, whole[:3], limits).unmatched == 1
    assert agreement_of(whole, other_class, limits).unmatched == 8


def test_what_stands_at_a_limit_may_be_missing():
    whole = some_detections()
    least = float(whole.scores.min())
    at_the_cut = agreement_of(whole, whole[:3], Limits(least - 5e-4, 0.5, 100))
    assert at_the_cut.is_close and at_the_cut.ties == 1
    # The fourth is as certain as the third, and only three may stay.
    equal = Detections(**{**vars(whole), "scores": np.float32([0.9, 0.8, 0.5, 0.4995])})
    assert agreement_of(equal, equal[:3], Limits(0.1, 0.5, 3)).is_close
    assert not agreement_of(equal, equal[:3], Limits(0.1, 0.5, 100)).is_close
    # A box that overlaps another of its class as much as is allowed.
    width = 40.0
    shift = width / 3  # IoU of two equal boxes 1/2
    boxes = np.float32([[0, 0, width, 40], [shift, 0, width + shift, 40]])
    pair = Detections(**{**vars(some_detections(2)), "boxes_xyxy": boxes})
    pair = Detections(**{**vars(pair), "category_ids": np.array([1, 1])})
    assert agreement_of(pair, pair[:1], Limits(0.1, 0.5, 100)).is_close
    assert not agreement_of(pair, pair[:1], Limits(0.1, 0.6, 100)).is_close
    # Of two that overlap too much and are equally certain, each detector keeps another one.
    equal = Detections(**{**vars(pair), "scores": np.float32([0.5, 0.5])})
    assert agreement_of(equal[:1], equal[1:], Limits(0.1, 0.4, 100)).is_close
    assert not agreement_of(pair[:1], pair[1:], Limits(0.1, 0.4, 100)).is_close


def test_pictures_to_check_on_have_the_sizes_that_are_wanted():
    pictures = checking.check_pictures([(32, 40), (300, 100)])
    assert [picture.shape for picture in pictures[:2]] == [(32, 40, 3), (300, 100, 3)]
    assert all(picture.dtype == np.uint8 for picture in pictures)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "precision", "said", "advice"),
    [
        ("--half", "float16", "layers in float16", "needs float32"),
        ("--int8", "int8", "calibrated on 2 pictures", "calibrate on more"),
    ],
)
def test_less_precision_is_refused_where_it_finds_too_little(
    seeded_checkpoint,
    generated_root,
    tmp_path,
    capsys,
    monkeypatch,
    option,
    precision,
    said,
    advice,
):
    path, folder = tmp_path / "model.onnx", str(generated_root / "test_images")
    arguments = ["--weights", str(seeded_checkpoint), "--output", str(path), option]
    arguments += [folder] if option == "--int8" else []
    monkeypatch.setattr(export_model, "MAX_PICTURES", 2)
    monkeypatch.setattr(export_model, "MIN_SHARE", 1.1)
    with pytest.raises(SystemExit, match="2"):
        export_model.main(arguments)
    assert advice in capsys.readouterr().err and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="2"):
        export_model.main([*arguments, "--opts", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.0"])
    assert "nothing is known about the file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(export_model, "MIN_SHARE", 0)
    export_model.main(arguments)
    assert said in capsys.readouterr().out
    assert load(path).metadata["precision"] == precision
    with pytest.raises(SystemExit, match="2"):
        export_model.main([*arguments, "--int8" if option == "--half" else "--half", "pictures"])
