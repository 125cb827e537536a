"""DINOv2 (arXiv 2304.07193): an encoder with a class token and LayerScale."""

from typing import Any

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import shapes
from cjepa_jax.weights.canonical import CLASS, SCALES
from cjepa_jax.weights.files import Tensors
from cjepa_jax.weights.name_maps import derived

TOKEN, POSITIONS = "cls_token", "pos_embed"  # [1, 1, D], and [1, 1 + N, D] with the class token's first
START = 1.0  # of LayerScale. Weights replace it


def parts(view: Tensors, width: int) -> tuple[Tensors, dict[str, tuple[int, ...]], dict[str, Any]]:
    """The view as our encoder has it, the shapes of what is more than in a plain encoder, and options of Encoder.

    The class token's position is added to it, and the stored positions become those of the patches.

    Raises: CheckpointError for a class token or positions that are missing or of another shape.
    """
    for name, least, shown in ((TOKEN, 1, "1"), (POSITIONS, 2, "1 + N")):
        shape = view.shapes.get(name, ())
        fits = len(shape) == 3 and (shape[0], shape[2]) == (1, width) and shape[1] >= least
        if not fits or (name == TOKEN and shape[1] > 1):
            raise CheckpointError(f"{view.source}: {name} has the shape {list(shape)}: must be [1, {shown}, {width}]")
    count = view.shapes[POSITIONS][1] - 1
    added = {
        CLASS: ((width,), lambda: view[TOKEN][0, 0] + view[POSITIONS][0, 0]),
        POSITIONS: ((1, count, width), lambda: view[POSITIONS][:, 1:]),
    }
    wanted: dict[str, tuple[int, ...]] = {CLASS: (width,)}
    wanted |= {f"blocks.{i}.{name}": (width,) for i in range(shapes.depth(view)) for name in SCALES}
    return derived(view, [TOKEN], added), wanted, {"class_token": True, "layer_scale": START}
