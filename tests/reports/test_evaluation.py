"""The page of an evaluation made up from scores of every kind."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from cjepa_jax.errors import DataError
from cjepa_jax.evals.base import Result, Score
from cjepa_jax.reports import evaluation as page

ABOUT = {
    "checkpoint": {"checkpoint": "/runs/tiny<b>", "step": 750, "seed": 1},
    "data": {"source": "cjepa_jax.data.worlds:Ramps", "size": 64, "frames": 4},
    "evals": {"fit": 2048, "fit_split": "train", "test": 0, "test_split": "test", "seed": 1000},
    "command": "python -m cjepa_jax.evaluate --checkpoint='/runs/<script>'",
    "devices": "1 x cpu (cpu)",
    "version": "0.1.0, jax 0.10.2",
}


def results() -> dict[str, Result]:
    good = [("trained", 0.81, 0.02, "result"), ("random init", 0.6, 0.05, "floor"), ("query only", 0.5, 0.03, "floor")]
    bad = [("trained", 0.41, 0.02, "result"), ("random init", 0.6, 0.05, "floor"), ("query only", 0.3, 0.03, "floor")]
    near = [("trained", 0.61, 0.02, "result"), ("random init", 0.6, 0.05, "floor"), ("true states", 1.0, 0, "ceiling")]
    scores = [Score(m, r, v, i, 1024, k) for m, rows in (("good", good), ("bad<i>", bad), ("near", near))
              for r, v, i, k in rows]  # fmt: skip
    scores += [Score("mse", "trained", 2e-5), Score("mse", "copy", 1e-5, kind="floor"), Score("alone", "trained", 1.0)]
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    x = np.linspace(0, 1, 20)
    lines = {"trained": (x, x**2), "random init": (x, x), "A & B/<c>": (x, x / 2)}
    return {
        "accuracy": Result(scores, {"a/b <img>": image}, {"surprise/x": lines}, ["1 < 2 & $3"]),
        "empty": Result([Score("nothing", "trained", float("nan"))]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    kept = {}
    for name, result in results().items():
        page.save_pictures(folder, name, result)
        kept[name] = {"scores": [score._asdict() for score in result.scores], "notes": result.notes, "seconds": 3.0}
    (folder / "results.json").write_text(json.dumps({"about": ABOUT, "protocols": kept}))
    return folder


def test_a_protocols_name_leads_nowhere_else(folder, tmp_path):
    kept = json.loads((folder / "results.json").read_text())
    kept["protocols"] = {"../outside": kept["protocols"]["accuracy"]}
    (tmp_path / "results.json").write_text(json.dumps(kept))
    with pytest.raises(DataError, match=r"'../outside.npz' leads out of this folder"):
        page.write(tmp_path)


class Tags(HTMLParser):
    VOID = {"meta", "img", "br", "use", "path"}

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.cells = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        for name, value in attributes:
            assert name not in ("src", "href", "xlink:href") or value.startswith(("data:", "#")), value
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("span", "td"):
            self.cells.append(data)


def test_the_page_is_whole_self_contained_and_says_what_is_below_a_floor(folder):
    assert page.write(folder) == folder / "report.html"
    text = (folder / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert not {"script", "link", "iframe"} & set(tags.seen) and "<script" not in text
    assert tags.seen.count("svg") == 2 and tags.seen.count("figure") == 1  # dots, one curve
    for words in ("better than every floor", "below random init", "within the intervals of random init",
                  "above copy", "0.810 ± 0.020", "0.0000200", "–"):  # fmt: skip
        assert words in tags.cells, words
    assert "1 &lt; 2 &amp; $3" in text and "a/b &lt;img&gt;" in text and "A &amp; B/&lt;c&gt;" in text
    counts = re.search(r"<tr><td>accuracy</td>(.*?)</tr>", text)[1]  # better, not told apart, worse
    assert re.sub(r" class=text", "", counts) == (
        "<td><b>1</b><small>good</small></td><td><b>1</b><small>near (random init)</small></td>"
        "<td><b>2</b><small>bad&lt;i&gt; (random init), mse (copy)</small></td>"
    )
    assert re.search(r"<tr><td>empty</td>(<td[^>]*><b>0</b></td>){3}</tr>", text)
    assert [word for word in ("/runs/tiny<b>", "bad<i>") if word in text] == []


def test_pictures_and_curves_come_back_as_they_were(folder):
    saved = json.loads((folder / "results.json").read_text())["protocols"]
    for name, result in results().items():
        kept = page._result(folder, name, saved[name])
        assert kept.images.keys() == result.images.keys() and kept.curves.keys() == result.curves.keys()
        for title, lines in result.curves.items():
            for label, xy in lines.items():
                np.testing.assert_array_equal(kept.curves[title][label], xy)
        assert str(kept.scores) == str(result.scores)  # as text: NaN is not itself


def test_numbers_of_a_metric_share_their_digits():
    lines = page.as_text(results()["accuracy"]).splitlines()
    assert lines[0].split() == "good trained 0.810 ± 0.020 random init 0.600 ± 0.050 query only 0.500 ± 0.030".split()
    assert (
        lines[3].split() == ["mse", "trained", "0.0000200", "copy", "0.0000100"] and lines[-1] == "  note: 1 < 2 & $3"
    )
    assert page.as_text(Result([Score("rank", "a", 123.4), Score("rank", "b", -1e-9)])).split()[2::2] == [
        "123.4",
        "0.0",
    ]


def test_metrics_with_other_rows_have_a_table_of_their_own():
    rows = {"a/1": "xy", "a/2": "x", "b/1": "xyz", "b/2": "xv", "c": "v"}
    metrics = {metric: [Score(metric, row, 1.0) for row in names] for metric, names in rows.items()}
    assert [list(table) for table in page.tables(metrics)] == [["a/1", "a/2", "b/1"], ["b/2", "c"]]


def test_a_result_without_pictures_leaves_none_of_an_earlier_one(tmp_path):
    full, empty = results().values()
    page.save_pictures(tmp_path, "x", full)
    assert (tmp_path / "pictures" / "x.npz").is_file()
    page.save_pictures(tmp_path, "x", empty)
    assert not (tmp_path / "pictures" / "x.npz").exists()


@pytest.mark.parametrize("shape", [(10**6, 1, 3), (1, 10**6, 3)])
def test_a_picture_that_would_fill_the_memory_is_refused(folder, tmp_path, shape):
    """A file of a few kB. Small pictures are enlarged."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    name = next(iter(json.loads((copy / "results.json").read_text())["protocols"]))
    index = np.array(json.dumps([["image", "large"]]))
    np.savez_compressed(copy / "pictures" / f"{name}.npz", index=index, **{"0": np.zeros(shape, np.uint8)})
    with pytest.raises(DataError, match="array 0 is not a picture"):
        page.write(copy)
    assert len(page.pictures.figure("tall", np.zeros((16000, 1, 3), np.uint8))) > 100


def test_text_of_a_data_set_is_printed_without_control_characters():
    text = page.as_text(Result([Score("accuracy/\x1b[2J\n", "trained\r", 0.5)], notes=["\u202e"]))
    assert all(line.isprintable() for line in text.split("\n")) and text.count("\n") == 1


@pytest.mark.parametrize("text", [None, "{", "[]", '{"about": {}, "protocols": {"a": {}}}'])
def test_what_is_no_result_is_refused_in_a_line(tmp_path, text):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match="not the results of an evaluation") as error:
        page.write(tmp_path)
    assert "\n" not in str(error.value)
