#!/usr/bin/env python3
"""Writes the files of tests/checkpoint/h5: a small model in each format of HDF5, links of all kinds, other members.

Usage: h5_files.py FOLDER
"""
import sys
from pathlib import Path

import h5py
import numpy as np

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)


def model(name, libver="earliest", track_order=False, **options):
    rng = np.random.default_rng(5)
    with h5py.File(folder / name, "w", libver=libver, track_order=track_order) as file:
        shapes = {"conv/W": (4, 3, 3), "conv/b": (4,), "bn/mean": (1, 4), "affine/W": (30, 10), "n": ()}
        for index, (path, shape) in enumerate(shapes.items()):
            data = rng.standard_normal(shape).astype(np.float32)
            dataset = file.create_dataset(path, data=data, **(options if shape else {}))
            dataset.attrs["need_grad"] = index % 2 == 0
            dataset.attrs["index"] = index


model("plain.h5")
model("gzip.h5", chunks=True, compression="gzip")
model("ordered.h5", track_order=True)
model("latest.h5", libver="latest")
model("latest_gzip.h5", libver="latest", chunks=True, compression="gzip", shuffle=True, fletcher32=True)

with h5py.File(folder / "links.h5", "w") as file:
    file["w"] = np.arange(6, dtype=np.float32).reshape(2, 3)
    file["tied"] = h5py.SoftLink("/w")
    file["enc/w"] = np.ones(2, np.float32)
    file["dec"] = h5py.SoftLink("/enc")
    file["enc/near"] = h5py.SoftLink("./w")
    file["chain"] = h5py.SoftLink("dec/near")
    file["hard"] = file["w"]
    file["gone"] = h5py.SoftLink("/nothing/here")
    file["loop"] = h5py.SoftLink("/loop")
    file["enc/up"] = h5py.SoftLink("/")
    file["other"] = h5py.ExternalLink("plain.h5", "/n")

with h5py.File(folder / "mixed.h5", "w") as file:
    file["w"] = np.arange(2, dtype=np.float32)
    file["note"] = "trained on Monday"
    file["label"] = np.bytes_(b"fixed")
    file["pair"] = np.zeros(2, [("x", "f4"), ("y", "i2")])
    file["wave"] = np.zeros(2, np.complex64)
    file["where"] = file.ref
    file["none"] = h5py.Empty("f4")
    file["kind"] = np.dtype("f4")
    file.create_dataset("named", data=np.float32(3), dtype=file["kind"])
    file.create_dataset("packed", data=np.ones(100, np.float32), compression="lzf")
    file.create_dataset("grows", data=np.ones(10, np.float32), maxshape=(100,), chunks=(8,))
    file.create_dataset("lists", (2,), h5py.vlen_dtype(np.int32))
    file.create_dataset("raw", data=np.zeros(2, "V3"))

with h5py.File(folder / "many_attributes.h5", "w", libver="latest") as file:
    for name in ["a", "b"]:
        file[name] = np.float32(1)
        for i in range(20):
            file[name].attrs[f"note{i}"] = f"text {i}"
        file[name].attrs["need_grad"] = name == "a"
        file[name].attrs["index"] = 1 if name == "a" else 0

with h5py.File(folder / "chunks.h5", "w", libver="latest") as file:
    data = np.arange(7 * 9 * 5, dtype=np.float32).reshape(7, 9, 5)
    file.create_dataset("edges", data=data, chunks=(3, 4, 5))
    file.create_dataset("packed", data=data, chunks=(2, 2, 2), compression="gzip")
    # So many chunks that their index has pages.
    file.create_dataset("pages", data=np.arange(1100, dtype=np.float32), chunks=(1,))
    file.create_dataset("big", data=data.astype(">f4"), chunks=(7, 9, 5), fletcher32=True)
    file.create_dataset("unwritten", (3,), "f4", fillvalue=2.5)
    file.create_dataset("random", data=np.arange(64, dtype="u1"), chunks=(16,), compression="gzip", shuffle=True)
