#!/usr/bin/env python3
"""Writes HDF5 files after random histories of edits, each with what is in it.

Beside NAME.h5 stands NAME.txt: a line for each path that reaches a dataset, soft links followed, with its values.

Usage: h5_histories.py FOLDER COUNT [SEED]
"""
import random
import sys
from pathlib import Path

import h5py
import numpy as np

folder, count = Path(sys.argv[1]), int(sys.argv[2])
seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
folder.mkdir(parents=True, exist_ok=True)


def opened(group, name):
    """What is behind a link, if anything."""
    try:
        return group[name]
    except (KeyError, RuntimeError):
        return None


def groups(file):
    found = [file]
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Group) else None)
    return found


def listing(group, prefix, above, lines):
    """Every path to a dataset, but none that leads through a group back into itself."""
    for name in group:
        path = prefix + name
        item = opened(group, name)
        if isinstance(item, h5py.Dataset):
            lines.append(f"{path}\t{' '.join(repr(float(value)) for value in np.ravel(item[()]))}")
        elif isinstance(item, h5py.Group) and item.id not in above:
            listing(item, path + "/", [*above, item.id], lines)


def history(target, rng):
    libver = rng.choice(["earliest", "latest", ("earliest", "v110"), "v108"])
    track = rng.random() < 0.4
    names = [f"p{i}" for i in range(30)] + ["weight_of_the_first_layer", "bias_of_the_first_layer", "running_mean/x", "W", "b", "größe"]
    long = rng.random() < 0.1
    value = 0
    with h5py.File(target, "w", libver=libver, track_order=track) as file:
        for _ in range(rng.choice([5, 20, 60, 150])):
            group = rng.choice(groups(file))
            name = rng.choice(names) + ("_" * rng.randrange(200) if long else "")
            what = rng.random()
            members = list(group)
            if what < 0.5 or not members:
                if name in group or (("/" in name) and isinstance(opened(group, name.split("/")[0]), h5py.Dataset)):
                    continue
                if "/" in name and name.split("/")[0] in group and not isinstance(opened(group, name.split("/")[0]), h5py.Group):
                    continue
                value += 1
                size = rng.choice([1, 1, 1, 7, 40])
                data = np.arange(value, value + size, dtype="f4") if size > 1 else np.float32(value)
                options = {}
                if size == 40:
                    options = rng.choice([{}, {"chunks": (16,)}, {"chunks": (40,), "compression": "gzip"},
                                          {"chunks": (9,), "compression": "gzip", "shuffle": True, "fletcher32": True}])
                try:
                    dataset = group.create_dataset(name, data=data, track_order=track, **options)
                except ValueError:
                    continue
                for i in range(rng.choice([0, 0, 2, 12])):
                    dataset.attrs[f"note{i}"] = "text" if i % 2 else i
            elif what < 0.6 and name.split("/")[0] not in group:
                group.create_group(name, track_order=track)
            elif what < 0.75:
                del group[rng.choice(members)]
            elif what < 0.87 and name.split("/")[0] not in group:
                group.move(rng.choice(members), name)
            elif what < 0.94 and name not in group and "/" not in name:
                group[name] = h5py.SoftLink(rng.choice(["/p1", "p2", "/p3/p4", "/", "nothing", group.name]))
            elif name not in group and "/" not in name:
                item = opened(group, rng.choice(members))
                if item is not None:
                    group[name] = item
            if rng.random() < 0.05:
                file.flush()
    with h5py.File(target, "r+", libver=libver) as file:
        for name in list(file):
            if rng.random() < 0.1:
                del file[name]
    with h5py.File(target) as file:
        lines = []
        listing(file, "", [file.id], lines)
        target.with_suffix(".txt").write_text("".join(line + "\n" for line in sorted(lines)))


for number in range(count):
    history(folder / f"{number:04}.h5", random.Random(seed * 1_000_000 + number))
