#!/usr/bin/env python3
"""Writes files that are well-formed and mean harm: they point outside, or declare what they do not hold.

Usage: hostile.py FOLDER
"""
import io
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)


def h5(name, fill, **options):
    with h5py.File(folder / name, "w", **options) as file:
        fill(file)


def external_data(file):
    file.create_dataset("a", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "a", (4,))
    file.create_virtual_dataset("a", layout)


def external_link(file):
    file["a"] = h5py.ExternalLink("earliest.h5", "/net/f32")


def soft_loop(file):
    file["a"] = h5py.SoftLink("/b")
    file["b"] = h5py.SoftLink("/a")


def group_loop(file):
    group = file.create_group("g")
    group["again"] = file["/"]


def huge_chunks(file):
    file.create_dataset("a", (2**40,), "f4", chunks=(2**28,))


def huge_compressed(file):
    file.create_dataset("a", (2**36,), "f4", chunks=(2**20,), compression="gzip")


def deep(file):
    group = file
    for _ in range(400):
        group = group.create_group("g")
    group["a"] = np.float32(1)


def shared(file):
    file["a"] = np.zeros(1000, np.float32)
    for i in range(500):
        file[f"b{i}"] = file["a"]


def odd_types(file):
    file["text"] = "text"


def compound(file):
    file["a"] = np.zeros(2, [("x", "f4"), ("y", "i2")])


def references(file):
    file["a"] = file.ref


def null(file):
    file["a"] = h5py.Empty("f4")


def lists(file):
    file.create_dataset("a", (2,), h5py.vlen_dtype(np.int32))


def complex_numbers(file):
    file["a"] = np.zeros(2, np.complex64)


def attributes(file):
    file["a"] = np.float32(1)
    file["a"].attrs["index"] = "seven"
    file["a"].attrs["need_grad"] = [1.5, 2.5]


def resizable(file):
    file.create_dataset("a", (3,), "f4", maxshape=(None,))


def lzf(file):
    file.create_dataset("a", (1000,), "f4", compression="lzf")[...] = 1


def scale_offset(file):
    file.create_dataset("a", (1000,), "i4", scaleoffset=3)[...] = 1


def dots(file):
    file["x..y/.hidden"] = np.float32(1)


for fill in [external_data, virtual, external_link, soft_loop, group_loop, huge_chunks, huge_compressed, deep, shared,
             odd_types, compound, references, null, lists, complex_numbers, attributes, resizable, lzf, scale_offset, dots]:
    h5(f"{fill.__name__}.h5", fill)
h5("huge_chunks_latest.h5", huge_chunks, libver="latest")
h5("resizable_latest.h5", resizable, libver="latest")


def archive(name, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(folder / name, "w", method) as file:
        for member, content in members:
            file.writestr(zipfile.ZipInfo(member), content, method)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


archive("zeros.npz", [("a.npy", npy(np.zeros(4_000_000, np.float32)))])
archive("upwards.npz", [("../../../tmp/a.npy", npy(np.zeros(2, np.float32)))])
archive("absolute.npz", [("/tmp/a.npy", npy(np.zeros(2, np.float32)))])
archive("objects.npz", [("a.npy", npy(np.array([{}], dtype=object)))])
archive("upwards.nnp", [("../../../tmp/parameter.protobuf", b"\xff" * 20), ("nnp_version.txt", b"0.1\n")])
archive("bomb.nnp", [("parameter.h5", b"\0" * 4_000_000)])
archive("nested.nnp", [("network.nntxt", b"network {" * 50_000)])
