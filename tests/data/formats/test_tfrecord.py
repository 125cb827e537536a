"""TFRecord framing against every kind of damage, and Examples against TFDS's own serialiser."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2
from tensorflow_datasets.proto import tf_feature_generated_pb2 as feature_pb2

from cjepa_jax.data.formats import tfrecord
from cjepa_jax.errors import DataError
from tests.data import shards

RECORDS = [b"first", b"", b"the third" * 100]


@pytest.fixture
def file(tmp_path):
    return shards.write_tfrecord(tmp_path / "a.tfrecord", RECORDS)


def test_known_checksum_and_layout(tmp_path):
    # CRC32C of "123456789" is 0xe3069283 (RFC 3720's check value). Masked by rotation and TFRecord's constant.
    crc = 0xE3069283
    assert tfrecord.masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    data = shards.write_tfrecord(tmp_path / "one", [b"123456789"]).read_bytes()
    assert len(data) == 8 + 4 + 9 + 4 and struct.unpack("<Q", data[:8]) == (9,) and data[12:21] == b"123456789"


def test_any_record_by_its_number(file):
    assert [tfrecord.read(file, k, 3) for k in (2, 0, 1)] == [RECORDS[2], RECORDS[0], RECORDS[1]]


@pytest.mark.parametrize(
    "place, message",
    [
        (2, "record 0 is damaged: the checksum of its length is wrong"),
        (9, "record 0 is damaged: the checksum of its length is wrong"),
        (13, "record 0 is damaged: its checksum is not that of its 5 bytes"),
        (18, "record 0 is damaged: its checksum is not that of its 5 bytes"),
    ],
)
def test_a_flipped_byte(file, place, message):
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"a.tfrecord: {message}"):
        tfrecord.read(file, 0, 3)


def test_a_truncated_file_keeps_what_is_whole(file):
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    assert tfrecord.read(file, 0, 3) == RECORDS[0]
    with pytest.raises(DataError, match="a.tfrecord: record 2 is cut short: the file ends 903 bytes"):
        tfrecord.read(file, 2, 3)
    file.write_bytes(data[:25])
    with pytest.raises(DataError, match="a.tfrecord: record 1 is cut short: the file ends 0 bytes"):
        tfrecord.read(file, 1, 3)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="a.tfrecord: holds 0 records, it should hold 3"):
        tfrecord.read(file, 0, 3)


def test_a_length_beyond_the_file_allocates_nothing(tmp_path):
    length = struct.pack("<Q", 2**60)
    (tmp_path / "a").write_bytes(length + struct.pack("<I", shards.masked(length)) + b"x" * 100)
    with pytest.raises(DataError, match="record 0 is cut short: the file ends 100 bytes after its length"):
        tfrecord.read(tmp_path / "a", 0, 1)


def test_more_or_fewer_records_than_there_should_be(file):
    with pytest.raises(DataError, match="a.tfrecord: holds 3 records, it should hold 4"):
        tfrecord.read(file, 3, 4)
    with pytest.raises(DataError, match="a.tfrecord: holds more than the 2 records"):
        tfrecord.read(file, 1, 2)
    with pytest.raises(DataError, match="absent: No such file"):
        tfrecord.read(file.parent / "absent", 0, 1)


def serialised(**lists) -> bytes:
    feature = {name: feature_pb2.Feature(**value) for name, value in lists.items()}
    return example_pb2.Example(features=feature_pb2.Features(feature=feature)).SerializeToString()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.binary(max_size=20)),
    st.lists(st.floats(width=32, allow_nan=False)),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
)
def test_examples_as_tfds_writes_them(texts, floats, integers):
    data = serialised(
        a=dict(bytes_list=feature_pb2.BytesList(value=texts)),
        b=dict(float_list=feature_pb2.FloatList(value=floats)),
        c=dict(int64_list=feature_pb2.Int64List(value=integers)),
        empty={},
        other=dict(int64_list=feature_pb2.Int64List(value=[1])),
    )
    found = tfrecord.example(data, ("a", "b", "c", "empty"), "here")
    assert found["a"] == texts and found["empty"] == [] and found.keys() == {"a", "b", "c", "empty"}
    assert np.array_equal(found["b"], np.float32(floats)) and found["b"].dtype == np.float32
    assert found["c"].tolist() == integers and found["c"].dtype == np.int64


def test_numbers_one_by_one_are_read_as_packed_ones():
    entry = b"\x1a\x07\x08\x01\x08\xff\x01\x08\x00"  # int64_list {value: 1 value: 255 value: 0}
    feature = b"\n\x01x" + b"\x12" + bytes([len(entry)]) + entry
    features = b"\n" + bytes([len(feature)]) + feature
    data = b"\n" + bytes([len(features)]) + features
    message = example_pb2.Example.FromString(data)
    assert list(message.features.feature["x"].int64_list.value) == [1, 255, 0]
    assert tfrecord.example(data, ["x"], "here")["x"].tolist() == [1, 255, 0]


def test_what_is_missing_or_no_example_is_named():
    data = serialised(a=dict(bytes_list=feature_pb2.BytesList(value=[b"x" * 300])))
    with pytest.raises(DataError, match="^f: record 3: no feature b, c$"):
        tfrecord.example(data, ("a", "c", "b"), "f: record 3")
    for broken in (data[:-1], b"\xff" * 30, b"\x0b", b"\n\x7f", b"\n"):
        with pytest.raises(DataError, match="^f: record 3: not a tf.train.Example"):
            tfrecord.example(broken, ("a",), "f: record 3")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_no_bytes_bring_another_error(data):
    try:
        tfrecord.example(data, ("a",), "here")
    except DataError:
        pass


def test_arrays_fit_or_are_refused():
    features = {"a": np.arange(6, dtype=np.float32), "b": [b"x"], "c": np.zeros(0, np.int64), "d": []}
    assert tfrecord.array(features, "a", (-1, 3), np.float32, "f").shape == (2, 3)
    assert tfrecord.array(features, "d", (-1, 3), np.float32, "f").shape == (0, 3)
    for name, shape, kind in (("a", (-1, 4), np.float32), ("a", (5,), np.float32), ("c", (1,), np.int64)):
        with pytest.raises(DataError, match=f"^f: {name} holds . numbers, which do not make"):
            tfrecord.array(features, name, shape, kind, "f")
    for name, kind in (("b", np.float32), ("a", np.int64)):
        with pytest.raises(DataError, match=f"^f: {name} does not hold {np.dtype(kind).name} numbers"):
            tfrecord.array(features, name, (-1,), kind, "f")
