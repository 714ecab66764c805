"""Makes tests/checkpoint/keras: weights of Keras in its formats, inputs and Keras's outputs.

    pip install keras==3.15.1 jax==0.12.0.1 h5py==3.16.0 safetensors==0.8.0
    python tests/interop/keras_files.py
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

from pathlib import Path

import keras
import numpy as np
from keras import layers
from safetensors.numpy import save_file

FOLDER = Path(__file__).parent.parent / "checkpoint" / "keras"


def images():
    """Kernels of every kind, square ones too, and a `Flatten` behind images that are not square."""
    return keras.Sequential(
        [
            keras.Input((8, 7, 3)),
            layers.Conv2D(3, 3, padding="same", activation="relu", name="conv2d"),
            layers.BatchNormalization(name="batch_normalization"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise_conv2d"),
            layers.PReLU(shared_axes=[1, 2], name="p_re_lu"),
            layers.Dropout(0.5),
            layers.Conv2D(4, (3, 2), strides=2, use_bias=False, name="conv2d_1"),
            layers.GroupNormalization(2, name="group_normalization"),
            layers.Conv2DTranspose(4, 2, strides=2, name="conv2d_transpose"),
            layers.Flatten(),
            layers.Dense(5, activation="relu", name="dense"),
            keras.Sequential([layers.Dense(5, activation="tanh", name="dense")], name="sequential"),
            layers.LayerNormalization(name="layer_normalization"),
            layers.Dense(3, use_bias=False, name="dense_1"),
        ],
        name="images",
    )


class Sequences(keras.Model):
    def __init__(self):
        super().__init__(name="sequences")
        self.words = layers.Embedding(9, 4)
        self.both = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
        self.attend = layers.MultiHeadAttention(2, 4)
        self.gated = layers.GRU(5, return_sequences=True)
        self.two = layers.Bidirectional(layers.GRU(3, return_sequences=True))
        self.plain = layers.SimpleRNN(3, return_sequences=True)
        self.bare = layers.LSTM(3, use_bias=False, return_sequences=True)
        self.line = layers.Conv1D(4, 3)
        self.lstm_cell = layers.LSTMCell(3)
        self.gru_cell = layers.GRUCell(3)

    def call(self, x):
        x = self.both(self.words(x))
        x = self.attend(x, x)
        x = self.line(self.bare(self.plain(self.two(self.gated(x)))))[:, -1]
        half = keras.ops.full((x.shape[0], 3), 0.5)
        x, _ = self.lstm_cell(x, [half, half])
        return self.gru_cell(x, [half])[0]


def fill(model, generator):
    for variable in model.variables:
        if not variable.dtype.startswith("float"):
            continue
        values = generator.standard_normal(variable.shape) / 2
        if len(variable.shape) == 1:
            values = np.abs(values) + 0.25
        variable.assign(values.astype("float32"))


def named(model, prefix):
    return {variable.path.removeprefix(prefix): np.asarray(variable) for variable in model.weights}


def main():
    FOLDER.mkdir(exist_ok=True)
    generator = np.random.default_rng(3)
    answers = {}

    model = images()
    # A step leaves the states of an optimizer and of metrics in the files.
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.zeros((2, 8, 7, 3)), np.zeros((2, 3)), verbose=0)
    fill(model, generator)
    x = generator.standard_normal((2, 8, 7, 3)).astype("float32")
    answers |= {"images": x, "images_output": np.asarray(model(x))}
    model.save_weights(FOLDER / "images.weights.h5")
    model.save(FOLDER / "images.h5")
    save_file(named(model, "images/"), FOLDER / "images.safetensors")

    model = Sequences()
    x = generator.integers(0, 9, (2, 6)).astype("int64")
    model(x)
    fill(model, generator)
    answers |= {"sequences": x, "sequences_output": np.asarray(model(x))}
    model.save_weights(FOLDER / "sequences.weights.h5")
    save_file(answers, FOLDER / "answers.safetensors")


if __name__ == "__main__":
    main()
