"""A perceptron on Fashion-MNIST in plain PyTorch, one process: what mnist.py was before."""
import argparse

import torch
from torch import nn

import datasets

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", default="fashion-mnist", help="fashion-mnist, mnist or synthetic")
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args()

torch.manual_seed(1)
train, (test_x, test_y) = datasets.mnist(args.data)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
criterion = nn.CrossEntropyLoss()

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(args.epochs):
    for x, y in loader:
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

with torch.no_grad():
    right = (model(test_x).argmax(1) == test_y).float().mean().item()
print(f"accuracy {100 * right:.1f} %")
