"""File formats that sources share: videos, images, TFRecord, run-length masks."""
