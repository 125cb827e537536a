"""Counterfactual questions as a picture: what was asked, what happened, and what the model said."""

import cv2
import numpy as np

from cjepa_jax.data.drawing import marks
from cjepa_jax.data.pipeline import SceneMap
from cjepa_jax.evals.counterfactual.questions import DoQuestions

WIDTH, LINE, GAP = 192, 22, 6  # pixels: of a frame at least, of a line of text, between frames
RED, GREEN = (235, 50, 50), (40, 190, 90)
COUNT = 6


def strip(scenes: SceneMap, asked: DoQuestions, says: np.ndarray) -> np.ndarray:
    """The first questions, one a row: a frame with k outlined red and j green (the first one that shows both, if any
    does), the last frame as it is, and the last frame without k; below, the truth and `says`, bool [Q].

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


def _word(happens: bool) -> str:
    return "yes" if happens else "no"


def _line(texts: tuple[str, ...], width: int, right: bool) -> np.ndarray:
    """Texts under their frames; the last one's colour tells whether it is right."""
    line = np.full((LINE, width, 3), 255, np.uint8)
    for n, text in enumerate(texts):
        colour = marks.DARK if n < 2 else (GREEN if right else RED)
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
