"""Optional packages: the module, or one line that says what to install."""

import sys

import pytest

from cjepa_jax.errors import CheckpointError, ConfigError
from cjepa_jax.host import optional


def test_what_is_there_is_imported():
    assert optional.need("json.decoder", "no extra", "a test") is sys.modules["json.decoder"]


@pytest.mark.parametrize("failure", [ConfigError, CheckpointError])
def test_what_is_missing_or_broken_is_one_line_with_the_command(monkeypatch, tmp_path, failure):
    monkeypatch.setitem(sys.modules, "a_missing_package", None)
    with pytest.raises(failure) as caught:
        optional.need("a_missing_package.part", "video", "a.mp4", failure)
    assert str(caught.value).startswith("a.mp4: needs the package a_missing_package (")
    assert str(caught.value).endswith("): pip install 'cjepa_jax[video]'")
    (tmp_path / "a_broken_package.py").write_text("import a_part_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(failure, match=r"a_broken_package \(No module named 'a_part_that_is_not_there'\)"):
        optional.need("a_broken_package", "video", "a.mp4", failure)
