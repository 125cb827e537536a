"""Sections become objects. What does not exist is refused with the nearest name."""

import dataclasses
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from cjepa_jax.configuration.build import bind, build, locate
from cjepa_jax.errors import ConfigError

HERE = "tests.configuration.test_build"


@dataclasses.dataclass(frozen=True)
class Shape:
    sides: int
    colour: str = "red"
    options: object = None


def area(width, height, scale=1.0):
    return width * height * scale


def anything(**keywords):
    return keywords


def test_builds_a_frozen_object_and_passes_nested_sections_on():
    options = ConfigDict({"a": 1})
    section = ConfigDict({"type": f"{HERE}:Shape", "sides": 3, "options": options}).lock()
    shape = build(section, colour="blue")
    assert shape == Shape(3, "blue", options)
    assert section.type == f"{HERE}:Shape"  # the section is unchanged


def test_extra_overrides_the_section():
    assert build({"type": f"{HERE}:Shape", "sides": 3}, sides=4).sides == 4


def test_binds_a_function():
    assert bind({"type": f"{HERE}:area", "scale": 2.0})(3, 4) == 24.0
    assert bind({"type": f"{HERE}:area"}, height=5)(3) == 15.0


def test_open_keywords_are_all_taken():
    assert build({"type": f"{HERE}:anything", "x": 1}) == {"x": 1}


@pytest.mark.parametrize("make", [build, bind])
def test_unknown_keyword_names_the_nearest(make):
    with pytest.raises(
        ConfigError, match=r"^hieght: tests.configuration.test_build:area has no such .*; did you mean 'height'\?$"
    ):
        make({"type": f"{HERE}:area", "hieght": 1})


def test_a_section_is_named_by_its_keys():
    section = {"type": f"{HERE}:area", "own": 1}
    with pytest.raises(ConfigError, match=rf"^mask.own: {HERE}:area has no such parameter$"):  # nothing is like it
        bind(section, "mask", ("width",), ("height",))
    with pytest.raises(ConfigError, match=r"^mask.hieght: .* has no such parameter$"):  # the caller gives the height
        bind({"type": f"{HERE}:area", "hieght": 1}, "mask", ("width",), ("height",))
    for name in ("width", "height"):
        with pytest.raises(ConfigError, match=rf"^mask.{name}: cannot be set: whoever calls {HERE}:area gives it$"):
            bind({"type": f"{HERE}:area", name: 1}, "mask", ("width",), ("height",))
    assert bind({"type": f"{HERE}:area", "scale": 2}, "mask", ("w",), ("height",))(3, height=4) == 24
    with pytest.raises(
        ConfigError, match=rf"^mask.type = '{HERE}:area': must take \(a, b, c, grid\): got an unexpected"
    ):
        bind({"type": f"{HERE}:area"}, "mask", ("a", "b", "c"), ("grid",))
    with pytest.raises(ConfigError, match=f"^mask.type = '{HERE}:missing': the module has no 'missing'$"):
        build({"type": f"{HERE}:missing"}, "mask")
    with pytest.raises(ConfigError, match=f"^data.source = '{HERE}:Shape': must take the keyword arguments split$"):
        build({"type": f"{HERE}:Shape"}, "data.options", "data.source", split="train")
    with pytest.raises(ConfigError, match="^objective.type = 3: must be"):
        build({"type": 3}, "objective")


def test_a_module_that_is_not_found_is_not_guessed_among_installed_ones():
    with pytest.raises(ConfigError, match=r"there is no module 'sway'; its folder .* or on PYTHONPATH$"):  # not spwd
        locate("sway:Sway")
    with pytest.raises(ConfigError, match=r"there is no module 'cjepa_jxa'; .*; did you mean 'cjepa_jax'\?$"):
        locate("cjepa_jxa:Sway")


def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "halved.py").write_text("x = 1\ndef draw(:\n")
    (tmp_path / "raising.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(ConfigError, match=r"^mask.type = 'halved:draw': .* SyntaxError: .* \(halved.py, line 2\)$"):
        locate("halved:draw", "mask.type")
    with pytest.raises(ConfigError, match=r"ZeroDivisionError: division by zero \(raising.py, line 2\)$"):
        locate("raising:draw")


def test_missing_keyword_is_named():
    with pytest.raises(ConfigError, match="tests.configuration.test_build:Shape: missing a required argument: 'sides'"):
        build({"type": f"{HERE}:Shape"})


@pytest.mark.parametrize(
    "path,text",
    [
        (f"{HERE}:Shap", "has no 'Shap'; did you mean 'Shape'"),
        (
            "tests.configuration.test_biuld:Shape",
            "no module 'tests.configuration.test_biuld'; did you mean 'tests.configuration.test_build'",
        ),
        ("tsets.test_build:Shape", "no module 'tsets'"),
        (HERE, "must be written as 'module:Name'"),
        (":Shape", "must be written as 'module:Name'"),
    ],
)
def test_unknown_names(path, text):
    with pytest.raises(ConfigError, match=text):
        locate(path)


def test_a_module_whose_dependency_is_missing(tmp_path, monkeypatch):
    (tmp_path / "needs_other.py").write_text("import a_package_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="needs the package 'a_package_that_nobody_has', which is not installed"):
        locate("needs_other:Thing")


@pytest.mark.parametrize("section", [{}, {"type": 3}, {"type": f"{HERE}:HERE"}])
def test_a_section_without_a_usable_type(section):
    with pytest.raises(ConfigError):
        build(section)


def test_light_modules_do_not_import_jax():
    names = ("configuration.build", "configuration.check", "cli", "runtime.workdir", "runtime.writers")
    modules = ", ".join(f"cjepa_jax.{name}" for name in names)
    code = f"import sys, {modules}; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
