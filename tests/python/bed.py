"""What the tests of the Python package share. A test is a unittest file that ends with bed.main()."""
import os
import sys
import unittest

SOURCE, BUILD = sys.argv[1], sys.argv[2]
sys.path.insert(0, os.path.join(SOURCE, "python"))
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.environ["PYTHONPATH"] = os.path.join(SOURCE, "python")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["GAPLESS_LIBRARY"] = os.path.join(BUILD, "libgapless.so")
for name in ("GAPLESS_MASTER", "GAPLESS_OFFER", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
    os.environ.pop(name, None)


def skip(reason):
    print("SKIP: " + reason)
    sys.exit(77)


def need_torch():
    try:
        import torch
    except ImportError:
        skip("python3-torch is not installed")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch


def mlp(torch, seed=0, width=16):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.ReLU(), torch.nn.Linear(width, 3))


def data(torch, count=320, seed=1):
    """Samples of three classes that a small network tells apart."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    y = (x[:, :3] + 0.3 * x[:, 3:6]).argmax(1)
    return x, y


def loader(torch, batch_size=16, shuffle=True, **more):
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(*data(torch)), batch_size=batch_size, shuffle=shuffle, **more)


def main():
    if not os.path.exists(os.environ["GAPLESS_LIBRARY"]):
        skip("this build has no shared library")
    result = unittest.main(argv=sys.argv[:1] + sys.argv[3:], exit=False, verbosity=2).result
    sys.stdout.flush()
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)
