"""A cache on disk of the vectors that a frozen encoder computes for note chunks, found by a hash of the chunk's tokens.

A folder holds the files of one encoder. The folder's name has the hash of the encoder's weights. A file is written
whole and never changed, so several processes may share the folder. Each process adds its own files. Layout of a file:

    32 bytes   magic, n, width, CRC-32 of the next two parts
    n x 16     keys: the 128-bit hashes
    n x 4      CRC-32 of each vector
    n x width  float16 vectors

Keys are kept in memory: 16 bytes per chunk, and 20 more if the chunk's file is open. Vectors are read on demand. A
vector is used only if its checksum is right. A damaged file is reported and removed. Its vectors are computed again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import time
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ehrdl.engine.files import whole
from ehrdl.engine.messages import say

#: To be increased by every change that gives other vectors for the same encoder and chunk.
VERSION = 1

_MAGIC = b"EHRDLEMB"
_HEADER = struct.Struct("<8sQQQ")
#: Number of waiting vectors that are written at once; smaller number that is written after some time; that time [s].
_WAITING, _FEW_WAITING, _SECONDS = 8192, 512, 120.0
#: Files that are open at the same time.
_OPEN = 128


def chunk_keys(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return a 128-bit hash (C, 2) uint64 of the valid tokens of each of C chunks.

    Args:
        tokens: (C, L) token ids; in each chunk, the valid tokens come first.
        lengths: (C,) number of valid tokens of each chunk.

    >>> chunk_keys(np.array([[5, 6, 0], [5, 6, 9]]), np.array([2, 2])).tolist()[0] == chunk_keys(
    ...     np.array([[5, 6]]), np.array([2])).tolist()[0]
    True
    """
    rows = memoryview(np.ascontiguousarray(tokens, dtype="<i4").tobytes())
    width, blake2b = 4 * tokens.shape[1], hashlib.blake2b
    stops = (np.arange(len(tokens)) * width + 4 * lengths).tolist()
    found = [blake2b(rows[i * width : stop], digest_size=16).digest() for i, stop in enumerate(stops)]
    return np.frombuffer(b"".join(found), "<u8").reshape(-1, 2)


def encoder_hash(model: nn.Module, config: dict[str, Any], precision: str) -> str:
    """Hash everything that decides an encoder's vectors: its weights, configuration and precision, and `VERSION`."""
    found = hashlib.blake2b(digest_size=16)
    kept = {key: value for key, value in config.items() if not key.startswith("_") and key not in _NO_MATTER}
    found.update(repr((VERSION, precision, sorted(kept.items(), key=lambda item: item[0]))).encode())
    for name, weight in sorted(model.state_dict().items()):
        array = weight.detach().cpu().contiguous()
        found.update(repr((name, str(array.dtype), tuple(array.shape))).encode())
        found.update(memoryview(array.flatten().view(torch.uint8).numpy()))
    return found.hexdigest()


_NO_MATTER = ("transformers_version", "dtype", "torch_dtype", "architectures", "name_or_path")


class EmbeddingCache:
    """Cache of one vector (width,) float16 per note chunk, found by the chunk's key from `chunk_keys`.

    Args:
        folder: the folder of this encoder's files; it is made at the first write.
        width: the width of a vector.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self._waiting = _Waiting(folder, width)
        self._files: list[Path] = []
        self._opened: dict[int, _File] = {}
        self._hashes, self._places = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._refresh()
        weakref.finalize(self, self._waiting.write)  # also at the end of the process

    def __deepcopy__(self, _: Any) -> EmbeddingCache:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddingCache, (self.folder, self.width)

    def __len__(self) -> int:
        return len(self._hashes) + len(self._waiting.vectors)

    def read(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors (C, width) of keys (C, 2), and which keys are in the cache (C,). Other vectors are 0."""
        vectors, known = np.zeros((len(keys), self.width), np.float16), np.zeros(len(keys), bool)
        place = np.searchsorted(self._hashes, keys[:, 0])
        inside = np.flatnonzero(place < len(self._hashes))
        hit = inside[self._hashes[place[inside]] == keys[inside, 0]]
        file, row = np.divmod(self._places[place[hit]], _ROWS_A_FILE)
        for number in np.unique(file).tolist():
            own = file == number
            vectors[hit[own]], known[hit[own]] = self._read_file(number, row[own], keys[hit[own]])
        if self._waiting.vectors:
            for i in np.flatnonzero(~known).tolist():
                if (vector := self._waiting.vectors.get(keys[i].tobytes())) is not None:
                    vectors[i], known[i] = vector, True
        return vectors, known

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Add vectors (C, width) of keys (C, 2). They wait in memory, and are written to disk together."""
        self._waiting.vectors.update(zip(map(np.ndarray.tobytes, keys), vectors.astype(np.float16), strict=True))
        n, waited = len(self._waiting.vectors), time.monotonic() - self._waiting.since
        if n >= _WAITING or (n >= _FEW_WAITING and waited > _SECONDS):
            self.flush()

    def flush(self) -> None:
        """Write the vectors that wait in memory to disk, and index the files that other processes have added.

        If no vector waits, do nothing.
        """
        if self._waiting.vectors:
            self._waiting.write()
            self._refresh()

    def _refresh(self) -> None:
        """Index the new files of the folder."""
        hashes, places = [self._hashes], [self._places]
        for path in sorted(set(self.folder.glob("*.bin")) - set(self._files)):
            try:
                keys = _File(path, self.width).keys
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                _remove(path, error)
                continue
            hashes.append(keys[:, 0])
            places.append(np.arange(len(keys)) + len(self._files) * _ROWS_A_FILE)
            self._files.append(path)
        together = np.concatenate(hashes)
        order = np.argsort(together, kind="stable")  # if two files have the same chunk, the first one
        self._hashes, self._places = together[order], np.concatenate(places)[order]

    def _read_file(self, number: int, rows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of one file, and whether each belongs to its key."""
        try:
            if number not in self._opened:
                while len(self._opened) >= _OPEN:
                    self._opened.pop(next(iter(self._opened)))
                self._opened[number] = _File(self._files[number], self.width)
            return self._opened[number].read(rows, keys)
        except (ValueError, OSError) as error:
            _remove(self._files[number], error)
            self._opened.pop(number, None)
            keep = self._places // _ROWS_A_FILE != number
            self._hashes, self._places = self._hashes[keep], self._places[keep]
            return np.zeros((len(rows), self.width), np.float16), np.zeros(len(rows), bool)


#: A place combines file and row in one int64.
_ROWS_A_FILE = 1 << 32


class _Waiting:
    """Vectors that are not on disk yet. The object outlives the cache, so that they can still be written."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self.vectors: dict[bytes, np.ndarray] = {}
        self.since = time.monotonic()

    def write(self) -> None:
        """Write the vectors to a new file and forget them."""
        self.since = time.monotonic()
        if not self.vectors:
            return
        keys = b"".join(self.vectors)
        rows = [vector.tobytes() for vector in self.vectors.values()]
        sums = np.array([zlib.crc32(row) for row in rows], "<u4").tobytes()
        head = _HEADER.pack(_MAGIC, len(rows), self.width, zlib.crc32(keys + sums))
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole(self.folder / f"{secrets.token_hex(8)}.bin") as part, part.open("wb") as file:
            file.writelines([head, keys, sums, *rows])
        self.vectors = {}


class _File:
    """One opened file of the cache.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._file, self._bytes = os.open(path, os.O_RDONLY), 2 * width
        weakref.finalize(self, os.close, self._file)
        head = os.pread(self._file, _HEADER.size, 0)
        if len(head) < _HEADER.size:
            raise ValueError("it ends in its first line")
        magic, n, wide, total = _HEADER.unpack(head)
        self._body = _HEADER.size + 20 * n
        if magic != _MAGIC or wide != width or os.stat(self._file).st_size != self._body + n * self._bytes or not n:
            raise ValueError("it has another length than it says")
        index = os.pread(self._file, 20 * n, _HEADER.size)
        if zlib.crc32(index) != total:
            raise ValueError("its keys are not what was written")
        self.keys = np.frombuffer(index, "<u8", 2 * n).reshape(n, 2)
        self._sums = np.frombuffer(index, "<u4", n, offset=16 * n)

    def read(self, rows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of rows, and whether each belongs to its key."""
        number, size = self._file, self._bytes
        # Read rather than mapped: truncating a mapped file would kill the process.
        found = [os.pread(number, size, self._body + row * size) for row in rows.tolist()]
        if [zlib.crc32(vector) for vector in found] != self._sums[rows].tolist():
            raise ValueError("a vector is not what was written")
        vectors = np.frombuffer(b"".join(found), "<f2").reshape(len(rows), -1)
        return vectors, (self.keys[rows] == keys).all(axis=1)


def _remove(path: Path, error: Exception) -> None:
    say(f"{path}: damaged ({error}); removed, its notes are encoded again")
    path.unlink(missing_ok=True)
