"""Texts as numbers: CLIP's byte pairs, as open_clip has them, at two to six times its speed."""

# B texts, L tokens of each

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

KEPT_TEXTS = (
    200_000  # whose tokens are remembered; all texts of 1,000 classes under 80 templates, in some 60 MB
)
KEPT_WORDS = 500_000
WORD_CHARACTERS = 500  # of a word that are looked at: byte pairs cost the square of its length
SPECIAL = ("<start_of_text>", "<end_of_text>")


class Tokenizer:
    """Turn texts into token numbers, as open_clip's SimpleTokenizer does.

    A text that is longer is cut, and ends with the end token all the same. Texts that were seen already are
    looked up.

    Args:
        context_length: L, start and end included.
    """

    def __init__(self, context_length: int = 77) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._theirs = SimpleTokenizer()
        self.context_length = context_length
        self._texts: dict[str, np.ndarray] = {}
        self._words: dict[str, tuple[int, ...]] = {}

    def __call__(self, texts_B: Sequence[str]) -> Tensor:
        """Return tokens_BL, int64, 0 after the end."""
        tokens_BL = np.zeros((len(texts_B), self.context_length), np.int64)
        for i, text in enumerate(texts_B):
            tokens = self._texts.get(text)
            if tokens is None:
                tokens = self._tokens(text)
                if len(self._texts) >= KEPT_TEXTS:
                    self._texts.clear()
                self._texts[text] = tokens
            tokens_BL[i, : len(tokens)] = tokens
        return torch.from_numpy(tokens_BL)

    def _tokens(self, text: str) -> np.ndarray:
        room = self.context_length - 2
        numbers: list[int] = []
        for match in self._theirs.pat.finditer(self._clean(text)):
            numbers += self._word(match[0][:WORD_CHARACTERS])
            if len(numbers) >= room:  # 10,000 characters cost no more than what is kept of them
                break
        return np.array([self._theirs.sot_token_id, *numbers[:room], self._theirs.eot_token_id], np.uint16)

    def _clean(self, text: str) -> str:
        """Mend broken encodings and HTML, which most of the time goes on, only where there can be any."""
        if text.isascii() and text.isprintable() and "&" not in text:
            return " ".join(text.split()).lower()
        return self._theirs.clean_fn(text)

    def _word(self, word: str) -> tuple[int, ...]:
        numbers = self._words.get(word)
        if numbers is None:
            letters = "".join(self._theirs.byte_encoder[byte] for byte in word.encode())
            numbers = tuple(self._theirs.encoder[piece] for piece in self._theirs.bpe(letters).split(" "))
            if len(self._words) >= KEPT_WORDS:
                self._words.clear()
                self._theirs.cache = {word: word for word in SPECIAL}
            self._words[word] = numbers
        return numbers
