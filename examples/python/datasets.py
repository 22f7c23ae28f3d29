"""Data of the examples, from files as they are on a disk; each also comes as `synthetic`, small
and made here, for trying things out. Pictures are tensors [samples, channels, rows, columns] of
32-bit floats, standardised by the mean and deviation of the training set."""
import glob
import gzip
import os
import struct

import numpy
import torch

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "gapless")
FASHION = "/usr/share/datasets/fashion-mnist"


def _idx(path):
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        data = file.read()
    dims = struct.unpack(">%dI" % data[3], data[4:4 + 4 * data[3]])
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * data[3]).reshape(dims)


def _standard(*sets):
    """Bytes to floats."""
    sets = [torch.tensor(x).float() for x in sets]
    mean, deviation = sets[0].mean((0, 2, 3), keepdim=True), sets[0].std((0, 2, 3), keepdim=True)
    return [(x - mean) / deviation for x in sets]


def synthetic(samples, shape, classes, seed=0):
    """Pictures of a few large squares, others for each class, with noise: (x, y), (x of a test set, y)."""
    make = numpy.random.default_rng(seed)
    squares = make.normal(size=(classes, shape[0], 2, 2)).astype(numpy.float32)
    centres = squares.repeat(shape[1] // 2, 2).repeat(shape[2] // 2, 3)
    sets = []
    for count in samples, max(samples // 5, classes):
        y = make.integers(classes, size=count)
        x = centres[y] + make.normal(size=(count,) + shape).astype(numpy.float32)
        sets.append((torch.from_numpy(x), torch.from_numpy(y)))
    return sets


def mnist(name="fashion-mnist"):
    """(x [60000, 1, 28, 28], y), (test x [10000, ...], test y) of fashion-mnist (Debian's
    dataset-fashion-mnist) or mnist (gapless-fetch-data mnist); or synthetic."""
    if name == "synthetic":
        return synthetic(2000, (1, 28, 28), 10)
    folder, end = (FASHION, ".gz") if name == "fashion-mnist" else (os.path.join(CACHE, "mnist"), "")
    read = [_idx(os.path.join(folder, part + end)) for part in (
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")]
    x, test_x = _standard(read[0][:, None], read[2][:, None])
    y, test_y = [torch.from_numpy(labels.astype(numpy.int64)) for labels in (read[1], read[3])]
    return (x, y), (test_x, test_y)


def cifar10(folder=""):
    """(x [50000, 3, 32, 32], y), (test x [10000, ...], test y) from the binary files of CIFAR-10
    (gapless-fetch-data cifar-10, or `folder`); or synthetic."""
    if folder == "synthetic":
        return synthetic(640, (3, 32, 32), 10)
    folder = folder or os.path.join(CACHE, "cifar-10")
    sets = []
    for names in ["data_batch_%d.bin" % i for i in range(1, 6)], ["test_batch.bin"]:
        rows = numpy.concatenate([numpy.fromfile(os.path.join(folder, name), numpy.uint8) for name in names])
        sets.append(rows.reshape(-1, 3073))
    x, test_x = _standard(*[rows[:, 1:].reshape(-1, 3, 32, 32) for rows in sets])
    y, test_y = [torch.from_numpy(rows[:, 0].astype(numpy.int64)) for rows in sets]
    return (x, y), (test_x, test_y)


def shifted_and_flipped(x, generator=None):
    """The usual augmentation of CIFAR: each picture moved by up to 4 pixels, half of them mirrored."""
    count = x.shape[0]
    wide = torch.nn.functional.pad(x, (4, 4, 4, 4))
    at = torch.randint(0, 9, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    rows, columns = torch.arange(32), torch.arange(32)
    columns = torch.where(mirrored[:, None], columns.flip(0), columns)
    picked = torch.arange(count)[:, None, None]
    return wide.permute(0, 2, 3, 1)[picked, (at[0][:, None] + rows)[:, :, None],
                                    (at[1][:, None] + columns)[:, None, :]].permute(0, 3, 1, 2)


def tokens(folder="", words=True, vocabulary=10000):
    """Text as numbers: (training, validation, number of different ones). `folder` has files *train*.tokens
    and *valid*.tokens, words between blanks, as WikiText-103's and what gapless-fetch-data brown gets. A line's
    end is a word. Words beyond the `vocabulary` most frequent are one; without `words`, characters."""
    if folder == "synthetic":  # a chain in which a letter is followed by one of two
        make = numpy.random.default_rng(0)
        text = numpy.zeros(20000, numpy.int64)
        for i, step in enumerate(make.integers(2, size=text.size - 1)):
            text[i + 1] = (3 * text[i] + 1 + step) % 27
        return torch.from_numpy(text[:16000]), torch.from_numpy(text[16000:]), 27
    folder = folder or os.path.join(CACHE, "brown")
    texts = []
    for part in "train", "valid":
        found = glob.glob(os.path.join(folder, "*%s*.tokens" % part))
        if not found:
            raise FileNotFoundError("no *%s*.tokens in %s: gapless-fetch-data brown gets some" % (part, folder))
        with open(found[0], encoding="utf-8") as file:
            text = file.read()
        texts.append(text.replace("\n", " <eos> ").split() if words else text)
    counted = {}
    for word in texts[0]:
        counted[word] = counted.get(word, 0) + 1
    kept = sorted(counted, key=lambda word: (-counted[word], word))[:vocabulary - 1]
    number = {word: i + 1 for i, word in enumerate(kept)}  # 0: any other
    read = [torch.tensor([number.get(word, 0) for word in text]) for text in texts]
    return read[0], read[1], len(kept) + 1
