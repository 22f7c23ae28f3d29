"""The networks of the examples and studies: residual networks for small and large pictures, and
a decoder-only transformer. Plain PyTorch, with nothing of Gapless in it."""
import math

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a way around them (He et al., 2016). Where the
    size changes the way around takes every other pixel and pads channels with zeros (their
    option A), or, with `project`, is a 1x1 convolution (option B)."""

    def __init__(self, inputs, outputs, stride, project=False):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs
        self.around = None
        if project and (stride > 1 or self.more):
            self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.around is not None:
            x = self.around(x)
        elif self.stride > 1 or self.more:
            x = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(y + x)


class ResNet(nn.Module):
    """ResNet-8, -20, -32, ... of He et al. (2016) for 32x32 pictures: depth 6 n + 2, channels 16,
    32, 64. With `widen` 4 and depth 16, WRN-16-4 of Zagoruyko and Komodakis (2016), but for the
    place of batch norm and ReLU, which is before each convolution there."""

    def __init__(self, depth=20, widen=1, classes=10):
        super().__init__()
        blocks = (depth - 4) // 6 if widen > 1 else (depth - 2) // 6
        widths = [16 * widen, 32 * widen, 64 * widen]
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        layers, inputs = [], 16
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(inputs, width, 2 if stage > 0 and block == 0 else 1, project=widen > 1))
                inputs = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, four times as many channels out as within."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.around = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.body(x) + self.around(x))


class ResNet50(nn.Module):
    """ResNet-50 for 224x224 pictures; the stride is in the 3x3 convolution."""

    def __init__(self, classes=1000):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                                  nn.MaxPool2d(3, 2, 1))
        layers, inputs = [], 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                layers.append(Bottleneck(inputs, 64 << stage, 2 if stage > 0 and block == 0 else 1))
                inputs = 4 * (64 << stage)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x):
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    """Causal attention, and a layer of four times the width, each behind a layer norm."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Decoder-only: words (or characters) in, the logits of the next one out. The first and the
    last layer are one matrix."""

    def __init__(self, words, length=64, width=128, layers=2, heads=4):
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*[Attention(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x):
        hidden = self.embed(x) + self.place(torch.arange(x.shape[1]))
        return self.norm(self.layers(hidden)) @ self.embed.weight.t()
