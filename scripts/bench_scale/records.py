"""Batches of records, by hand."""

import struct
import time

from wire import zigzag


def batch(first, count, value):
    """A batch of the keys from `first` on."""
    records = bytearray()
    for number in range(count):
        key = f"key-{first + number:010}".encode()
        record = b"\0" + zigzag(0) + zigzag(number) + zigzag(len(key)) + key + zigzag(value) + bytes(value) + zigzag(0)
        records += zigzag(len(record)) + record
    now = int(time.time() * 1e3)
    summed = struct.pack(">hiqqqhii", 0, count - 1, now, now, -1, -1, -1, count) + records
    return struct.pack(">qiibI", 0, 4 + 1 + 4 + len(summed), -1, 2, crc32c(summed)) + summed


TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
