"""Attention modules of a few lines, each with one trap in it: what a naive edit breaks, and a probe must see."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

WIDTH, HEADS, TOKENS = 16, 2, 7
DIM = WIDTH // HEADS


class Attention(nn.Module):
    """Plain: softmax attention behind a layer norm, with all four biases."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.read(x)
        query, key, value = (self.split(map_(normed)) for map_ in (self.query, self.key, self.value))
        weights = self.weights(self.scores(query, self.keys(key), normed))
        mixed = self.mix(self.drop(weights), self.values(value)).transpose(1, 2).flatten(2)
        return x + self.output(self.between(mixed, normed))

    def read(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def mix(self, weights: Tensor, value: Tensor) -> Tensor:
        return weights @ value

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, DIM)).transpose(1, 2)

    def keys(self, key: Tensor) -> Tensor:
        return key

    def values(self, value: Tensor) -> Tensor:
        return value

    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return query @ key.transpose(-1, -2) / DIM**0.5

    def weights(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return mixed


class Rotary(Attention):
    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return super().scores(turned(query), turned(key), normed)


def turned(x: Tensor) -> Tensor:
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] / 3.0 ** torch.arange(DIM // 2, dtype=x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), -1)


class ComplexRotary(Attention):
    """Rotary positions as a product of complex numbers, as Llama 4 has them."""

    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return super().scores(whirled(query), whirled(key), normed)


def whirled(x: Tensor) -> Tensor:
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] / 3.0 ** torch.arange(DIM // 2, dtype=x.dtype)
    pairs = torch.view_as_complex(x.unflatten(-1, (DIM // 2, 2)))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


class Pooled(Attention):
    """Each query is the largest of two neighbours', as Hiera and SAM 2 pool them."""

    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return super().scores(torch.stack((query, query.roll(1, -2)), 2).max(2).values, key, normed)


class OwnOfTorch(Attention):
    """PyTorch's module, called as its encoder layers call it: without a word of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.read(x)
        return x + self.inner(normed, normed, normed, need_weights=False)[0]


class KeyNorm(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.key_norm = nn.LayerNorm(DIM)

    def keys(self, key: Tensor) -> Tensor:
        return self.key_norm(key)


class Softcap(Attention):
    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return 2 * torch.tanh(super().scores(query, key, normed) / 2)


class Sink(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.sink = nn.Parameter(torch.zeros(HEADS))

    def weights(self, scores: Tensor) -> Tensor:
        sink = self.sink[None, :, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat((scores, sink), -1).softmax(-1)[..., :-1]


class Gate(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)

    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return mixed * self.gate(normed).sigmoid()


class NormAfter(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.after = nn.LayerNorm(WIDTH)

    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return self.after(mixed)


class Sigmoid(Attention):
    def weights(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()


class Assigned(Rotary):
    """Each key goes wholly to the query that scores it highest, as in GroupViT: steps hide small moves of a score."""

    def weights(self, scores: Tensor) -> Tensor:
        soft = scores.softmax(-2)
        hard = functional.one_hot(scores.argmax(-2), scores.shape[-2]).transpose(-1, -2).to(scores.dtype)
        chosen = hard - soft.detach() + soft
        return chosen / (chosen.sum(-1, keepdim=True) + 1)


class Strongest(Rotary):
    """Only the strongest scores count, over all queries."""

    def weights(self, scores: Tensor) -> Tensor:
        least = scores.flatten(-2).topk(TOKENS * 2, -1).values[..., -1:, None]
        return scores.masked_fill(scores < least, -1e4).softmax(-1)


class Positions(Attention):
    """The key is compared with positions too."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(HEADS, TOKENS, DIM))

    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return super().scores(query, key, normed) + (key * self.positions).sum(-1).unsqueeze(-2)


class TwoStreams(Attention):
    """Keys and values of another map stand beside those of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.zeros(2, HEADS, 3, DIM))

    def keys(self, key: Tensor) -> Tensor:
        return torch.cat((key, self.memory[0].expand(len(key), -1, -1, -1)), -2)

    def values(self, value: Tensor) -> Tensor:
        return torch.cat((value, self.memory[1].expand(len(value), -1, -1, -1)), -2)


class ValueNorm(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.value_norm = nn.LayerNorm(DIM)

    def values(self, value: Tensor) -> Tensor:
        return self.value_norm(value)


class ScaledKeys(Attention):
    """The key is scaled by its position."""

    def keys(self, key: Tensor) -> Tensor:
        return key * 0.7 ** torch.arange(TOKENS, dtype=key.dtype)[:, None]


class Channels(Attention):
    """Queries and keys are channels, and tokens are what they are compared by, as in DaViT."""

    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return query.transpose(-1, -2) @ key / TOKENS**0.5

    def mix(self, weights: Tensor, value: Tensor) -> Tensor:
        return (weights @ value.transpose(-1, -2)).transpose(-1, -2)


class Approximate(Attention):
    """The exponential is cut after two terms, and its sum is estimated."""

    def weights(self, scores: Tensor) -> Tensor:
        return (1 + scores) / TOKENS


class Clip(Attention):
    def keys(self, key: Tensor) -> Tensor:
        return key.clamp(-0.5, 0.5)

    def values(self, value: Tensor) -> Tensor:
        return value.clamp(-0.5, 0.5)


class KeyUsed(Attention):
    """The key is part of the values."""

    def keys(self, key: Tensor) -> Tensor:
        self.kept = key
        return key

    def values(self, value: Tensor) -> Tensor:
        return value + self.kept


class KeyMixed(Attention):
    """Each key takes from the one before it; the first has none."""

    def keys(self, key: Tensor) -> Tensor:
        return key + functional.pad(key, (0, 0, 1, 0))[..., :-1, :]


class ValueRotary(Attention):
    def values(self, value: Tensor) -> Tensor:
        return turned(value)


class ValueUsed(Attention):
    """The values go round attention too."""

    def values(self, value: Tensor) -> Tensor:
        self.kept = value
        return value

    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return mixed + self.kept.transpose(1, 2).flatten(2) / 2


class OtherValues(Attention):
    """What the first token gets is another map's."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(WIDTH, WIDTH)

    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return torch.cat((self.other(normed).mean(1, keepdim=True), mixed[:, 1:]), 1)


class Between(Attention):
    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return mixed.tanh()


class Rows(Attention):
    """Softmax, and less than that: the rows sum to a half."""

    def weights(self, scores: Tensor) -> Tensor:
        return super().weights(scores) / 2


class OutputUsed(Attention):
    """Half of what the output projection reads is no attention, as in ConvBERT."""

    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return torch.cat((mixed[..., : WIDTH // 2], normed[..., WIDTH // 2 :]), -1)


class NormElsewhere(Attention):
    """The maps read what comes before the norm."""

    def read(self, x: Tensor) -> Tensor:
        return x


class Padded(Attention):
    """Zeros are appended behind the norm, to fill a window."""

    def read(self, x: Tensor) -> Tensor:
        return functional.pad(super().read(x), (0, 0, 0, 2))

    def between(self, mixed: Tensor, normed: Tensor) -> Tensor:
        return mixed[:, :TOKENS]


class AlsoRead(Attention):
    """The map of the query is also applied to positions, as in DeBERTa v2."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(TOKENS, WIDTH))

    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        return super().scores(query + self.split(self.query(self.positions)[None]), key, normed)


class OtherQueries(Attention):
    """For the second half of the keys, another map makes the queries, as LUKE's for entities."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(WIDTH, WIDTH, bias=False)

    def scores(self, query: Tensor, key: Tensor, normed: Tensor) -> Tensor:
        half = TOKENS // 2
        second = super().scores(self.split(self.other(normed)), key[:, :, half:], normed)
        return torch.cat((super().scores(query, key[:, :, :half], normed), second), -1)


OF_TRAP: dict[str, type[Attention]] = {
    "rotary": Rotary,
    "rotary_some": Rotary,
    "qk_norm": KeyNorm,
    "softcap": Softcap,
    "sink": Sink,
    "extra_key": TwoStreams,
    "other_queries": OtherQueries,
    "key_positions": Positions,
    "positions": ScaledKeys,
    "not_softmax": Sigmoid,
    "channels": Channels,
    "selection": Assigned,
    "approximate": Approximate,
    "clip": Clip,
    "key_used": KeyUsed,
    "key_mixed": KeyMixed,
    "value_rotary": ValueRotary,
    "value_mixed": ValueNorm,
    "value_used": ValueUsed,
    "other_values": OtherValues,
    "gate": Gate,
    "norm_after": NormAfter,
    "between": Between,
    "rows": Rows,
    "output_used": OutputUsed,
    "norm_elsewhere": NormElsewhere,
    "padded": Padded,
    "also_read": AlsoRead,
}
"""A trap that a family may name (`verdict.BLOCKERS`) → an attention that has it."""


class Model(nn.Module):
    """One attention layer and what reads it."""

    def __init__(self, attention: type[Attention], seed: int = 0) -> None:
        super().__init__()
        self.layer = attention()
        self.unused = Attention()
        self.head = nn.Linear(WIDTH, 5)
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                mean = 1.0 if "norm.weight" in name or "after.weight" in name else 0.0
                parameter.copy_(mean + 0.4 * torch.randn(parameter.shape, generator=random))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(x)))


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(3, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
