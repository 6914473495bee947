"""Sound submissions pass; each way to damage one is named, with its place."""

import copy
import json
import math

import numpy as np
import pytest

from project.data.checking.masks import decode_counts
from project.data.checking.problems import Severity
from project.data.segmentation import compressed_rle, decode_segmentation, uncompressed_rle
from project.submission.checking import KINDS, check_submission
from scripts import check_submission as program


@pytest.fixture(scope="module")
def test_json(generated_root) -> dict:
    return json.loads((generated_root / "test.json").read_text())


@pytest.fixture(scope="module")
def sound(generated_root) -> list[dict]:
    """The ground truth as a submission."""
    truth = json.loads((generated_root / "test_annotations.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    return [
        {
            "image_id": a["image_id"],
            "bbox": list(map(float, a["bbox"])),
            "score": 0.5 + 0.001 * number,
            "category_id": a["category_id"],
            "segmentation": compressed_rle(
                decode_segmentation(a["segmentation"], *sizes[a["image_id"]])
            ),
        }
        for number, a in enumerate(truth["annotations"])
    ]


def errors(submission, test_json) -> list:
    return [p for p in check_submission(submission, test_json) if p.severity is Severity.ERROR]


def test_a_sound_one_has_no_errors(sound, test_json):
    assert errors(sound, test_json) == []


def row_by_row(item: dict) -> None:
    """As of a tool that runs along the rows; its text is a valid RLE."""
    height, width = item["segmentation"]["size"]
    mask = decode_segmentation(item["segmentation"], height, width)
    item["segmentation"] = compressed_rle(mask.reshape(width, height).T)


# One detection's damage -> the kind that names it.
DAMAGES = {
    "image id unknown": ("image-id-unknown", lambda d: d.update(image_id=10**6)),
    "image id as text": ("image-id-type", lambda d: d.update(image_id=str(d["image_id"]))),
    "image id true": ("image-id-type", lambda d: d.update(image_id=True)),
    "image id fractional": ("image-id-type", lambda d: d.update(image_id=1.0)),
    "category 0": ("category-id-unknown", lambda d: d.update(category_id=0)),
    "category name": ("category-id-type", lambda d: d.update(category_id="person")),
    "score above 1": ("score-range", lambda d: d.update(score=57.3)),
    "score below 0": ("score-range", lambda d: d.update(score=-0.1)),
    "score NaN": ("score-range", lambda d: d.update(score=math.nan)),
    "score as text": ("score-type", lambda d: d.update(score="0.5")),
    "score null": ("score-type", lambda d: d.update(score=None)),
    "box of three": ("bbox-shape", lambda d: d["bbox"].pop()),
    "box as text": ("bbox-shape", lambda d: d.update(bbox="1 2 3 4")),
    "box nested": ("bbox-shape", lambda d: d.update(bbox=[d["bbox"]])),
    "box NaN": ("bbox-nan", lambda d: d["bbox"].__setitem__(1, math.nan)),
    "box infinite": ("bbox-nan", lambda d: d["bbox"].__setitem__(2, math.inf)),
    "box without width": ("bbox-empty", lambda d: d["bbox"].__setitem__(2, 0.0)),
    "box of negative height": ("bbox-empty", lambda d: d["bbox"].__setitem__(3, -4.0)),
    "box outside": ("bbox-outside", lambda d: d["bbox"].__setitem__(0, 5000.0)),
    "polygons": ("mask-not-rle", lambda d: d.update(segmentation=[[1, 1, 9, 1, 9, 9]])),
    "mask null": ("mask-not-rle", lambda d: d.update(segmentation=None)),
    "RLE without size": ("rle-incomplete", lambda d: d["segmentation"].pop("size")),
    "RLE without counts": ("rle-incomplete", lambda d: d["segmentation"].pop("counts")),
    "size swapped": ("rle-size-swapped", lambda d: d["segmentation"]["size"].reverse()),
    "size as text": ("rle-size", lambda d: d["segmentation"].update(size=["10", "10"])),
    "size of one": ("rle-incomplete", lambda d: d["segmentation"]["size"].pop()),
    "other size": ("rle-size", lambda d: d["segmentation"].update(size=[10, 10])),
    "counts cut off": (
        ("rle-sum", "rle-broken"),
        lambda d: d["segmentation"].update(counts=d["segmentation"]["counts"][:-2]),
    ),
    "counts empty": ("rle-sum", lambda d: d["segmentation"].update(counts="")),
    "counts of other letters": (
        "rle-broken",
        lambda d: d["segmentation"].update(counts="~!" + d["segmentation"]["counts"]),
    ),
    "counts as a list": (
        "mask-counts",
        lambda d: d["segmentation"].update(counts=decode_counts(d["segmentation"]["counts"])),
    ),
    "bytes as text": (
        ("rle-broken", "rle-sum"),
        lambda d: d["segmentation"].update(counts=f"b'{d['segmentation']['counts']}'"),
    ),
    **{
        f"{key} missing": ("key-missing", lambda d, key=key: d.pop(key))
        for key in ("image_id", "category_id", "bbox", "score", "segmentation")
    },
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_named_with_its_place(sound, test_json, name):
    assert_named(sound, test_json, name, index=3)


def assert_named(sound, test_json, name, index):
    kinds, damage = DAMAGES[name]
    damaged = copy.deepcopy(sound)
    damage(damaged[index])
    found = [problem for problem in errors(damaged, test_json) if problem.index is not None]
    assert [problem.index for problem in found] == [index]
    assert found[0].kind in ((kinds,) if isinstance(kinds, str) else kinds)
    assert str(index) in found[0].place()


def corners(item: dict) -> None:
    x, y, width, height = item["bbox"]
    item["bbox"] = [x, y, x + width, y + height]


def relative(item: dict) -> None:
    height, width = item["segmentation"]["size"]
    item["bbox"] = [v / side for v, side in zip(item["bbox"], (width, height) * 2, strict=True)]


WHOLE_DAMAGES = {
    "corners": ("bbox-outside", corners),
    "relative": ("bbox-relative", relative),
    "row by row": ("boxes-and-masks-apart", row_by_row),
}


@pytest.mark.parametrize("name", WHOLE_DAMAGES)
def test_what_only_all_detections_show_is_named(sound, test_json, name):
    kind, damage = WHOLE_DAMAGES[name]
    damaged = copy.deepcopy(sound)
    for item in damaged:
        damage(item)
    assert kind in {problem.kind for problem in errors(damaged, test_json)}


def test_what_is_no_list_of_detections_is_named(sound, test_json):
    def kinds(submission):
        return [problem.kind for problem in errors(submission, test_json)]

    assert kinds({"annotations": sound}) == ["not-a-list"]
    assert kinds([]) == ["empty"]
    assert kinds([*sound, [1, 2]]) == ["not-an-object"]
    assert kinds([*sound, sound[0]]) == ["twice"]


def test_an_empty_mask_is_a_warning_and_a_missing_image_a_note(sound, test_json):
    empty = copy.deepcopy(sound)
    size = empty[0]["segmentation"]["size"]
    empty[0]["segmentation"] = compressed_rle(np.zeros(size, dtype=bool))
    kept = [item for item in empty if item["image_id"] != empty[-1]["image_id"]]
    problems = check_submission(kept, test_json)
    by_kind = {problem.kind: problem for problem in problems}
    assert not errors(kept, test_json)
    assert by_kind["mask-empty"].index == 0
    assert by_kind["image-without-detections"].image_id == empty[-1]["image_id"]


def test_every_kind_that_a_mask_can_have_is_known():
    assert all(kind.meaning for kind in KINDS.values())
    for mask in ({"size": [2, 2], "counts": "4"}, uncompressed_rle(np.ones((2, 2), bool)), 5, {}):
        submission = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}]
        submission[0]["segmentation"] = mask
        image = {"id": 1, "file_name": "a", "height": 2, "width": 2}
        content = {"images": [image], "categories": [{"id": 1, "name": "a"}]}
        check_submission(submission, content)


def run(tmp_path, submission, generated_root, *options: str):
    path = tmp_path / "submission.json"
    path.write_text(submission if isinstance(submission, str) else json.dumps(submission))
    test_json = generated_root / "test.json"
    with pytest.raises(SystemExit) as end:
        program.main([str(path), "--test-json", str(test_json), *options])
    return end.value.code


def test_the_program_says_valid_or_what_is_wrong(
    sound, test_json, generated_root, tmp_path, capsys
):
    assert run(tmp_path, sound, generated_root) == 0
    output = capsys.readouterr().out
    assert ": valid" in output and test_json["categories"][3]["name"] in output
    damaged = copy.deepcopy(sound)
    for item in damaged[:5]:
        item["score"] = 57.3
    assert run(tmp_path, damaged, generated_root) == 1
    output = capsys.readouterr().out
    assert "not valid" in output and "detection 2" in output and "detection 4" not in output
    assert run(tmp_path, damaged, generated_root, "--all") == 1
    assert "detection 4" in capsys.readouterr().out
    assert run(tmp_path, [], generated_root) == run(tmp_path, {}, generated_root) == 1
    assert run(tmp_path, json.dumps(sound)[:-20], generated_root) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_another_test_json_is_one_line(sound, tmp_path, capsys):
    for content in ({"images": []}, [], {"images": [{"id": 1}], "categories": []}):
        path = tmp_path / "test.json"
        path.write_text(json.dumps(content))
        (tmp_path / "submission.json").write_text(json.dumps(sound))
        with pytest.raises(SystemExit, match="2"):
            program.main([str(tmp_path / "submission.json"), "--test-json", str(path)])
        assert "is no COCO JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "field", "wrong"),
    [
        *(("images", "height", wrong) for wrong in (None, "90", 0)),
        ("images", "id", [1]),
        ("categories", "id", {}),
    ],
)
def test_a_test_json_with_odd_values_is_one_line(
    sound, test_json, tmp_path, capsys, key, field, wrong
):
    content = copy.deepcopy(test_json)
    content[key][0][field] = wrong
    for name, value in (("test", content), ("submission", sound)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    with pytest.raises(SystemExit, match="2"):
        program.main(
            [str(tmp_path / "submission.json"), "--test-json", str(tmp_path / "test.json")]
        )
    error = capsys.readouterr().err
    assert repr(wrong) in error and len(error.splitlines()) == 1


def test_the_originals_submission_is_valid_and_its_damages_are_not(shared):
    folder = shared / "data/seed_submission"
    submission = json.loads((folder / "mAP_0.38246_0856610.json").read_text())
    test_json = json.loads((folder / "test.json").read_text())
    assert errors(submission, test_json) == []
    for name in DAMAGES:
        assert_named(submission, test_json, name, index=500)
    for kind, damage in WHOLE_DAMAGES.values():
        damaged = copy.deepcopy(submission)
        for item in damaged:
            damage(item)
        assert kind in {problem.kind for problem in errors(damaged, test_json)}


def test_what_cocos_evaluation_leaves_out_is_a_warning(sound, test_json):
    def warned(submission):
        problems = check_submission(submission, test_json)
        return [problem.kind for problem in problems if problem.severity is Severity.WARNING]

    crowded = [{**sound[0], "score": number / 101} for number in range(101)]
    assert warned(crowded) == ["too-many"]
    assert warned(crowded[:100]) == []
    other = next(c["id"] for c in test_json["categories"] if c["id"] != sound[0]["category_id"])
    halves = [{**item, "category_id": other} for item in crowded[:50]]
    assert warned([*crowded[:60], *halves]) == []  # 100 are those of one category
