"""Names that stay in their folder. JSON that is what it says."""

import json

import pytest

from cjepa_jax.data.formats import files
from cjepa_jax.errors import DataError


def test_names_inside(tmp_path):
    assert files.inside(tmp_path, "a/b.mp4") == tmp_path / "a/b.mp4"
    assert files.inside(tmp_path, "a/../b") == tmp_path / "a/../b"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "home").symlink_to(tmp_path / "real")  # the data folder itself may be a link
    assert files.inside(tmp_path, "n" * 255) and files.inside(tmp_path, "Foto\u202f1.jpg")
    assert files.inside(tmp_path, "link/x") and files.inside(tmp_path / "home", "x") == tmp_path / "home/x"


LEAVING = ("..", "../x", "a/../../x", "/etc/passwd", "", ".", "out/x")
NO_NAMES = ("a\0b", "a\nb", "a\u2028b", "\ud800", "n" * 256, "ü" * 128, "d/" * 2100 + "x", 7, None)


@pytest.mark.parametrize("name", LEAVING + NO_NAMES)
def test_names_that_leave(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/out").symlink_to(tmp_path)
    with pytest.raises(DataError, match="data: .*(leads out|not a file name)") as caught:
        files.inside(tmp_path / "data", name)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_json(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, "ü"]}))
    assert files.read_json(tmp_path / "a.json") == {"a": [1, "ü"]}


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "No such file"),
        (b"", "not JSON at line 1"),
        (b'{"a":\n 1,', "not JSON at line 2"),
        (b'"\xff"', "byte 1 is not text"),
        (b"[" * 100_000, "too deeply nested"),
        (b"[1, 2, 3]" + b" " * 200_000, "200009 bytes, at most 150000"),
    ],
)
def test_bad_json(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        files.read_json(tmp_path / "a.json", limit_bytes=150_000)
    assert str(tmp_path / "a.json") in str(caught.value) and "\n" not in str(caught.value)
