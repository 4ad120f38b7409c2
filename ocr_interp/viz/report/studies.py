"""An ablation study as a section: what every ablation leaves, beside its random control."""

from __future__ import annotations

from ocr_interp.ablation.study import BASELINE, NO_CONTROL, AblationStudy
from ocr_interp.viz.report.panels import Panel, Section, label, numbers, split_name, table_panel
from ocr_interp.viz.text.study import AMONG


def study_section(title: str, study: AblationStudy) -> Section:
    """Bars by ablation and split for every metric, and the table of rows.

    Args:
        title: name of the study.
        study: the study; of several controls the last is drawn, which matches most closely.
    """
    control = study.controls[-1] if study.controls else None
    specs = [str(spec) for spec in dict.fromkeys(study.table["spec"])]
    metrics = []
    for metric in study.metrics:
        plain = study.by_split(metric).reindex(specs)
        drawn = None if control is None else study.by_split(metric, control).reindex(specs)
        drawn = None if drawn is None else drawn.reindex(columns=plain.columns)
        metrics.append(
            {
                "name": metric.replace("_", " "),
                "text": AMONG.get(metric, ""),
                "values": numbers(plain),
                "control": None if drawn is None else numbers(drawn),
            }
        )
    data = {
        "specs": ["the model as it is" if spec == BASELINE else label(spec) for spec in specs],
        "splits": [split_name(split) for split in study.splits],
        "metrics": metrics,
    }
    text = "Bars: the ablated model; rings: a random ablation of the same kind. Means over seeds. "
    text += "Switch an ablation off to make room for the others."
    panels = (
        Panel("bars", "What is left", text, data),
        table_panel("Rows", study.table, "Every measurement.", "ablations.csv", 2_000),
    )
    named = [name for name in specs if name != BASELINE]
    controls = ", ".join(study.controls) or "none"
    facts = (
        ("ablations", f"{len(named):,}"),
        ("controls", controls),
        ("step", "unknown" if study.step is None else f"{study.step:,}"),
        ("study", study.fingerprint),
    )
    seeds = study.table.loc[study.table["control"] == NO_CONTROL, "seed"].nunique()
    return Section(label(title), (*facts, ("seeds", str(seeds))), panels)
