#!/usr/bin/env python3
"""Checks that NNabla and onnxruntime compute from exported networks what layerfn computes.

    LAYERFN_EXPORTED=/tmp/exported cargo test -p layerfn-tests --test network -- export
    python tests/interop/exported.py /tmp/exported

The test writes a file `NAME.nnp` or `NAME.onnx` for each network, with its inputs and outputs beside it. Files of the kind whose
program is not installed are left out: nnabla==1.35.1 wants Python 3.10, numpy<1.24 and protobuf<3.20; onnx and onnxruntime take
any. Needs safetensors. Networks of integers (`NAME.int8.onnx`) are compared with those of floats.
"""
import glob
import os
import sys

import numpy as np
from safetensors.numpy import load_file

TOLERANCE = 1e-5


def in_nnabla(path, inputs):
    import nnabla as nn
    from nnabla.utils import load

    nn.clear_parameters()
    info = load.load([path], prepare_data_iterator=False, batch_size=inputs[0].shape[0])
    executor = info.executors["runtime"]
    for variable, values in zip(executor.dataset_assign, inputs):
        assert variable.variable_instance.shape == values.shape, (variable.variable_instance.shape, values.shape)
        variable.variable_instance.d = values
    executor.forward_target.forward()
    return [np.array(variable.variable_instance.d) for variable in executor.output_assign]


def by_loader(path, inputs):
    import nnabla as nn
    from nnabla.utils.nnp_graph import NnpLoader

    nn.clear_parameters()
    network = NnpLoader(path).get_network("main", batch_size=inputs[0].shape[0])
    names = ["x"] if len(inputs) == 1 else ["x{}".format(n + 1) for n in range(len(inputs))]
    for name, values in zip(names, inputs):
        network.inputs[name].d = values
    # Second results that nobody takes are outputs, too.
    names = [name for name in network.outputs if name == "y" or name[0] == "y" and name[1:].isdigit()]
    names.sort(key=lambda name: int(name[1:] or 0))
    nn.forward_all([network.outputs[name] for name in names])
    return [np.array(network.outputs[name].d) for name in names]


def in_onnxruntime(path, inputs):
    import onnx
    import onnxruntime

    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: values for value, values in zip(session.get_inputs(), inputs)})


def check(path, run):
    """What differs, one text each."""
    tensors = load_file(os.path.splitext(path)[0] + ".safetensors")
    sort = lambda kind: [tensors[name] for name in sorted(tensors) if name.startswith(kind)]
    found, wanted = run(path, sort("input")), sort("output")
    if len(found) != len(wanted):
        yield "{} outputs instead of {}".format(len(found), len(wanted))
    for n, (found, wanted) in enumerate(zip(found, wanted)):
        if found.shape != wanted.shape:
            yield "output {} has the shape {} instead of {}".format(n, found.shape, wanted.shape)
        elif ".int8" in path and abs(found - wanted).max() < 0.1 * abs(wanted).max():
            pass
        elif not np.allclose(found, wanted, TOLERANCE, TOLERANCE):
            yield "output {} differs by {}".format(n, abs(found - wanted).max())


def main(folder):
    runs = {}
    try:
        import nnabla  # noqa: F401
        from nnabla.logger import logger

        logger.setLevel(100)
        runs[".nnp"] = [in_nnabla, by_loader]
    except ImportError:
        pass
    try:
        import onnxruntime  # noqa: F401

        runs[".onnx"] = [in_onnxruntime]
    except ImportError:
        pass
    failed = count = 0
    for path in sorted(glob.glob(os.path.join(folder, "*"))):
        for run in runs.get(os.path.splitext(path)[1], []):
            try:
                texts = list(check(path, run))
            except Exception as error:  # noqa: BLE001 - whatever the program says is a failure
                texts = ["{}: {}".format(type(error).__name__, str(error).strip()[-300:])]
            count, failed = count + 1, failed + bool(texts)
            print("{:6s} {} {}{}".format("FAILED" if texts else "ok", os.path.basename(path), run.__name__,
                                         "".join("\n    " + text for text in texts)))
    print("{} checks, {} failed".format(count, failed))
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
