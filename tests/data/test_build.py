"""The build command: the same bytes after any interruption, nothing mixed, nothing damaged goes unnoticed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

from cjepa_jax.data import build
from cjepa_jax.data.materialise import builders, dataset_spec
from cjepa_jax.data.sources.records import Records
from cjepa_jax.data.worlds import Balls, acting
from cjepa_jax.errors import ConfigError, DataError, StorageError
from cjepa_jax.runtime.workdir import Workdir

FLAGS = ["--world=balls", "--size=16", "--frames=3", "--shard=4", "--workers=1", "--log=warning"]
WORLD = dict(size=16, frames=3, count=10)


def run(out, *flags, count=10):
    return build.main([*FLAGS, f"--count={count}", f"--out={out}", *flags])


def content(folder):
    """What a finished folder holds. The lock names the process."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}


def specification(split="train", **world):
    return builders.spec_of(Balls(split=split, **(WORLD | world)), 4)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    run(folder)
    run(folder, "--split=eval", count=3)
    return folder


@pytest.fixture
def copy(built, tmp_path):
    for name, data in content(built).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_files_and_manifest(built):
    shards = [f"scenes-train.array_record-0000{k}-of-00003" for k in range(3)]
    others = ["dataset_info.json", "features.json", "manifest-train.json", "manifest-eval.json"]
    assert sorted(content(built)) == sorted([*shards, "scenes-eval.array_record-00000-of-00001", *others])
    stored = dataset_spec.read(built, "train")
    assert [entry["scenes"] for entry in stored["files"]] == [4, 4, 2]
    assert stored["files"][1]["sha256"] == dataset_spec.sha256(built / shards[1])
    spec = stored["spec"]
    assert (spec["world"], spec["split"], spec["count"], spec["size"]) == ("balls", "train", 10, 16)
    assert spec["options"]["boxes"] == Balls().boxes and {"numpy", "opencv", "pymunk"} <= spec["versions"].keys()
    assert spec["fields"]["masks"] == ["bits", [None, 3, 16, 16]]


def test_the_help_names_the_worlds_with_actions():
    assert all(name.lower() in build.parser().format_help() for name in acting.__all__)


def test_tfds_reads_the_folder(built):
    builder = tfds.builder_from_directory(built)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 10, "eval": 3}
    found, world = builder.as_data_source("train"), Balls(**WORLD)
    assert [int(example["index"]) for example in found] == list(range(10))
    assert (found[7]["video"] == world[7]["video"]).all()


def test_the_tfds_builder_generates_the_same_records(built, tmp_path):
    builder = builders.Scenes(specs={"train": specification()}, data_dir=tmp_path)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
    same_records(built, builder.as_data_source("train"))


@pytest.mark.needs("apache_beam")
def test_apache_beam_writes_the_same(built, tmp_path):
    from apache_beam.options.pipeline_options import PipelineOptions

    builder = builders.Scenes(specs={"train": specification()}, beam=True, data_dir=tmp_path)
    options = PipelineOptions(["--runner=DirectRunner"])
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2, beam_options=options))
    same_records(built, builder.as_data_source("train"))

    run(tmp_path / "files", "--beam=--runner=DirectRunner")
    run(tmp_path / "files", "--beam=--runner=DirectRunner", "--split=eval", count=3)
    assert content(tmp_path / "files") == content(built)


def same_records(built, found):
    fields, records = specification()["fields"], Records(path=str(built), size=16, frames=3)
    assert len(found) == len(records)
    for i, example in enumerate(found):
        decoded = builders.decode(fields, example)
        assert decoded["index"] == i
        assert all((decoded[name] == value).all() for name, value in records[i].items())


def test_a_stopped_build_writes_only_what_is_missing(built, tmp_path):
    spec = specification()
    with Workdir(tmp_path) as workdir:
        build.prepare(tmp_path, spec, {}, workdir, [0, 1, 2])
        builders.write_shard(str(tmp_path), spec, 1)
        name = dataset_spec.shard_name(spec, 2)
        (dataset_spec.parts_of(tmp_path, "train") / f"{name}.0123").write_bytes(b"half")
        (tmp_path / name).write_bytes(b"renamed, but killed before its entry was written")
    with pytest.raises(DataError, match="split train is unfinished, 1 of 3 files"):
        Records(path=str(tmp_path), size=16, frames=3)
    written = (tmp_path / dataset_spec.shard_name(spec, 1)).stat().st_mtime_ns
    run(tmp_path)
    assert (tmp_path / dataset_spec.shard_name(spec, 1)).stat().st_mtime_ns == written
    run(tmp_path, "--split=eval", count=3)
    assert content(tmp_path) == content(built)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir() if file.name != ".lock"}
    run(tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in before}


NAME = "scenes-train.array_record-00000-of-00003"


def unfinished(folder):
    """Makes of a finished folder one whose build was stopped after the first two files."""
    stored = json.loads((folder / "manifest-train.json").read_text())
    (folder / "manifest-train.json").write_text(dataset_spec.text(stored["spec"], []))
    (folder / dataset_spec.shard_name(stored["spec"], 2)).unlink()
    (folder / ".parts-train").mkdir()
    for entry in stored["files"][:2]:
        left = entry | {"fingerprint": stored["fingerprint"]}
        (folder / ".parts-train" / f"{entry['name']}.json").write_text(json.dumps(left))
    return folder / ".parts-train"


def test_a_damaged_entry_of_a_stopped_build_is_as_none(built, copy):
    file = unfinished(copy) / f"{NAME}.json"
    whole = json.loads(file.read_text())
    assert sorted(dataset_spec.parts(copy, specification())) == [0, 1]
    changed = ({"bytes": whole["bytes"] + 0.0}, {"sha256": "0"}, {"scenes": None}, {"name": "../../escaped"})
    for text in ("{}", "[]", "", *(json.dumps(whole | change) for change in changed)):
        file.write_text(text)
        assert sorted(dataset_spec.parts(copy, specification())) == [1]
    run(copy)
    assert content(copy) == content(built)
    assert not list(copy.parent.rglob("*escaped*"))


def test_only_what_a_build_has_left_is_deleted(built, copy):
    parts = unfinished(copy)
    (parts / "folder").mkdir()
    for name in ("thesis.tex", "folder/thesis.tex", f"{NAME}.12ab", f"{NAME}.json.tmp", "probe.12ab"):
        (parts / name).write_text("mine")
    run(copy)
    assert sorted(file.name for file in parts.rglob("*")) == ["folder", "thesis.tex", "thesis.tex"]


@pytest.mark.parametrize("name", ["elsewhere", "nowhere"])
def test_a_link_in_place_of_the_folder_of_parts_is_refused(copy, tmp_path_factory, name):
    elsewhere = tmp_path_factory.mktemp("other") / "elsewhere"
    unfinished(copy).rename(elsewhere)
    (elsewhere / f"{NAME}.12ab").write_text("mine")
    (copy / ".parts-train").symlink_to(elsewhere.with_name(name))
    before = content(elsewhere)
    with pytest.raises(DataError, match=f"{copy / '.parts-train'}: not the folder that a build makes for itself"):
        run(copy)
    assert content(elsewhere) == before and os.listdir(elsewhere.parent) == ["elsewhere"]


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    command = [sys.executable, "-m", "cjepa_jax.data.build", "--world=balls", "--count=160", "--shard=8"]
    command += ["--size=32", "--frames=8", "--workers=2"]
    subprocess.run([*command, f"--out={tmp_path / 'whole'}"], check=True, capture_output=True)
    out, kills = tmp_path / "killed", 0
    for wanted in (0, 3, 9):
        process = subprocess.Popen([*command, f"--out={out}"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("scenes-*"))) <= wanted:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2 and not (out / "dataset_info.json").exists()
    ended = subprocess.run([*command, f"--out={out}"], check=True, capture_output=True, text=True)
    assert "| 8/160 " not in ended.stderr  # the first files were not written again
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_ends_with_6_and_loses_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {small} 2>/dev/null"):
        pytest.skip("needs the right to mount a small file system")
    try:
        with pytest.raises(StorageError, match=r"--out=.*: \d+ MiB free, \d+ MiB needed"):
            run(small / "out", count=400)
        spec = builders.spec_of(Balls(**(WORLD | dict(count=400))), 4)
        command = "from tests.data.test_build import fill; import sys; fill(sys.argv[1])"
        ended = subprocess.run([sys.executable, "-c", command, small / "out"], capture_output=True, text=True)
        assert ended.returncode == 6, ended.stderr
        assert ended.stderr.startswith("error: cannot write: ") and ended.stderr.count("\n") == 1
        done = len(dataset_spec.parts(small / "out", spec))
        assert done > 3
        os.system(f"mount -o remount,size=80m {small}")
        run(small / "out", count=400)
        build.verify(small / "out")
    finally:
        os.system(f"umount {small}")


def fill(out):
    """Writes without asking for space first. In a separate process, whose exit code is the command's."""
    from pathlib import Path

    from cjepa_jax import cli

    spec = builders.spec_of(Balls(**(WORLD | dict(count=400))), 4)
    raise SystemExit(cli.guard(lambda: sum(build.write_in_pool(Path(out), spec, list(range(100)), 1))))


@pytest.mark.parametrize(
    "flags, field",
    [
        (["--seed=1"], "seed is 0 there and 1 here"),
        (["--size=24"], "size is 16 there and 24 here"),
        (["--shard=5"], "shard is 4 there and 5 here"),
        (['--options={"boxes": 0.5}'], r"options.boxes is 0.4 there and 0.5 here"),
        (["--count=11"], "count is 10 there and 11 here"),
        (
            ["--split=test", "--frames=4"],
            r"its split (train|eval) was made with other settings: .*frames is 3 there and 4 here",
        ),
        (["--world=shadows"], 'world is "balls" there and "shadows" here'),
    ],
)
def test_a_folder_of_other_scenes_is_refused(built, flags, field):
    before = content(built)
    with pytest.raises(ConfigError, match=field):
        run(built, *flags)
    assert content(built) == before


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--world=ball"], "--world=ball: there is no such world; did you mean 'balls'"),
        (["--options={boxes: 1}"], "--options={boxes: 1}: not JSON"),
        (["--options=[1]"], "must be a JSON object"),
        (['--options={"boxs": 0.1}'], "boxs.*did you mean 'boxes'"),
        (['--options={"boxes": 7}'], "boxes is 7; it must be a share"),
        (['--options={"size": 8}'], "--options: size is not an option of a world"),
        (['--options={"type": "os:system"}'], "--options: type is not an option of a world"),
        (["--shard=0"], "--shard=0: must be within 1"),
        (["--workers=0"], "--workers=0: must be within 1"),
        (["--split=validation"], "data.split is 'validation'"),
        (["--shard=1", "--count=100001"], "--shard=1: 'count' is 100001: must be from 1 to 100000: at most"),
        (["--cou=3"], "unrecognized arguments: --cou=3"),
        (["--speed=9"], "unrecognized arguments: --speed=9"),
    ],
)
def test_bad_command_lines_are_one_clear_line(tmp_path, flags, text):
    with pytest.raises(ConfigError, match=text):
        run(tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_world_and_count_must_be_given(tmp_path):
    with pytest.raises(ConfigError, match="--count is missing"):
        build.main([f"--out={tmp_path}", "--world=balls"])


def test_space_is_asked_for_before_anything_is_written(tmp_path):
    with pytest.raises(StorageError, match=r"--out=.*: \d+ MiB free, \d+ MiB needed"):
        run(tmp_path, "--shard=1000000", count=2_000_000_000)


def test_a_second_build_of_a_folder_waits_outside(tmp_path):
    with Workdir(tmp_path), pytest.raises(ConfigError, match=f"--out={tmp_path}: in use by another run"):
        run(tmp_path)


def test_verify_names_the_damaged_file_and_a_build_mends_it(built, copy):
    assert build.main([f"--out={copy}", "--verify"]) == 0
    file = copy / "scenes-train.array_record-00001-of-00003"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"{file.name}: its SHA-256 is not the manifest's"):
        build.main([f"--out={copy}", "--verify"])
    file.write_bytes(data[:1000])
    with pytest.raises(DataError, match=f"{file.name}: has 1000 bytes, was written with {len(data)}"):
        build.main([f"--out={copy}", "--verify"])
    file.unlink()
    with pytest.raises(DataError, match=f"{file.name}: is missing"):
        build.main([f"--out={copy}", "--verify"])
    run(copy)
    assert content(copy) == content(built)


def test_verify_wants_something_to_verify(tmp_path):
    with pytest.raises(DataError, match="no materialised scenes here"):
        build.main([f"--out={tmp_path}", "--verify"])


def set_spec(**fields):
    return lambda stored: stored["spec"].update(fields)


def set_field(name, *layout):
    return lambda stored: stored["spec"]["fields"].update({name: list(layout)})


@pytest.mark.parametrize(
    "harm, text",
    [
        (lambda stored: stored.update(spec=[1]), r"'spec' is \[1\]: must be an object"),
        (lambda stored: stored.update(files={}), "'files' is {}: must be a list"),
        (lambda stored: stored["files"].pop(), "the number of files' is 2: must be 3"),
        (lambda stored: stored["files"][0].update(name="../../etc/passwd"), "'name of file 0' is '../../etc/passwd'"),
        (lambda stored: stored["files"][1].update(bytes=-1), "'bytes of file 1' is -1"),
        (lambda stored: stored["files"][1].update(scenes="4"), "'scenes of file 1' is '4': must be 4"),
        (lambda stored: stored["files"][2].pop("sha256"), "'sha256 of file 2' is None"),
        (set_spec(format=1), "'format' is 1: must be 2: build into another folder"),
        (set_spec(shard=0), "'shard' is 0: must be an integer from 1"),
        (set_spec(shard=True), "'shard' is True: must be an integer from 1"),
        (set_spec(shard=1, count=10**12), "'count' is 1000000000000: must be from 1 to 100000: at most"),
        (set_spec(seed=None), "'seed' is None"),
        (set_spec(world=5), "'world' is 5: must be a text"),
        (set_spec(split="eval"), "'split' is 'eval': must be 'train'"),
        (set_spec(versions={"numpy": {}}), "'versions' is {'numpy': {}}: must be texts"),
        (set_spec(more=1), "'the fields of spec' is"),
        (set_spec(options=[1]), r"'options' is \[1\]: must be an object"),
        (set_spec(options={"boxes": {"type": "os:getcwd"}}), "'options.boxes' is {'type': 'os:getcwd'}: must be"),
        (set_spec(fields={}), "'fields.video' is None"),
        (set_field("video", "uint8", [3, 10**9, 10**9, 3]), r"'fields.video' is \['uint8', \[3, 1000000000"),
        (set_field("video", "object", [3, 16, 16, 3]), "'fields.video' is .*must be a type and the lengths"),
        (set_field("amodal", "bits", []), r"'fields.amodal' is \['bits', \[\]\]"),
        (set_field("labels", "float32", [6.0]), r"'fields.labels' is \['float32', \[6.0\]\]"),
        (set_field("outcomes", "float32", [6]), "'a field' is 'outcomes/asked'"),
    ],
)
def test_a_manifest_that_no_build_writes_is_named(copy, harm, text):
    file = copy / "manifest-train.json"
    stored = json.loads(file.read_text())
    harm(stored)
    stored["fingerprint"] = dataset_spec.fingerprint(stored["spec"])
    file.write_text(json.dumps(stored))
    for read in (lambda: Records(path=str(copy), size=16, frames=3), lambda: build.verify(copy), lambda: run(copy)):
        with pytest.raises(DataError, match=f"{file}: not a manifest that can be read: .*{text}"):
            read()


def test_a_manifest_that_was_changed_is_named(copy):
    file = copy / "manifest-train.json"
    whole = file.read_text()
    for harmed, text in (
        ("{", "not JSON"),
        (whole.replace('"seed": 0', '"seed": 7'), "'fingerprint' is '.*its spec's"),
    ):
        file.write_text(harmed)
        with pytest.raises(DataError, match=f"{file}: .*{text}"):
            Records(path=str(copy), size=16, frames=3)


@pytest.mark.parametrize("changed", [set_spec(world="os"), set_spec(options={"type": "os:getcwd"})])
def test_a_manifest_names_worlds_only(copy, changed):
    file = copy / "manifest-train.json"
    stored = json.loads(file.read_text())
    changed(stored)
    file.write_text(dataset_spec.text(stored["spec"], stored["files"]))
    with pytest.raises(DataError, match=f"{file}: no world of this version"):
        Records(path=str(copy), size=16, frames=3)
