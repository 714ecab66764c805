#!/usr/bin/env python3
"""Writes the fixtures of other programs: h5py (old and new formats, gzip chunks, big-endian), NumPy, safetensors.

Usage: others.py FOLDER
"""
import sys
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import save_file

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(313)
arrays = {
    "net/f32": rng.standard_normal((4, 3)).astype(np.float32),
    "net/f16": rng.standard_normal((3, 5)).astype(np.float16),
    "net/f64": rng.standard_normal(7),
    "net/odd": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32),
    "net/scalar": np.array(0.25, np.float32),
    "net/empty": np.zeros((0, 3), np.float32),
    "count/i64": np.array([-(2**63), 2**63 - 1], np.int64),
    "count/i32": np.arange(-3, 3, dtype=np.int32).reshape(2, 3),
    "count/i16": np.array([-32768, 32767], np.int16),
    "count/u8": np.arange(5, dtype=np.uint8),
    "count/u32": np.array([2**32 - 1], np.uint32),
    "chunked": rng.integers(0, 5, (70, 33)).astype(np.float32),
}
save_file(arrays, folder / "expected.safetensors")


def h5(name, change=lambda a: a, **options):
    libver = options.pop("libver", "earliest")
    with h5py.File(folder / name, "w", libver=libver) as file:
        for index, (path, array) in enumerate(arrays.items()):
            chunked = options if array.ndim and array.size else {}
            dataset = file.create_dataset(path, data=change(array), **chunked)
            dataset.attrs["need_grad"] = index % 2 == 0
            dataset.attrs["index"] = index


h5("earliest.h5")
h5("latest.h5", libver="latest")
h5("gzip.h5", chunks=True, compression="gzip")
h5("gzip_latest.h5", libver="latest", chunks=True, compression="gzip", shuffle=True)
h5("big_endian.h5", lambda a: a.astype(a.dtype.newbyteorder(">")))
np.savez(folder / "plain.npz", **arrays)
np.savez_compressed(folder / "compressed.npz", **arrays)
np.savez(folder / "fortran.npz", **{path: np.asfortranarray(array) for path, array in arrays.items()})
np.savez(folder / "big_endian.npz", **{path: array.astype(array.dtype.newbyteorder(">")) for path, array in arrays.items()})
