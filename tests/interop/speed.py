#!/usr/bin/env python3
"""Times loading and saving a store of 400 MB, and the memory it takes, beside h5py and safetensors.

Usage: speed.py SPEED_PROGRAM [FOLDER]
SPEED_PROGRAM is made by `cargo build --release -p layerfn-tests --bin checkpoint_speed`.
Nine runs in processes of their own, ours and Python's in turn: median and least time on the clock, least time of the
processor; the memory is what a run adds to its process at most. Files are in the page cache. What is saved is synced to
the disk, by Python too; a FOLDER in memory (/dev/shm) leaves the disk out of it.
"""
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON = r'''
import os, resource, sys, time
import numpy as np
what, kind, file = sys.argv[1:]
count, side = 100, 1000
def cpu(): return int(open("/proc/thread-self/schedstat").read().split()[0]) / 1e9
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
if kind == "h5":
    import h5py
    def save(arrays):
        with h5py.File(file, "w") as f:
            for i, (k, v) in enumerate(arrays.items()):
                d = f.create_dataset(k, data=v); d.attrs["index"] = i; d.attrs["need_grad"] = True
    def load():
        found = {}
        with h5py.File(file, "r") as f:
            f.visititems(lambda k, d: found.__setitem__(k, d[...]) if isinstance(d, h5py.Dataset) else None)
        return found
else:
    from safetensors.numpy import load_file, save_file
    save = lambda arrays: save_file(arrays, file)
    load = lambda: load_file(file)
if what == "save":
    arrays = {f"s{i}/W": np.full((side, side), i, np.float32) for i in range(count)}
    before = peak(); start = time.perf_counter(), cpu(); save(arrays)
    with open(file, "rb+") as f: os.fsync(f.fileno())
else:
    before = peak(); start = time.perf_counter(), cpu(); arrays = load()
print(time.perf_counter() - start[0], cpu() - start[1], peak() - before)
'''


RUNS = 9


def run(command):
    return [float(figure) for figure in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def summary(runs):
    """Median and least seconds, least seconds of the processor, megabytes."""
    seconds, processor, megabytes = zip(*runs)
    return statistics.median(seconds), min(seconds), min(processor), statistics.median(megabytes)


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        print(f"{'':17} {'layerfn':^36} {'Python':^36} {'ratios':^16}")
        heads = f" {'median':>8} {'least':>8} {'processor':>10} {'MB':>6} "
        print(f"{'':17}{heads} {heads}  {'median':>6} {'least':>6} {'proc.':>6}")
        for kind in ["h5", "safetensors", "protobuf", "npz"]:
            for what in ["save", "load"]:
                file = str(Path(folder) / f"model.{kind}")
                commands = [[program, what, file]]
                if kind in ["h5", "safetensors"]:
                    commands.append([sys.executable, "-c", PYTHON, what, kind, file])
                rounds = [[run(command) for command in commands] for _ in range(RUNS)]
                figures = [summary(runs) for runs in zip(*rounds)]
                line = f"{kind:11} {what:5}"
                line += " ".join(f" {a:8.3f} {b:8.3f} {c:10.3f} {d:6.0f} " for a, b, c, d in figures)
                if len(figures) == 2:
                    line += " " + " ".join(f"{ours / theirs:6.2f}" for ours, theirs in zip(*[f[:3] for f in figures]))
                print(line, flush=True)


if __name__ == "__main__":
    main()
