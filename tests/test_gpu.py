"""A GPU computes what a CPU computes, and a run on it ends, goes on and is evaluated."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes

import train_net
from project import Predictor
from project.benchmark.detection import share_found
from project.benchmark.masks import IMAGE_HW, seeded_masks
from project.errors import UserError
from project.evaluation.coco_results import to_coco_results
from project.layers.cuda_graphs import GraphedCalls
from project.layers.roi_align import FastROIAlign
from project.layers.split_attention import FastSplitAttn
from project.seeding import sampling_seeded, subsample_labels
from project.structures.pasted_masks import PastedMasks
from scripts import benchmark
from tests.helpers import SMALL_CONFIG

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def on_gpu(opts: list[str], output: Path, *more: str) -> list[str]:
    return [*opts, "MODEL.DEVICE", "cuda", "OUTPUT_DIR", str(output), *more]


def losses_of(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.json").read_text().splitlines())
    return {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}


@pytest.mark.parametrize(
    "pairs",
    [
        ("SOLVER.AMP.ENABLED", "False"),
        ("SOLVER.AMP.ENABLED", "True"),
        ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "float16"),
        ("MODEL.EMA.ENABLED", "True", "SOLVER.ACCUMULATE", "2", "MODEL.TIMM.NORM", "FrozenBN"),
    ],
)
def test_a_run_ends_goes_on_and_is_evaluated(small_opts, tmp_path, pairs):
    run = tmp_path / "run"
    opts = on_gpu(small_opts, run, *pairs, "DATALOADER.NUM_WORKERS", "2")
    train_net.main(["--config-file", str(SMALL_CONFIG), *opts])
    train_net.main(["--resume", "OUTPUT_DIR", str(run), "SOLVER.MAX_ITER", "4"])
    losses = losses_of(run)
    assert max(losses) == 3 and np.isfinite(list(losses.values())).all()
    record = json.loads((run / "run.json").read_text())
    assert torch.cuda.get_device_name() in json.dumps(record)
    weights = ["MODEL.WEIGHTS", str(run / "latest.pth"), "OUTPUT_DIR", str(tmp_path / "eval")]
    train_net.main(["--eval-only", *weights])
    assert (tmp_path / "eval/evaluation.json").is_file()


def test_the_first_losses_are_those_of_a_cpu(small_opts, tmp_path):
    # What is sampled depends on the device: with all RoIs and anchors there is nothing to draw.
    pairs = ["MODEL.RPN.BATCH_SIZE_PER_IMAGE", "100000", "MODEL.RPN.POSITIVE_FRACTION", "1.0"]
    pairs += ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "5000"]
    pairs += ["MODEL.ROI_HEADS.POSITIVE_FRACTION", "1.0", "SOLVER.AMP.ENABLED", "False"]
    for device in ("cpu", "cuda"):
        opts = on_gpu(small_opts, tmp_path / device, *pairs, "SOLVER.MAX_ITER", "1")
        train_net.main(["--config-file", str(SMALL_CONFIG), *opts, "MODEL.DEVICE", device])
    on_cpu, on_cuda = (losses_of(tmp_path / device)[0] for device in ("cpu", "cuda"))
    assert on_cuda == pytest.approx(on_cpu, rel=2e-2)  # TF32, and proposals of equal scores


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_detections_are_those_of_a_cpu(seeded_checkpoint, monkeypatch, dtype):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    picture = np.random.RandomState(0).randint(0, 256, (90, 120, 3)).astype(np.uint8)
    opts = ["MODEL.INFERENCE_DTYPE", "float32", "MODEL.DEVICE"]
    expected = Predictor(seeded_checkpoint, opts=[*opts, "cpu"])(picture)
    opts[1] = dtype
    found = Predictor(seeded_checkpoint, opts=[*opts, "cuda"])(picture)
    assert len(found) == len(expected) > 10
    if dtype == "float32":
        # In any order: rounding exchanges those of nearly equal scores.
        assert share_found(*(to_coco_results(x, 0) for x in (expected, found))) > 0.95
    else:
        assert found.scores.mean() == pytest.approx(expected.scores.mean(), rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_replayed_kernels_compute_with_the_weights_of_the_moment(seeded_checkpoint, dtype):
    opts = ["MODEL.INFERENCE_DTYPE", dtype, "MODEL.DEVICE", "cuda", "MODEL.CUDA_GRAPHS", "True"]
    model = Predictor(seeded_checkpoint, opts=opts).model
    graphs = model.graphed
    torch.manual_seed(0)
    widths = (64, 64, 64, 128, 128, 128, 64, 128)
    pictures = [torch.randint(256, (3, 96, width), dtype=torch.uint8) for width in widths]

    def scores(picture: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model([{"image": picture}])[0]["instances"].scores

    def plain_scores(picture: torch.Tensor) -> torch.Tensor:
        graphs.clear()
        return scores(picture)

    plain = [plain_scores(picture) for picture in pictures]
    graphs.clear()
    for picture, expected in zip(pictures, plain, strict=True):
        assert torch.allclose(scores(picture), expected, atol=1e-3) and len(expected) > 10
    assert len(graphs) == 8  # backbone, RPN, stages and masks, for both widths
    assert len(copy.deepcopy(model).graphed) == 0
    before = scores(pictures[0])
    with torch.no_grad():
        model.backbone.fpn_output2.weight.mul_(3)
    after = scores(pictures[0])
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(after, plain_scores(pictures[0]), atol=1e-3)
    model.train()
    assert len(graphs) == 0


def test_a_module_that_waits_for_the_gpu_is_not_captured():
    class Waits(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.sum().item()

    graphed, module, x = GraphedCalls(), Waits().eval(), torch.ones(3, device="cuda")
    stream = torch.cuda.current_stream()
    with torch.no_grad():
        graphed(module, [module], x)
        with pytest.raises(UserError, match=r"MODEL.CUDA_GRAPHS: Waits cannot be captured"):
            graphed(module, [module], x)
    assert torch.cuda.current_stream() == stream


def test_masks_are_those_that_detectron2_pastes():
    logits, boxes = (x.cuda() for x in seeded_masks((0.05, 0.6)))
    pasted = PastedMasks(logits.sigmoid(), boxes, IMAGE_HW)
    theirs = paste_masks_in_image(logits.sigmoid(), Boxes(boxes), IMAGE_HW)
    assert pasted.tensor.device.type == "cuda"
    assert (pasted.tensor != theirs).float().mean() < 1e-6
    on_cpu = PastedMasks(logits.sigmoid().cpu(), boxes.cpu(), IMAGE_HW)
    assert pasted.to("cpu").changes is not None and on_cpu.changes is None
    assert (pasted.to("cpu").tensor != on_cpu.tensor).float().mean() < 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooled_features_are_those_of_a_cpu(dtype):
    torch.manual_seed(0)
    features = torch.randn((2, 8, 25, 34)).to(dtype)
    corners = torch.rand((40, 2)) * 150
    boxes = torch.cat([corners, corners + 5 + torch.rand((40, 2)) * 120], dim=1)
    rois = torch.cat([torch.randint(2, (40, 1)), boxes], dim=1)
    layer = FastROIAlign((7, 7), 0.125, 0, aligned=True)
    on_cpu, on_cuda = layer(features, rois), layer(features.cuda(), rois.cuda())
    assert on_cuda.dtype == dtype
    # Half precision rounds the result, to three digits.
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert torch.allclose(on_cuda.cpu().float(), on_cpu.float(), atol=tolerance)


def test_split_attention_is_that_of_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    layer = FastSplitAttn(16, norm_layer=torch.nn.BatchNorm2d).eval()
    x = torch.randn((2, 16, 9, 11))
    expected = layer(x)
    assert torch.allclose(layer.cuda()(x.cuda()).cpu(), expected, atol=1e-5)


def test_what_is_sampled_depends_on_the_key_alone():
    labels = torch.randint(-1, 3, (50_000,), device="cuda")

    def draw(key: int) -> torch.Tensor:
        torch.rand(key, device="cuda")  # other draws in between
        with sampling_seeded([(key,)], labels.device):
            return torch.cat(subsample_labels(labels, 0, 256, 0.5, background=0))

    first, again, other = draw(1), draw(1), draw(2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(first.unique()) == 256 and (labels[first[128:]] == 0).all()


@pytest.mark.parametrize("name", ["masks", "infer", "train"])
def test_benchmarks_run(generated_root, tmp_path, name):
    path = tmp_path / "figures.json"
    small = ["INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96", "MODEL.WEIGHTS", ""]
    arguments = ["--data", str(generated_root), "--config-file", str(SMALL_CONFIG)]
    arguments += ["--rounds", "1", "--batch", "2", "--device", "cuda", "--json", str(path)]
    benchmark.main([name, *arguments, *small])
    figures = json.loads(path.read_text())
    assert torch.cuda.get_device_name() in figures["machine"]
    if name == "train":
        assert min(figures[name]["memory"].values()) > 0
