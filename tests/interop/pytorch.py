"""Makes tests/checkpoint/pytorch: a state dict of random weights, an input and PyTorch's output.

    python tests/interop/pytorch.py            # needs torch and safetensors
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
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


main()
