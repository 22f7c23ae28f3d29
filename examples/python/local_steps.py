"""Local steps, the asynchronous form of DiLoCo: each worker takes 16 steps of AdamW of its own, then hands in how far it came.
The master's rule is the outer optimizer. Over a slow network that is a sixteenth of the traffic.

    gapless run -n 4 local_steps.py
    gapless run -n 4 local_steps.py --steps adaptive       # a slower worker takes fewer
"""
import argparse

import torch
from torch import nn

import datasets
import gapless

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="fashion-mnist", help="fashion-mnist, mnist or synthetic")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--steps", default="16", help="a number, or adaptive")
parser.add_argument("--outer", default="dana-zero", help="the master's rule")
args = parser.parse_args()

torch.manual_seed(1)
train, (test_x, test_y) = datasets.mnist(args.data)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
inner = torch.optim.AdamW(model.parameters(), lr=1e-3)
steps = args.steps if args.steps == "adaptive" else int(args.steps)

with gapless.Worker(model, optimizer=args.outer, inner=inner, local_steps=steps) as worker:
    for epoch in range(args.epochs):
        for x, y in worker.batches(loader):
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            worker.step(loss)

with torch.no_grad():
    right = (model(test_x).argmax(1) == test_y).float().mean().item()
print(f"accuracy {100 * right:.1f} %")
