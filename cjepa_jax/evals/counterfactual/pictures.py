"""Pictures of counterfactual questions (question, outcome, answer of the model) and of pairs of removals."""

import cv2
import numpy as np

from cjepa_jax.data.drawing import marks
from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.evals.counterfactual import cells
from cjepa_jax.evals.counterfactual.pairs import Pairs
from cjepa_jax.evals.counterfactual.questions import DoQuestions

WIDTH, LINE, GAP = 192, 22, 6  # pixels: of a frame at least, of a line of text, between frames
RED, GREEN = (235, 50, 50), (40, 190, 90)
COUNT = 6
UNSCORED = 225  # grey of tokens that one of two removed objects touches
COLUMNS = ("red k, green o", "without k", "without o", "true difference", "predicted")


def strip(scenes: SceneMap, asked: DoQuestions, says: np.ndarray) -> np.ndarray:
    """The first questions, one in each row, with the truth and the model's answers `says`, bool [Q], below.

    A row has three frames. The first outlines k in red and j in green, at the first time that shows both. Then come the
    last frame with k and the last frame without k.

    Returns: uint8 [H, W, 3].
    """
    rows = []
    for i in range(min(COUNT, len(asked.video))):
        masks = scenes(int(asked.scene[i]), 0)["masks"]
        seen = masks[[asked.removed[i], asked.asked[i]]].any((2, 3)).sum(0)  # [T]
        time = int(seen.argmax())
        first = marks.enlarge(asked.video[i, time], WIDTH).copy()
        width = max(1, first.shape[1] // 96)
        for row, colour in ((asked.asked[i], GREEN), (asked.removed[i], RED)):
            marks.outline(first, masks[row, time], colour, width)
        frames = [first, *(marks.enlarge(video[i, -1], WIDTH) for video in (asked.video, asked.without))]
        picture = np.concatenate([np.pad(f, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for f in frames], 1)
        answer = "yes" if says[i] else "no"
        texts = (
            "first frame",
            f"with red: {_word(asked.factual[i])}",
            f"without: {_word(asked.answer[i])}; says {answer}",
        )
        right = says[i] == asked.answer[i]
        rows.append(np.concatenate([picture, _line(texts, picture.shape[1], right)]))
    return np.concatenate(rows)


def removals(scenes: SceneMap, pairs: Pairs, true: np.ndarray, said: np.ndarray) -> np.ndarray:
    """The first pairs of removals, one in each row, at the last frame.

    A row shows the scene with k outlined in red and o in green, the scene without k and without o, then the true and
    the predicted difference of these two, [n, N, 12] each. Grey means a difference of 0. Pale grey is a token that k
    or o touches. Both differences of a row have the same contrast.

    Returns: uint8 [H, W, 3].
    """
    rows, rest = [], pairs.rest().reshape(len(pairs.video), *scenes.grid)[:, -1]
    for i in range(min(COUNT, len(pairs.video))):
        masks = scenes(int(pairs.scene[i]), 0)["masks"][:, -1]
        first, *others = (
            marks.enlarge(video[i, -1], WIDTH).copy() for video in (pairs.video, pairs.without, pairs.without_other)
        )
        for row, colour in ((pairs.other[i], GREEN), (pairs.removed[i], RED)):
            marks.outline(first, masks[row], colour, max(1, first.shape[1] // 96))
        scored = np.repeat(np.repeat(rest[i], cells.CELLS, 0), cells.CELLS, 1)
        grids = [cells.pictures(values[i : i + 1], scenes.grid)[0, -1] for values in (true, said)]
        largest = max(float(np.abs(grids[0][scored]).max(initial=0)), 1e-6)
        for values in grids:
            picture = np.clip(128 + 127 * values / largest, 0, 255).astype(np.uint8)
            picture[~scored] = UNSCORED
            others.append(cv2.resize(picture, first.shape[1::-1], interpolation=cv2.INTER_NEAREST))
        rows.append(_side_by_side([first, *others]))
    return np.concatenate([_line(COLUMNS, rows[0].shape[1], None), *rows])


def _side_by_side(frames: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.pad(f, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for f in frames], 1)


def _word(happens: bool) -> str:
    return "yes" if happens else "no"


def _line(texts: tuple[str, ...], width: int, right: bool | None) -> np.ndarray:
    """Texts under their frames. The last one is green if `right`, else red. None: all are dark."""
    line = np.full((LINE, width, 3), 255, np.uint8)
    for n, text in enumerate(texts):
        colour = marks.DARK if n < 2 or right is None else (GREEN if right else RED)
        place = (n * width // len(texts) + 3, LINE - 7)
        cv2.putText(
            line,
            text,
            org=place,
            fontFace=cv2.FONT_HERSHEY_SIMPLEX,
            fontScale=0.42,
            color=colour,
            thickness=1,
            lineType=cv2.LINE_AA,
        )
    return line
