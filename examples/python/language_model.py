"""A small decoder-only transformer that learns to continue English text: characters, or with --vocabulary words.

    gapless-fetch-data brown
    gapless run -n 4 language_model.py
    gapless run -n 4 language_model.py --text /data/wikitext-103 --vocabulary 50000 --width 512 --layers 8
"""
import argparse
import math

import torch
from torch.nn import functional as F

import datasets
import gapless
import networks


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="", help="folder with *train*.tokens and *valid*.tokens (default: the Brown corpus)")
    parser.add_argument("--vocabulary", type=int, default=0, help="different words; 0: characters")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rule", default="dana-lga-adamw")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--gradients", type=int, default=8000, help="of all workers together")
    return parser.parse_args()


class Pieces(torch.utils.data.Dataset):
    """Pieces of a text, and for each the same one further on."""

    def __init__(self, text, length):
        self.text, self.length = text, length

    def __len__(self):
        return (len(self.text) - 1) // self.length

    def __getitem__(self, index):
        at = index * self.length
        return self.text[at:at + self.length], self.text[at + 1:at + self.length + 1]


def nats(model, batch):
    """Mean loss of the next word, or character."""
    before, after = batch
    return F.cross_entropy(model(before).flatten(0, 1), after.flatten())


def validation(model, pieces):
    with torch.no_grad():
        return sum(nats(model, batch).item() for batch in pieces) / len(pieces)


def groups(model):
    """Weight decay for matrices alone, and less of the rate for what stands for a word or a place."""
    embeddings = [model.embed.weight, model.place.weight]
    rest = [p for p in model.parameters() if all(p is not e for e in embeddings)]
    return [{"params": [p for p in rest if p.dim() > 1]},
            {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
            {"params": embeddings, "weight_decay": 0.0}]


def main():
    args = arguments()
    torch.manual_seed(1)
    text, valid, words = datasets.tokens(args.text, words=args.vocabulary > 0, vocabulary=args.vocabulary or 10000)
    loader = torch.utils.data.DataLoader(Pieces(text, args.length), batch_size=args.batch, shuffle=True, drop_last=True)
    pieces = Pieces(valid, args.length)
    some = range(0, len(pieces), max(len(pieces) // 64, 1))[:64]
    held = list(torch.utils.data.DataLoader(torch.utils.data.Subset(pieces, some), args.batch))
    model = networks.Transformer(words, args.length, args.width, args.layers)
    unit = "word" if args.vocabulary else "character"

    with gapless.Worker(model, optimizer=args.rule, lr=args.lr, params=groups(model), gradients=args.gradients,
                        warmup=args.gradients // 20, cosine=0.1) as worker:
        while worker.running:
            for batch in worker.batches(loader):
                loss = nats(model, batch)
                loss.backward()
                worker.step(loss)
                if worker.number == 0 and worker.steps_taken % 200 == 0:
                    print(f"{worker.batch} gradients: {validation(model, held):.3f} nats a {unit}", flush=True)
    final = validation(model, held)
    print(f"{final:.3f} nats a {unit}, perplexity {math.exp(final):.1f}")


if __name__ == "__main__":
    main()
