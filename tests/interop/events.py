"""TensorBoard reads what a Monitor wrote: scalars, histograms, images, text and the network.

    pip install tensorboard==2.21.0
    LAYERFN_EVENTS=/tmp/events cargo test -p layerfn-tests --test data -- tensorboard
    python tests/interop/events.py /tmp/events

The test writes a file of each kind, with the values below.
"""

import sys

from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
from tensorboard.compat.proto import graph_pb2

events = EventAccumulator(sys.argv[1], size_guidance=STORE_EVERYTHING_SIZE_GUIDANCE)
events.Reload()
failed = 0


def check(name, ok):
    global failed
    failed += not ok
    print(f"{'ok' if ok else 'FAILED'} {name}")


scalars = events.Scalars("training loss")
check("scalars", [(s.step, s.value) for s in scalars] == [(0, 0.5), (1, 0.25)])
[histogram] = events.Histograms("weights")
value = histogram.histogram_value
check("histogram", (value.min, value.max, value.num, value.sum) == (0, 23, 24, 276) and sum(value.bucket) == 24)
images = [image for n in range(2) for image in events.Images(f"digits/{n}")]
check("images", [(i.width, i.height, i.encoded_image_string[:4]) for i in images] == [(2, 2, b"\x89PNG")] * 2)
[text] = events.Tensors("summary")
check("text", text.tensor_proto.string_val == [b"two layers"])

graph = graph_pb2.GraphDef.FromString(events.Graph().SerializeToString())
nodes = {node.name: node for node in graph.node}
shape = lambda node: [d.size for d in nodes[node].attr["_output_shapes"].list.shape[0].dim]
check("network", len(nodes) == len(graph.node) == 5 and list(nodes["residual"].input) == ["relu", "fc/affine"])
check("network: shapes", shape("fc/affine") == [1, 4] and nodes["fc/affine"].op == "affine")
check("network: inputs", all(name in nodes for node in graph.node for name in node.input))
sys.exit(failed > 0)
