"""Makes tests/checkpoint/pytorch: a state dict of random weights, an input and PyTorch's output.

    python tests/interop/pytorch.py            # needs torch and safetensors

With the folder in which the test has saved its way back, it loads that with `strict=True` and compares the outputs:

    LAYERFN_PYTORCH_DIR=/tmp/back cargo test -p layerfn-tests --test checkpoint pytorch
    python tests/interop/pytorch.py /tmp/back
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class Block(nn.Module):
    def __init__(self, inmaps, outmaps, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inmaps, outmaps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outmaps)
        self.conv2 = nn.Conv2d(outmaps, outmaps, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outmaps)
        self.downsample = None
        if stride != 1 or inmaps != outmaps:
            self.downsample = nn.Sequential(nn.Conv2d(inmaps, outmaps, 1, stride, bias=False), nn.BatchNorm2d(outmaps))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Net(nn.Module):
    """A ResNet of few maps, with modules of other kinds behind it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.layer1 = nn.Sequential(Block(6, 6, 1), Block(6, 8, 2))
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 5, 2, 2)
        self.act = nn.PReLU()
        self.fc1 = nn.Linear(5, 5)
        self.ln = nn.LayerNorm(5)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.act(self.up(self.norm(self.layer1(x))))
        return self.fc2(self.ln(torch.relu(self.fc1(x.mean((2, 3))))))


def main():
    torch.manual_seed(5)
    net = Net()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if value.dim() < 2 else torch.randn_like(value) / value[0].numel() ** 0.5)
    net.eval()
    folder = Path(__file__).parent.parent / "checkpoint" / "pytorch"
    folder.mkdir(exist_ok=True)
    x = torch.randn(2, 3, 16, 16)
    save_file(net.state_dict(), folder / "state.safetensors")
    save_file({"input": x, "output": net(x).detach()}, folder / "answers.safetensors")
    torch.save(net.state_dict(), folder / "state.pt")
    kinds(folder)
    transformer(folder)
    recurrent(folder)
    resnet(folder)
    sequence(folder)


class Resnet(nn.Module):
    """torchvision's `resnet18` with an eighth of its channels: the same modules under the same names."""

    def __init__(self, classes=5, widths=(8, 16, 32, 64)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inmaps = widths[0]
        for number, width in enumerate(widths, 1):
            stride = 1 if number == 1 else 2
            setattr(self, f"layer{number}", nn.Sequential(Block(inmaps, width, stride), Block(width, width, 1)))
            inmaps = width
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inmaps, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet(folder):
    torch.manual_seed(11)
    net = Resnet()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if value.dim() < 2 else torch.randn_like(value) / value[0].numel() ** 0.5)
        net.eval()
        x = torch.randn(2, 3, 40, 48)
        answer = net(x)
        # So that each block counts, and differences of 1e-5 do.
        net.fc.weight /= answer.abs().max()
        answer = net(x)
    torch.save(net.state_dict(), folder / "resnet18.pt")
    save_file({"input": x, "output": answer}, folder / "resnet18.safetensors")


class Sequence(nn.Module):
    """A recurrent layer of each kind that the others are not."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, bias=False)
        self.gru = nn.GRU(4, 3, bias=False, num_layers=2)
        self.both = nn.GRU(3, 4, bidirectional=True)
        self.rnn = nn.RNN(8, 3, num_layers=3)
        self.wide = nn.LSTM(3, 2, num_layers=2, bidirectional=True, bias=False)
        self.two = nn.GRU(4, 2, num_layers=2, bidirectional=True)
        self.gate = nn.GRU(4, 3)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)[0]
        return x


def answers(folder, name, seed, module, *dims):
    """A module of recurrent layers with random weights, and what it answers."""
    torch.manual_seed(seed)
    net = module()
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(torch.randn_like(value) / 2)
        x = torch.randn(*dims)
        answer = net(x)
    torch.save(net.state_dict(), folder / f"{name}.pt")
    save_file({"input": x, "output": answer}, folder / f"{name}.safetensors")


def sequence(folder):
    answers(folder, "sequence", 13, Sequence, 5, 2, 3)


def check(back):
    """What the test has saved is what PyTorch takes."""
    folder = Path(__file__).parent.parent / "checkpoint" / "pytorch"
    for name, net in [("resnet18", Resnet()), ("sequence", Sequence())]:
        state = load_file(back / f"{name}.safetensors")
        # The number of batches counts in training alone, and is not known here.
        for key, value in net.state_dict().items():
            if key.endswith("num_batches_tracked"):
                state[key] = value
        net.load_state_dict(state, strict=True)
        net.eval()
        wanted = load_file(folder / f"{name}.safetensors")
        with torch.no_grad():
            difference = (net(wanted["input"]) - wanted["output"]).abs().max().item()
        assert difference < 1e-5, (name, difference)
        print(f"{name}: within {difference:.1e}")


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, dropout=0.0), 1)
        self.out = nn.Linear(8, 3)

    def forward(self, source, target):
        return self.out(self.decoder(target, self.encoder(source)))


def transformer(folder):
    net = Translator().eval()
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(torch.randn_like(value) / 3 + (value.dim() == 1) / 2)
        source, target = torch.randn(5, 3, 8), torch.randn(4, 3, 8)
        answer = net(source, target)
    torch.save(net.state_dict(), folder / "transformer.pt")
    save_file({"source": source, "target": target, "output": answer}, folder / "transformer.safetensors")


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        self.second = nn.GRU(8, 5, num_layers=2)
        self.third = nn.RNN(5, 4, bidirectional=True, bias=False)
        self.cell = nn.LSTMCell(8, 6)
        self.gate = nn.GRUCell(6, 3)

    def forward(self, x):
        x = self.third(self.second(self.first(x)[0])[0])[0][-1]
        zeros = torch.zeros(len(x), 6)
        h = self.cell(x, (zeros, zeros + 0.5))[0]
        return self.gate(h, torch.full((len(x), 3), 0.5))


def recurrent(folder):
    answers(folder, "recurrent", 7, Sequences, 6, 2, 3)


def kinds(folder):
    """Tensors of every kind in dicts within a dict, beside what is no tensor; and copies of those that can be read."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": base,
        "columns": base.t(),
        "slice": base[1:3, ::2],
        "row": base[2],
        "expanded": base[0].expand(3, 6),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "double": torch.tensor([1e300, -0.0], dtype=torch.float64),
        "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "bfloat": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
        "long": torch.tensor([-1, 2**40]),
        "int": torch.tensor([-7], dtype=torch.int32),
        "short": torch.tensor([-300, 300], dtype=torch.int16),
        "char": torch.tensor([-100, 100], dtype=torch.int8),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }
    parameter = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    frozen = nn.Parameter(torch.tensor([3.0]), requires_grad=False)
    torch.save(
        {
            "model": tensors,
            "parameter": parameter,
            "frozen": frozen,
            "epoch": 3,
            "lr": 0.1,
            "name": "net",
            "history": [1, 2],
            "complex": torch.tensor([1j]),
            "states": {0: {"step": torch.tensor(4.0)}},
            "again": tensors,
        },
        folder / "kinds.pt",
    )
    copies = {f"model/{name}": tensor.contiguous().clone() for name, tensor in tensors.items()}
    copies |= {"parameter": parameter.detach(), "frozen": frozen.detach(), "states/0/step": torch.tensor(4.0)}
    save_file(copies, folder / "kinds.safetensors")


if sys.argv[1:]:
    check(Path(sys.argv[1]))
else:
    main()
