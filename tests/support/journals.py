"""Journals of recordings, read without labtree."""

import struct


def records_of(folder, n_channels):
    """Where each record of the int16 stream "emg" lies: its file, place, and range of rows."""
    for path in sorted(folder.glob("journal/streams/emg/*.journal")):
        content = path.read_bytes()
        at = 16 + struct.unpack_from("<8sII", content)[1]
        while at < len(content):
            _, rows, first = struct.unpack_from("<IIQ", content, at)
            yield path, at, first, first + rows
            at += 32 + rows * (8 + n_channels * 2)
