"""Training losses, made comparable by the zero-prediction baseline, or each target's alone in its own units."""

from diffexp.report.figures.base import Study, Trace, Variant, axis, figure, positive, rounded, run_line

CAPTION = (
    "Raw losses of different targets are in different units and cannot be compared: each is drawn alone, or divided by "
    "the loss of the zero-prediction baseline in its own units. Even so a lower curve is not a better network: targets "
    "differ in how much of them is predictable, and label noise puts a floor above zero."
)


@figure("Training loss", order=60)
def loss(study: Study) -> tuple[str, list[Variant]]:
    relative: list[Trace] = []
    raw: dict[str, list[Trace]] = {}
    legends: dict[str, set[str]] = {}
    for row, run, curves in study.lines:
        images, losses = positive(*curves.loss)
        if not images:
            continue
        zero = curves.zero_loss
        if zero and zero > 0:
            line = run_line(row, run, study.style, legends.setdefault("", set()))
            relative.append({**line, "x": images, "y": rounded(loss / zero for loss in losses)})
        unit = f"raw, {row.target}" + (f", space {row.choices['space']}" if "space" in row.keys else "")
        line = run_line(row, run, study.style, legends.setdefault(unit, set()))
        raw.setdefault(unit, []).append({**line, "x": images, "y": rounded(losses)})
    variants = [Variant("relative to zero prediction", relative, _axes("training loss / zero-prediction loss"))]
    variants += [Variant(unit, data, _axes(f"training loss ({unit} units)")) for unit, data in raw.items()]
    return CAPTION + study.note, [variant for variant in variants if variant.data]


def _axes(title: str) -> dict[str, object]:
    return {"xaxis": axis("images seen"), "yaxis": axis(title, "log")}
