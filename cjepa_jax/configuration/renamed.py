"""Modules that have moved: their old names in configs, run folders and exports still work.

current("cjepa_jax.data.folder:Folder")     "cjepa_jax.data.sources.folder:Folder"
"""

import re
from typing import Any

MOVED = {  # below cjepa_jax: the module's name up to version 0.1, and now
    "models.rows": "models.packing",
    "models.places": "models.position_encoding",
    "models.product": "models.matmul",
    "data.folder": "data.sources.folder",
    "data.records": "data.sources.records",
    "data.imagenet": "data.sources.imagenet",
    "data.coco": "data.sources.coco",
    "data.movi": "data.sources.movi",
    "data.clevrer": "data.sources.clevrer",
    "data.cophy": "data.sources.cophy",
    "data.craft": "data.sources.craft",
    "data.phyre": "data.sources.phyre",
    "data.phyre_client": "data.sources.phyre_client",
    "data.phyre_worker": "data.sources.phyre_worker",
    "data.superpixels": "data.sources.superpixels",
    "data.clips": "data.sources.clips",
    "data.prepared": "data.sources.prepared",
    "data.annotations": "data.sources.annotations",
    "data.tfrecord": "data.formats.tfrecord",
    "data.rle": "data.formats.rle",
    "data.encoded": "data.formats.image_bytes",
    "data.video": "data.formats.video",
    "data.files": "data.formats.files",
    "data.builders": "data.materialise.builders",
    "data.manifest": "data.materialise.dataset_spec",
    "data.layouts": "data.materialise.packing_stats",
    "data.sheet": "data.drawing.sheet",
    "data.drawing": "data.drawing.marks",
    "data.worlds.craft": "data.worlds.craft.world",
    "data.worlds.craft_layouts": "data.worlds.craft.layouts",
    "data.worlds.craft_questions": "data.worlds.craft.questions",
    "evals.phyre": "evals.benchmarks.phyre",
    "evals.auccess": "evals.benchmarks.auccess",
    "evals.cophy": "evals.benchmarks.cophy",
    "evals.craft": "evals.benchmarks.craft",
    "evals.clevrer": "evals.benchmarks.clevrer",
    "evals.answers": "evals.benchmarks.language_head",
    "evals.words": "evals.benchmarks.words",
    "evals.do_questions": "evals.counterfactual.questions",
    "evals.do_readouts": "evals.counterfactual.readouts",
    "evals.do_judge": "evals.counterfactual.judge",
    "evals.do_pictures": "evals.counterfactual.pictures",
    "evals.resample": "evals.stats",
}
NAME = re.compile(r"cjepa_jax\.([a-z_.]+)(:\w+)?", re.ASCII)


def current(name: str) -> str:
    """The present name of "cjepa_jax.module:Name" or "cjepa_jax.module". Other texts are returned unchanged."""
    match = NAME.fullmatch(name)
    if match is None or match[1] not in MOVED:
        return name
    return f"cjepa_jax.{MOVED[match[1]]}{match[2] or ''}"


def renewed(value: Any) -> Any:
    """The same plain config (dicts, lists, tuples, texts, numbers) with the present names."""
    if isinstance(value, str):
        return current(value)
    if isinstance(value, dict):
        return {key: renewed(item) for key, item in value.items()}
    return type(value)(map(renewed, value)) if isinstance(value, list | tuple) else value
