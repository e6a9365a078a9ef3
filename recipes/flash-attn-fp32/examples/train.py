"""Trains a small character model with `flash_attention`, and beside it the same model with torch's own attention.

    python train.py --steps 200

Both start from the same weights, see the same batches and use Adam, so their losses must stay together; the example
fails (exit 1) if they part, or if the loss does not fall. Needs torch, this package and a GPU; the text is this file.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path

import torch
from flash_attention import FlashAttention
from torch import nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 256, 4, 2, 128, 32
DRIFT = 0.02  # the largest difference of the two losses; both are float32, and rounding grows with the steps
FALL = 0.5  # the last loss is below this part of the first


class TorchAttention(nn.Module):
    """Torch's attention on the layout of FlashAttention, by plain float32 products."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend, causally."""
        heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            return functional.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2)


class Block(nn.Module):
    """A transformer's block."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.wide = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, seqlen, width) to the same."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).unbind(2)
        x = x + self.out(self.attention(q, k, v).flatten(2))
        return x + self.wide(self.norms[1](x))


class Model(nn.Module):
    """Predicts the next byte."""

    def __init__(self, attention: type[nn.Module], **words: bool) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block(attention(**words)) for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """(batch, seqlen) bytes to logits."""
        places = torch.arange(text.shape[1], device=text.device)
        return self.head(self.blocks(self.bytes(text) + self.places(places)))


def losses(model: nn.Module, text: torch.Tensor, steps: int) -> list[float]:
    """Train, and return the loss of each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(steps):
        starts = torch.randint(0, len(text) - CONTEXT - 1, (BATCH,), generator=random)
        rows = torch.stack([text[start : start + CONTEXT + 1] for start in starts.tolist()])
        loss = functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found).tolist()


def main() -> int:
    """Train both, print the losses, and say whether they agree."""
    parser = argparse.ArgumentParser(description="Train with flash_attention and with torch's attention.")
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    ours = Model(FlashAttention, causal=True).cuda()
    reference = Model(TorchAttention).cuda()
    reference.load_state_dict(copy.deepcopy(ours.state_dict()))
    text = torch.frombuffer(bytearray(Path(__file__).read_bytes()), dtype=torch.uint8).long().cuda()
    mine, theirs = losses(ours, text, steps), losses(reference, text, steps)
    print(f"{'step':>6} {'flash_attention':>16} {'torch':>10}")
    for step in [*range(0, steps, max(1, steps // 10)), steps - 1]:
        print(f"{step:>6} {mine[step]:>16.5f} {theirs[step]:>10.5f}")
    drift = max(abs(one - other) for one, other in zip(mine, theirs, strict=True))
    print(f"largest difference {drift:.2e}, allowed {DRIFT}; loss {mine[0]:.3f} -> {mine[-1]:.3f}")
    return 0 if drift <= DRIFT and mine[-1] < FALL * mine[0] else 1


if __name__ == "__main__":
    sys.exit(main())
