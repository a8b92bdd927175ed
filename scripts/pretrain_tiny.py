"""Pretrain the three checkpoints that hf_bias_patch comes with: a BERT, a GPT-2 and a BART of 1.2 MB each.

    python scripts/pretrain_tiny.py --out hf_bias_patch/assets

Their text is documents from generated worlds (`hf_bias_patch.assets.stories`). One idle core takes
about twelve minutes for all three. The same seed and library versions give the same files, byte for byte.
"""

import argparse
import json
import math
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from tqdm import trange
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_cosine_schedule_with_warmup,
)
from transformers.pytorch_utils import Conv1D

from hf_bias_patch.assets.stories import Story, stories
from hf_bias_patch.assets.world import make_world

LENGTH = 128  # positions a model has; the longest documents come close to it
VOCABULARY = 1024  # at most; room for every byte and for almost every word of the worlds
BUDGET = 4000  # characters in a batch: about a hundred short documents or ten long ones
MASKED = 0.3  # of the tokens while BERT trains: twice the usual share learns far more from as many steps
SPREAD = 0.06  # of first weights; transformers' 0.02 suits models ten times as wide
THREADS = 1  # part of the recipe, as sums depend on it; a second thread saves only a fifth of the time
HELD_OUT = 1_000_000  # worlds are seeded by 0, 1, … for training and from here on for evaluation
IGNORED = -100  # the label of a position that no loss looks at

Batch = dict[str, Tensor]


def corpus(worlds: int, per_world: int, first: int = 0) -> list[Story]:
    """Return documents of the worlds with seeds `first`, `first + 1`, …, the shortest first."""
    seeds = range(first, first + worlds)
    found = [document for seed in seeds for document in stories(make_world(seed), per_world, seed)]
    return sorted(found, key=lambda document: len(document.text))


def held_out(worlds: int = 20, per_world: int = 20) -> list[Story]:
    """Return documents of worlds that training never sees."""
    return corpus(worlds, per_world, first=HELD_OUT)


# Tokenizers: trained by the tokenizers library, then put into the class that belongs to the model.


def bert_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Return a lower-casing WordPiece tokenizer with whole words, and letters to spell all others with."""
    # Counted here because the library's WordPiece trainer numbers its pieces differently in every run.
    counts = Counter(re.findall(r"\w+", " ".join(texts).lower()))
    characters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *characters]
    pieces += [f"##{character}" for character in characters]
    words = sorted(counts.keys() - set(pieces), key=lambda word: (-counts[word], word))
    vocab = {piece: i for i, piece in enumerate([*pieces, *words][:VOCABULARY])}
    return BertTokenizer(vocab=vocab, model_max_length=LENGTH)


def _byte_level(texts: Sequence[str], special_tokens: list[str]) -> dict[str, object]:
    """Train byte-level BPE and return the arguments of a tokenizer class."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, VOCABULARY, special_tokens=special_tokens, show_progress=False)
    merges = json.loads(trained.to_str())["model"]["merges"]
    return {
        "vocab": trained.get_vocab(),
        "merges": [tuple(merge) for merge in merges],
        "model_max_length": LENGTH,
    }


def gpt2_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer with GPT-2's end-of-text token, and one for padding."""
    return GPT2Tokenizer(**_byte_level(texts, ["<|endoftext|>", "<|pad|>"]), pad_token="<|pad|>")


def bart_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer whose special tokens have BART's ids."""
    return BartTokenizer(**_byte_level(texts, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))


# Models: stock classes and dropout, small shapes.


def bert_model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return an untrained BERT with 4 layers."""
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=256,
            initializer_range=SPREAD,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # A query bias goes into its weight as accurately as Σβ/γ of the norm before it is far from zero. In wide models
    # it is by itself (2 to 19 in all-MiniLM-L6-v2); 64 entries that start at zero come as close as 0.04.
    for name, parameter in model.named_parameters():
        if name.endswith("LayerNorm.bias"):
            nn.init.constant_(parameter, 0.1)
    return model


def gpt2_model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return an untrained GPT-2 with 4 layers."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=LENGTH,
            n_embd=64,
            n_layer=4,
            n_head=4,
            initializer_range=SPREAD,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def bart_model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return an untrained BART with 2 encoder and 2 decoder layers."""
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH,
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=256,
            decoder_ffn_dim=256,
            attention_dropout=0.1,
            init_std=SPREAD,
        )
    )


@torch.no_grad()
def draw_biases(model: nn.Module) -> None:
    """Draw every linear bias as `torch.nn.Linear` does, uniformly within ±1/sqrt(fan_in).

    transformers starts them at zero. The true gradient of a key bias is zero too, because the softmax cancels
    it, so it would stay at rounding noise and the checkpoint would test nothing that handles key biases.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and module.bias is not None:
            fan_in = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
            nn.init.uniform_(module.bias, -(fan_in**-0.5), fan_in**-0.5)


@torch.no_grad()
def order_positions(model: nn.Module) -> None:
    """Start position embeddings as sinusoids: from noise, BERT spends its training on finding neighbours."""
    for name, table in model.named_parameters():
        if re.search(r"(wpe|embed_positions|position_embeddings)\.weight$", name):
            places = torch.arange(table.shape[0])[:, None]
            waves = torch.exp(-math.log(10_000) * torch.arange(0, table.shape[1], 2) / table.shape[1])
            table[:, 0::2] = 0.1 * torch.sin(places * waves)
            table[:, 1::2] = 0.1 * torch.cos(places * waves)


# Batches: what a model reads, and as labels what it should have read.


def masked(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Story],
    generator: torch.Generator,
    share: float = 0.15,
) -> Batch:
    """BERT's task: a share of the tokens, 80 % of it masked, 10 % replaced, 10 % left; half in pairs."""
    if torch.rand((), generator=generator) < 0.5:
        parts = list(zip(*(cut_in_two(document, generator) for document in texts), strict=True))
    else:
        parts = [tuple(document.text for document in texts)]
    batch = _encode(tokenizer, *parts, return_special_tokens_mask=True)
    ids = batch["input_ids"]
    scored = (torch.rand(ids.shape, generator=generator) < share) & (batch.pop("special_tokens_mask") == 0)
    batch["labels"] = ids.masked_fill(~scored, IGNORED)
    fate = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(len(tokenizer), ids.shape, generator=generator)
    ids = torch.where(scored & (fate < 0.9), noise, ids)
    batch["input_ids"] = ids.masked_fill(scored & (fate < 0.8), tokenizer.mask_token_id)
    return batch


def cut_in_two(document: Story, generator: torch.Generator) -> tuple[str, str]:
    """Cut `document` somewhere between two sentences, or between two words if it has only one sentence."""
    units = document.sentences if len(document.sentences) > 1 else document.text.split()
    cut = int(torch.randint(1, len(units), (), generator=generator))
    return " ".join(units[:cut]), " ".join(units[cut:])


def causal(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Story], generator: torch.Generator) -> Batch:
    """GPT-2's task: each next token, from the end-of-text token before a document to the one after it."""
    end = tokenizer.eos_token
    batch = _encode(tokenizer, [f"{end}{document.text}{end}" for document in texts])
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    return batch


def denoising(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Story], generator: torch.Generator) -> Batch:
    """BART's text infilling: write a document from a copy in which single masks stand for spans."""
    whole = _encode(tokenizer, [document.text for document in texts])
    rows = [row[keep == 1] for row, keep in zip(whole["input_ids"], whole["attention_mask"], strict=True)]
    holed = [{"input_ids": infill(row.tolist(), tokenizer.mask_token_id, generator)} for row in rows]
    batch = dict(tokenizer.pad(holed, return_tensors="pt"))
    batch["labels"] = whole["input_ids"].masked_fill(whole["attention_mask"] == 0, IGNORED)
    return batch


def infill(ids: Sequence[int], mask: int, generator: torch.Generator) -> list[int]:
    """Put one mask for each of some spans, Poisson(3) long, that hold about 30 % of `ids`; the ends stay."""
    starts = (torch.rand(len(ids), generator=generator) < 0.14).tolist()
    lengths = torch.poisson(torch.full((len(ids),), 3.0), generator=generator).int().tolist()
    holed, at = [ids[0]], 1
    while at < len(ids) - 1:
        if starts[at]:
            holed.append(mask)
            starts[at] = False
            at += lengths[at]
        else:
            holed.append(ids[at])
            at += 1
    return [*holed, ids[-1]]


def _encode(tokenizer: PreTrainedTokenizerBase, *parts: Sequence[str], **options: bool) -> Batch:
    lists = [list(part) for part in parts]
    return dict(tokenizer(*lists, padding=True, truncation=True, return_tensors="pt", **options))


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint is made; `options` is what training changes about the task."""

    tokenizer: Callable[[Sequence[str]], PreTrainedTokenizerBase]
    model: Callable[[PreTrainedTokenizerBase], PreTrainedModel]
    batch: Callable[..., Batch]
    steps: int
    rate: float
    options: Mapping[str, float] = field(default_factory=dict)


RECIPES: Mapping[str, Recipe] = {
    "bert": Recipe(bert_tokenizer, bert_model, masked, steps=4000, rate=3e-3, options={"share": MASKED}),
    "gpt2": Recipe(gpt2_tokenizer, gpt2_model, causal, steps=2000, rate=3e-3),
    "bart": Recipe(bart_tokenizer, bart_model, denoising, steps=1800, rate=3e-3),
}


def train(name: str, texts: Sequence[Story], steps: int, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Pretrain the checkpoint `name` on `texts`, sorted by length."""
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = recipe.tokenizer([document.text for document in texts])
    model = recipe.model(tokenizer)
    draw_biases(model)
    order_positions(model)
    optimizer = torch.optim.AdamW(_groups(model), lr=recipe.rate, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    model.train()
    progress = trange(steps, desc=name, mininterval=1.0)
    for step in progress:
        batch = _draw(texts, step / steps, generator)
        loss = model(**recipe.batch(tokenizer, batch, generator, **recipe.options)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval(), tokenizer


def _draw(texts: Sequence[Story], done: float, generator: torch.Generator) -> Sequence[Story]:
    """Draw neighbours in the sorted `texts`, which need little padding, all within `BUDGET`.

    Only the shortest tenth takes part at first, everything from half way on: grammar is easiest to learn from
    single sentences, and context helps a model that knows it (BERT's loss at 1500 steps: 2.4, not 3.2).
    """
    reach = int(len(texts) * min(1.0, 0.1 + 1.8 * done))
    at = int(torch.randint(reach, (), generator=generator))
    size = max(4, BUDGET // len(texts[at].text))
    at = min(at, len(texts) - size)
    return texts[at : at + size]


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Decay matrices only: nothing would hold the key biases against a pull to zero."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]


@dataclass(frozen=True)
class Score:
    """Mean losses in nats a scored token; `unigram` is the least that any model blind to context can have."""

    loss: float
    unigram: float


@torch.no_grad()
def evaluate(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Story]) -> Score:
    """Score a checkpoint on `texts` by the loss of its task.

    The unigram model is given the frequencies of the scored tokens themselves; its loss is their entropy.
    """
    generator = torch.Generator().manual_seed(0)
    total, tokens = 0.0, []
    for at in range(0, len(texts), 32):
        batch = RECIPES[name].batch(tokenizer, texts[at : at + 32], generator)
        labels = batch["labels"][:, 1:] if name == "gpt2" else batch["labels"]
        tokens.append(labels[labels != IGNORED])
        total += model(**batch).loss.item() * len(tokens[-1])
    scored = torch.cat(tokens)
    shares = torch.bincount(scored).double() / len(scored)
    return Score(total / len(scored), torch.special.entr(shares).sum().item())


def attention_biases(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return the query, key and value biases of every attention module."""
    found: dict[str, list[Tensor]] = {"query": [], "key": [], "value": []}
    for name, tensor in model.named_parameters():
        if name.endswith("attn.c_attn.bias"):
            for biases, part in zip(found.values(), tensor.detach().chunk(3), strict=True):
                biases.append(part)
        for projection, biases in found.items():
            if re.search(rf"\.({projection}|{projection[0]}_proj)\.bias$", name):
                biases.append(tensor.detach())
    return found


def report(name: str, steps: int, times: tuple[float, float], score: Score, model: nn.Module) -> str:
    """Return the line about a checkpoint that stands in the README beside the checkpoints."""
    norms = [
        f"{min(b.norm() for b in biases):.2f}–{max(b.norm() for b in biases):.2f}"
        for biases in attention_biases(model).values()
    ]
    cells = [
        name,
        str(steps),
        *(f"{t:.0f} s" for t in times),
        f"{score.loss:.3f}",
        f"{score.unigram:.3f}",
        *norms,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train, save, evaluate and report the checkpoints that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write one folder a checkpoint into")
    parser.add_argument("--only", choices=sorted(RECIPES), help="train just this one")
    parser.add_argument("--steps", type=int, help="train for so many steps instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and dropout (default: 0)")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    texts, unseen = corpus(worlds=400, per_world=100), held_out()
    lines = []
    for name in [options.only] if options.only else RECIPES:
        start, worked = time.monotonic(), time.process_time()
        steps = options.steps or RECIPES[name].steps
        model, tokenizer = train(name, texts, steps, options.seed)
        model.save_pretrained(options.out / name)
        tokenizer.save_pretrained(options.out / name)
        times = time.monotonic() - start, time.process_time() - worked
        lines.append(report(name, steps, times, evaluate(name, model, tokenizer, unseen), model))
    columns = ["checkpoint", "steps", "time", "processor time", "held-out loss", "unigram loss"]
    columns += [f"‖{projection} bias‖" for projection in ("query", "key", "value")]
    print(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines, sep="\n")


if __name__ == "__main__":
    main()
