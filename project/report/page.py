"""The page itself, from its template."""

import json
from importlib.resources import files

import jinja2
from markupsafe import Markup
from tqdm import tqdm

from project.errors import UserError
from project.evaluation.error_analysis import ERRORS, Kind
from project.report.curves import run_charts
from project.report.gallery import choose_pictures, gallery_records
from project.report.runs import EvaluatedRun
from project.report.tables import (
    classes_table,
    confusion_table,
    errors_table,
    object_sizes,
    run_facts,
    summary_table,
)


def render_report(
    run: EvaluatedRun,
    other: EvaluatedRun | None = None,
    *,
    max_pictures: int = 1000,
    progress: bool = False,
) -> str:
    """The report as one HTML text that needs no other file.

    Args:
        other: a run on the same pictures to compare with.
        max_pictures: how many the gallery shows at most.
        progress: show a progress bar.

    Raises:
        UserError: the two runs are not of the same pictures and classes, or a picture cannot be
            read.
    """
    if other is not None:
        _require_same_data(run, other)
    runs = {"this run": run} if other is None else {"this run": run, "other": other}
    pictures = choose_pictures(run, max_pictures)
    records = gallery_records(pictures, run, other)
    gallery = list(tqdm(records, total=len(pictures), unit="picture", disable=not progress))
    folder = files("project.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    class_names = list(run.categories.unique_names.values())
    data = {
        "classes": class_names,
        "kinds": [Kind.CORRECT, *ERRORS],
        "pictures": gallery,
        "compares": other is not None,
    }
    return environment.get_template("page.html").render(
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        # A "</script>" in a file name would end the script.
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        title=f"{run.folder.resolve().name}, {run.dataset}",
        run=run,
        other=other,
        facts=run_facts(run),
        summary=summary_table(run, other),
        sizes=object_sizes(run),
        charts={name: Markup(svg) for name, svg in run_charts(runs).items()},
        errors=errors_table(run, other),
        classes=classes_table(run, other),
        confusion=confusion_table(run),
        class_names=class_names,
        shown=len(gallery),
        total=len(run.coco_json["images"]),
    )


def _require_same_data(run: EvaluatedRun, other: EvaluatedRun) -> None:
    names, others = (
        {image["id"]: image["file_name"] for image in one.coco_json["images"]}
        for one in (run, other)
    )
    if names != others:
        raise UserError(
            f"{run.folder} was evaluated on {run.dataset}, {other.folder} on {other.dataset}: other"
            " pictures; evaluate both on the same set, or choose it with --dataset"
        )
    if run.categories != other.categories:
        difference = run.categories.difference(other.categories)
        raise UserError(f"{run.folder} and {other.folder} differ in their classes: {difference}")
