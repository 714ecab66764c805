"""Checks that Keras computes the same from weights that layerfn has written, and that layerfn reads a whole `.keras`.

    LAYERFN_KERAS=/tmp/keras cargo test -p layerfn-tests --test checkpoint keras
    cargo build --release -p layerfn --features cli
    python tests/interop/keras_reads.py /tmp/keras target/release/layerfn

The folder must exist; the test writes a file for each model of `keras_files.py` into it. Needs what that needs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from keras_files import FOLDER, Sequences, fill, images
from safetensors.numpy import load_file

TOLERANCE = 1e-5


def close(name, got, wanted):
    difference = np.abs(np.asarray(got) - wanted).max()
    print(f"{name}: {difference:.1e}")
    return difference < TOLERANCE


def main(written, program):
    answers = load_file(FOLDER / "answers.safetensors")
    good = True
    for name, model in [("images", images()), ("sequences", Sequences())]:
        x = answers[name]
        model(x)
        assert not close(f"{name} before", model(x), answers[f"{name}_output"])
        model.load_weights(Path(written) / f"{name}.weights.h5")
        good &= close(name, model(x), answers[f"{name}_output"])

    with tempfile.TemporaryDirectory() as folder:
        model = images()
        model.compile("sgd", "mse")
        fill(model, np.random.default_rng(5))
        archive, read = Path(folder) / "model.keras", Path(folder) / "read.weights.h5"
        model.save(archive)
        subprocess.run([program, "inspect", archive], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([program, "convert", "--allow-loss", archive, read], check=True, stderr=subprocess.DEVNULL)
        again = images()
        again.load_weights(read)
        good &= close("archive", again(answers["images"]), np.asarray(model(answers["images"])))
    return 0 if good else 1


sys.exit(main(*sys.argv[1:]))
