"""A residual network with batch norm on CIFAR-10, with the schedule of the Gap-Aware and DANA papers: momentum 0.9,
weight decay 1e-4 (WRN: 5e-4), a tenth of the rate after a half and three quarters of the epochs.

    gapless-fetch-data cifar-10
    gapless run -n 8 cifar_resnet.py --depth 20 --epochs 160
    gapless run -n 8 cifar_resnet.py --depth 16 --widen 4 --epochs 200 --lr 0.1
"""
import argparse
import time

import torch
from torch.nn import functional as F

import datasets
import gapless
import networks


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="folder of CIFAR-10's binary files, or synthetic")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--widen", type=int, default=1)
    parser.add_argument("--rule", default="dana-ga")
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1)
    return parser.parse_args()


class Augmented(torch.utils.data.Dataset):
    """The training set, a batch at a time: moved, mirrored."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return datasets.shifted_and_flipped(self.x[rows]), self.y[rows]


def loader_of(x, y, batch):
    """The sampler gives whole batches of rows; the data set moves and mirrors each at once."""
    order = torch.utils.data.RandomSampler(x)
    rows = torch.utils.data.BatchSampler(order, batch, drop_last=True)
    return torch.utils.data.DataLoader(Augmented(x, y), sampler=rows, batch_size=None)


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        right = sum((model(part).argmax(1) == truth).sum().item() for part, truth in zip(x.split(500), y.split(500)))
    model.train()
    return 100.0 * right / len(y)


def main():
    args = arguments()
    torch.manual_seed(1)
    (x, y), (test_x, test_y) = datasets.cifar10(args.data)
    loader = loader_of(x, y, args.batch)
    model = networks.ResNet(args.depth, args.widen)
    run = args.epochs * len(loader)
    settings = {"weight_decay": 5e-4 if args.widen > 1 else 1e-4, "warmup": min(5 * len(loader), run // 10),
                "steps": [(run // 2, 0.1), (run * 3 // 4, 0.1)]}

    with gapless.Worker(model, optimizer=args.rule, lr=args.lr, **settings) as worker:
        for epoch in range(args.epochs):
            begun = time.monotonic()
            for images, labels in worker.batches(loader):
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
                worker.step(loss)
            if worker.number == 0:
                stats = worker.stats()
                print(f"epoch {epoch + 1}: loss {stats.loss:.3f}, lag {stats.lag.mean:.1f}, gap {stats.gap_rms.mean:.2e}, "
                      f"accuracy {accuracy(model, test_x, test_y):.1f} %, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"accuracy {accuracy(model, test_x, test_y):.1f} %")


if __name__ == "__main__":
    main()
