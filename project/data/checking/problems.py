"""What can be wrong with a data set."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad a problem is: training refuses errors, and says warnings."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        severity: errors cannot be repaired with certainty, so their record is left out.
        meaning: what it is, for people.
        remedy: what a repaired copy, and loading, do about it; "" for nothing.
    """

    severity: Severity
    meaning: str
    remedy: str = ""


_OUT, _PART, _COMPUTED = "left out", "that part is left out", "computed from the mask"


def error_kinds(remedy: str = "", /, **meanings: str) -> dict[str, Kind]:
    """Kinds of errors by their names, in which "_" stands for "-"."""
    return {
        name.replace("_", "-"): Kind(Severity.ERROR, meaning, remedy)
        for name, meaning in meanings.items()
    }


KINDS: dict[str, Kind] = {
    # ---- categories: without them there is no model, so nothing can be left out
    **error_kinds(
        _OUT,
        category_not_an_object="a category is no JSON object",
        category_id_missing="a category has no id",
        category_id_type="a category's id is no whole number",
        category_id_twice="two categories have one id",
        category_name_missing="a category has no name",
        categories_missing="there is no list of categories",
    ),
    "category-name-twice": Kind(Severity.WARNING, "two categories have one name"),
    "category-id-text": Kind(
        Severity.WARNING, "a category's id is text, or has a decimal point", "made a number"
    ),
    "category-gaps": Kind(Severity.NOTE, "category ids are not 1, 2, 3, ...; the model's are"),
    "category-without-objects": Kind(Severity.NOTE, "no object has this category"),
    "category-name-voc": Kind(Severity.NOTE, "a category is spelt otherwise than in PASCAL VOC"),
    # ---- images, in the JSON
    **error_kinds(
        _OUT,
        image_not_an_object="an image is no JSON object",
        image_id_missing="an image has no id",
        image_id_type="an image's id is neither a whole number nor text",
        image_id_twice="two images have one id, so that nobody knows whose the objects are",
        file_name_missing="an image has no file name",
        file_name_type="an image's file name is no text",
        file_name_escapes="a file name leads out of the image folder",
    ),
    "image-id-float": Kind(Severity.WARNING, "an image's id has a decimal point", "made a number"),
    "file-name-twice": Kind(Severity.WARNING, "two images have one file"),
    "image-size-missing": Kind(Severity.WARNING, "no width or height", "taken from the file"),
    "image-size-invalid": Kind(
        Severity.WARNING, "width or height is no positive whole number", "taken from the file"
    ),
    "image-without-objects": Kind(Severity.NOTE, "an image has no objects"),
    # ---- images, in the folder
    **error_kinds(
        _OUT,
        image_missing="the file is not in the folder",
        image_name_case="the file is there, but with other upper- and lower-case letters",
        image_name_accents="the file is there, but its accents are other characters (NFC, NFD)",
        image_name_backslash="the file is there, but the name has \\ after a folder, not /",
        image_is_a_folder="there is a folder under the file's name",
        image_file_empty="the file has no content",
        image_unreadable="the file is no picture",
        image_truncated="the picture cannot be decoded to its end",
        image_size_differs="the picture has another size than the JSON says",
        image_exif_size=(
            "the JSON has the size before the rotation that the picture's EXIF data ask for; what"
            " shows pictures, and Detectron2, rotate them"
        ),
    ),
    "image-exif-unclear": Kind(
        Severity.NOTE,
        "EXIF data turn or mirror the picture, as it is read, and its size cannot show whether the"
        " masks do so too: look with scripts/show_dataset.py",
    ),
    "image-exif-rotated": Kind(Severity.NOTE, "EXIF data rotate the picture; the JSON has that"),
    "image-colours": Kind(
        Severity.WARNING, "not 8 bits of grey, palette or RGB; converted when read"
    ),
    "image-file-type": Kind(Severity.NOTE, "the file is of another type than its name says"),
    "image-animated": Kind(Severity.WARNING, "several pictures in one file; the first is read"),
    "image-duplicate": Kind(Severity.WARNING, "two files have the same content"),
    "image-in-two-sets": Kind(Severity.WARNING, "a picture of the training set is in a test set"),
    "image-similar": Kind(Severity.NOTE, "two pictures look the same"),
    # ---- annotations
    **error_kinds(
        _OUT,
        annotation_not_an_object="an annotation is no JSON object",
        annotation_image_missing="an annotation has no image_id",
        annotation_image_unknown="no image has an annotation's image_id",
        annotation_category_missing="an annotation has no category_id",
        annotation_category_unknown="no category has an annotation's category_id",
    ),
    "annotation-id-missing": Kind(Severity.WARNING, "an annotation has no id", "numbered"),
    "annotation-id-type": Kind(Severity.WARNING, "an id is no whole number", "numbered anew"),
    "annotation-id-zero": Kind(
        Severity.WARNING, "id 0, which COCO's tools take for no match", "numbered anew"
    ),
    "annotation-id-twice": Kind(Severity.WARNING, "two annotations have one id", "numbered anew"),
    "annotation-image-text": Kind(Severity.WARNING, "image_id is of another type", "converted"),
    "annotation-category-text": Kind(Severity.WARNING, "category_id is text", "made a number"),
    "annotation-duplicate": Kind(Severity.WARNING, "an object is annotated twice alike", _OUT),
    "crowd-missing": Kind(Severity.NOTE, "no iscrowd", "taken for 0"),
    "crowd-invalid": Kind(Severity.WARNING, "iscrowd is neither 0 nor 1", "made one of them"),
    "crowd-polygon": Kind(Severity.NOTE, "a crowd has polygons, not an RLE as in COCO"),
    "area-missing": Kind(Severity.NOTE, "no area", _COMPUTED),
    "area-invalid": Kind(Severity.WARNING, "area is no positive number", _COMPUTED),
    "area-differs": Kind(Severity.NOTE, "area is not that of the mask, by more than half"),
    # ---- boxes
    "bbox-missing": Kind(Severity.NOTE, "no bbox", _COMPUTED),
    "bbox-shape": Kind(Severity.WARNING, "bbox is no list of four", _COMPUTED),
    "bbox-not-numbers": Kind(Severity.WARNING, "bbox has something else than numbers", _COMPUTED),
    "bbox-nan": Kind(Severity.WARNING, "bbox has NaN or infinity", _COMPUTED),
    "bbox-empty": Kind(Severity.WARNING, "bbox has no width or height", _COMPUTED),
    "bbox-outside": Kind(Severity.WARNING, "bbox is outside of the picture", _COMPUTED),
    "bbox-partly-outside": Kind(Severity.WARNING, "bbox leaves the picture", "cut off"),
    "bbox-corners": Kind(Severity.WARNING, "bbox is x, y, x, y, not x, y, w, h", _COMPUTED),
    "bbox-differs": Kind(
        Severity.WARNING, "bbox and mask hardly overlap (IoU below 0.5)", _COMPUTED
    ),
    # ---- masks
    **error_kinds(
        _OUT,
        mask_missing="an annotation has no segmentation",
        mask_type="segmentation is neither a list of polygons nor an RLE",
        mask_list_empty="segmentation is an empty list",
        mask_empty="no pixel of the picture is in the mask",
        polygon_odd="a polygon has an x without y",
        polygon_nan="a polygon has NaN or infinity",
        polygon_not_numbers="a polygon has something else than numbers",
        polygon_far_outside="a polygon leaves the picture by more than 10 times its size",
        polygon_relative="a polygon's coordinates are fractions of the size, not pixels",
        rle_incomplete="an RLE lacks size or counts",
        rle_size="an RLE has another size than the picture",
        rle_size_swapped="an RLE's size is width, height; it must be height, width",
        rle_not_integers="an RLE's counts are neither whole numbers nor text",
        rle_negative="an RLE has a negative count",
        rle_broken="an RLE's text is cut off or no RLE",
        rle_sum="an RLE's counts do not add up to the picture's pixels",
    ),
    "polygon-flat": Kind(Severity.WARNING, "a polygon is not in a list of polygons", "put in one"),
    "polygon-pairs": Kind(
        Severity.WARNING, "points are [x, y] pairs, not x, y, x, y", "made one list"
    ),
    "polygon-nested": Kind(Severity.WARNING, "a polygon is in a list too many", "taken out"),
    "polygon-few-points": Kind(Severity.WARNING, "a polygon has fewer than 3 points", _PART),
    "polygon-outside": Kind(Severity.WARNING, "a polygon is outside of the picture", _PART),
    "polygon-empty": Kind(Severity.WARNING, "no pixel is in a polygon", _PART),
    "polygon-partly-outside": Kind(
        Severity.NOTE, "a polygon leaves the picture; masks are cut off"
    ),
    # ---- the whole
    **error_kinds(_OUT, annotations_type="annotations is no list"),
    "annotations-missing": Kind(Severity.NOTE, "there are no annotations: for export only"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where.

    Attributes:
        kind: a key of :data:`KINDS`.
        detail: what was found.
        file_name, image_id, annotation_id, category_id: where; None where it is not there.
    """

    kind: str
    detail: str = ""
    file_name: str | None = None
    image_id: object = None
    annotation_id: object = None
    category_id: object = None

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    def place(self) -> str:
        """Where it is, for people."""
        words = [self.file_name] if self.file_name else []
        for label in ("image", "annotation", "category"):
            value = getattr(self, f"{label}_id")
            if value is not None:
                words.append(f"{label} {value}")
        return ", ".join(words)
