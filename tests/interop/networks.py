#!/usr/bin/env python3
"""Checks that NNabla computes from network files that layerfn has saved what it computed from the originals.

    LAYERFN_SAVED_NETWORKS=/tmp/networks cargo test -p layerfn-tests --test golden -- networks
    python tests/interop/networks.py /tmp/networks

The test writes one `.nnp` for each fixture; this program runs them by the recorded inputs. Needs NNabla and safetensors.
"""
import json
import os
import sys

import nnabla as nn
import numpy as np
from nnabla.logger import logger
from nnabla.utils import load
from nnabla.utils.nnp_graph import NnpLoader
from safetensors.numpy import load_file

logger.setLevel(100)
FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "networks")


def by_loader(path, name, batch_size, inputs):
    network = NnpLoader(path).get_network(name, batch_size=batch_size)
    for key, variable in network.inputs.items():
        variable.d = inputs[key]
    nn.forward_all(list(network.outputs.values()))
    return {key: np.array(variable.d) for key, variable in network.outputs.items()}


def by_executor(path, name, batch_size, inputs):
    info = load.load([path], prepare_data_iterator=False, batch_size=batch_size)
    executor = info.executors[name]
    for variable, data_name in executor.dataset_assign.items():
        variable.variable_instance.d = inputs[data_name].reshape(variable.variable_instance.shape)
    for variable, generator in executor.generator_assign.items():
        variable.variable_instance.d = generator(variable.variable_instance.shape)
    executor.forward_target.forward()
    return {name: np.array(variable.variable_instance.d) for variable, (_, name) in executor.output_assign.items()}


def run(path, entry):
    """What differs, one text each."""
    tensors = load_file(os.path.join(FIXTURES, entry["tensors"]))
    tolerance = entry["tolerance"]
    for n, one in enumerate(entry["runs"]):
        nn.clear_parameters()
        inputs = {name: tensors["run{}.input.{}".format(n, name)] for name in one["inputs"]}
        call = by_loader if one["via"] == "loader" else by_executor
        found = call(path, one["name"], one["batch_size"], inputs)
        for name in one["outputs"]:
            want = tensors["run{}.output.{}".format(n, name)]
            if not np.allclose(found[name], want, tolerance["rtol"], tolerance["atol"]):
                yield "run {}, {}: {} differs by {}".format(n, one["via"], name, abs(found[name] - want).max())


def main(folder):
    with open(os.path.join(FIXTURES, "manifest.json")) as file:
        entries = json.load(file)["networks"]
    failed = 0
    for entry in entries:
        path = os.path.join(folder, entry["id"] + ".nnp")
        try:
            texts = list(run(path, entry)) if os.path.exists(path) else ["no " + path]
        except Exception as error:  # noqa: BLE001 - whatever NNabla says is a failure
            texts = ["{}: {}".format(type(error).__name__, str(error).strip().splitlines()[-1:])]
        failed += bool(texts)
        print("{:6s} {}{}".format("FAILED" if texts else "ok", entry["id"], "".join("\n    " + text for text in texts)))
    print("{} networks, {} failed".format(len(entries), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
