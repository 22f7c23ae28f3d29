"""ResNet-50 on folders of pictures, one for each class, as ImageNet comes:

    FOLDER/train/n01440764/*.JPEG    FOLDER/val/n01440764/*.JPEG

    gapless run -n 8 imagenet_resnet50.py /data/imagenet

Needs Pillow (python3-pil). It was tried on a folder of a few generated pictures, not on ImageNet itself.
"""
import argparse
import glob
import os

import numpy
import torch
from PIL import Image
from torch.nn import functional as F

import gapless
import networks

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rule", default="dana-ga")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.0125, help="of one gradient; 0.1 for 256 pictures")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--loaders", type=int, default=0, help="processes that read pictures, for each worker")
    return parser.parse_args()


class Pictures(torch.utils.data.Dataset):
    """(picture [3, size, size], class number). In training a part of it, from a third of its area on, and half of them
    mirrored; else its middle."""

    def __init__(self, folder, size, training):
        self.classes = sorted(os.path.basename(os.path.dirname(path)) for path in glob.glob(os.path.join(folder, "*", "")))
        self.files = [(path, i) for i, name in enumerate(self.classes) for path in sorted(glob.glob(os.path.join(folder, name, "*")))]
        self.size, self.training = size, training
        if not self.files:
            raise FileNotFoundError(f"{folder} has no folders with pictures in them")

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path, number = self.files[index]
        with Image.open(path) as file:
            picture = file.convert("RGB")
        share = float(torch.empty(1).uniform_(0.58, 1.0)) if self.training else 0.875
        side = max(int(min(picture.size) * share), 1)
        room = picture.width - side, picture.height - side
        left, top = [int(torch.randint(r + 1, ())) if self.training else r // 2 for r in room]
        picture = picture.resize((self.size, self.size), Image.BILINEAR, (left, top, left + side, top + side))
        pixels = (torch.from_numpy(numpy.array(picture)).float() / 255 - MEAN) / DEVIATION
        if self.training and torch.rand(()) < 0.5:
            pixels = pixels.flip(1)
        return pixels.permute(2, 0, 1), number


def accuracy(model, loader):
    model.eval()
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).float().mean().item() for x, y in loader]
    model.train()
    return 100.0 * sum(right) / len(right)


def main():
    args = arguments()
    torch.manual_seed(1)
    train, val = [Pictures(os.path.join(args.folder, part), args.size, part == "train") for part in ("train", "val")]
    loader = torch.utils.data.DataLoader(train, args.batch, shuffle=True, drop_last=True, num_workers=args.loaders)
    model = networks.ResNet50(len(train.classes))
    epoch = len(loader)

    with gapless.Worker(model, optimizer=args.rule, lr=args.lr, weight_decay=1e-4, warmup=5 * epoch,
                        steps=[(30 * epoch, 0.1), (60 * epoch, 0.1), (80 * epoch, 0.1)]) as worker:
        for number in range(args.epochs):
            for images, labels in worker.batches(loader):
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
                worker.step(loss)
            if worker.number == 0:
                print(f"epoch {number + 1}: loss {worker.stats().loss:.3f}, "
                      f"accuracy {accuracy(model, torch.utils.data.DataLoader(val, args.batch)):.1f} %", flush=True)
    print(f"accuracy {accuracy(model, torch.utils.data.DataLoader(val, args.batch)):.1f} %")


if __name__ == "__main__":
    main()
