"""Paths that a user types, and the file systems that errors about space are blamed on."""

import errno
import os
import pathlib

import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.host import paths


def test_a_path_is_taken_as_it_is_and_the_home_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for text, path in (("a/b", "a/b"), ("~/runs", "/home/somebody/runs"), (pathlib.Path("x"), "x"), ("a~b", "a~b")):
        assert paths.given(text, "--out") == pathlib.Path(path)
    assert paths.given("x" * 255, "--out") and paths.given("/".join(["x" * 100] * 40), "--out")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "--out is empty: name a file or a folder"),
        ("a\0b", r"--out=a.x00b: has a NUL in it"),
        ("x" * 256, "--out=x{200}... .256 letters.: is too long, a name may have 255 bytes, a path 4095"),
        ("é" * 128, "is too long"),
        ("a/" * 2048, "is too long"),
        ("\ud800", "is not text that a path could have"),
        ("~nobody-of-this-name/x", "--out=~nobody-of-this-name/x: the home of ~nobody-of-this-name is not known"),
    ],
)
def test_what_can_be_no_path_is_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        paths.given(text, "--out")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_system_is_named_with_what_is_free(tmp_path):
    for place in (tmp_path, tmp_path / "not" / "there"):
        text = paths.file_system(place)
        mount = text.split()[3]
        assert text.startswith("the file system /") and os.path.ismount(mount) and str(tmp_path).startswith(mount)
        assert "iB free" in text.replace(")", "")
    if os.path.ismount("/proc"):
        assert paths.file_system("/proc/self/nothing").startswith("the file system /proc (proc, ")


def test_an_error_is_blamed_on_the_path_that_it_names(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device", "/proc/self/maps")
    assert paths.blamed(full, [tmp_path]).startswith("the file system /proc ")
    assert paths.blamed(OSError("write failed: '/proc/self/maps': No space left"), []).startswith(
        "the file system /proc"
    )
    assert paths.blamed(OSError(errno.ENOSPC, "No space", 3), [tmp_path]) == paths.file_system(tmp_path)
    assert paths.blamed(OSError(errno.ENOSPC, "No space", b"/proc/x"), []).startswith("the file system /proc ")


def test_without_a_name_it_is_the_full_one_of_those_that_are_written_to(tmp_path, monkeypatch):
    error = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(paths, "_is_full", lambda place: False)
    assert paths.blamed(error) == ""  # nothing tells
    assert paths.blamed(error, [tmp_path]) == paths.file_system(tmp_path)
    monkeypatch.setattr(paths, "_is_full", lambda place: place == paths.SHARED_MEMORY)
    assert paths.blamed(error, [tmp_path]).startswith("the file system /dev/shm ")


def test_a_long_text_is_cut():
    assert paths.shown("abc") == "abc" and paths.shown("x" * 1000, 10) == "xxxxxxxxxx... (1000 letters)"
