"""Folders of small models with random weights, in the form in which their makers publish large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentence_transformers
import tokenizers
import torch
import transformers
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from tokenizers import decoders, models, pre_tokenizers, processors

_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def tokenizer(
    *specials: str, length: int = 64, framed: bool = True, **named: Any
) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer with a token for each byte; `[CLS]` and `[SEP]` are around a text where it is `framed`."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *specials, *_LETTERS]
    fast = tokenizers.Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    if framed:
        fast.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
        additional_special_tokens=list(specials),
        model_max_length=length,
        **named,
    )


def bert(folder: Path, seed: int = 0) -> Path:
    """A text encoder with prompts for queries and documents, and 64 tokens of context."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
        matryoshka_dimensions=[8, 16, 32],
    )
    parts = folder.parent / f"{folder.name}-parts"
    transformers.BertModel(config).eval().save_pretrained(parts)
    tokenizer().save_pretrained(parts)
    transformer = Transformer(str(parts))
    model = sentence_transformers.SentenceTransformer(
        modules=[transformer, Pooling(32, "mean"), Normalize()],
        prompts={"query": "search: ", "document": "passage: "},
        device="cpu",
    )
    model.save(str(folder), create_model_card=False)
    return folder


def clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP of OpenAI's architecture: pictures and texts."""
    torch.manual_seed(seed)
    words = tokenizer()
    words.save_pretrained(folder.parent / f"{folder.name}-words")
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=small | {"vocab_size": 300, "max_position_embeddings": 64, "eos_token_id": 2, "bos_token_id": 1},
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
        initializer_factor=20.0,
    )
    model = transformers.CLIPModel(config).eval()
    parts = folder.parent / f"{folder.name}-parts"
    model.save_pretrained(parts)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(pictures, words).save_pretrained(parts)
    sentence_transformers.SentenceTransformer(modules=[Transformer(str(parts))], device="cpu").save(
        str(folder), create_model_card=False
    )
    return folder


_CHAT = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|end|>\n{% endfor %}"
)


def qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """A Qwen3-VL-Embedding: texts, pictures of any size and films, in a chat template, pooled at the last token."""
    torch.manual_seed(seed)
    names = ("<|start|>", "<|end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*names, length=4096)
    numbers = {name: words.convert_tokens_to_ids(name) for name in names}
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": 300,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 4096,
            "initializer_range": 0.3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.3,
        },
        image_token_id=numbers["<|image_pad|>"],
        video_token_id=numbers["<|video_pad|>"],
        vision_start_token_id=numbers["<|vision_start|>"],
        vision_end_token_id=numbers["<|vision_end|>"],
    )
    parts = folder.parent / f"{folder.name}-parts"
    transformers.Qwen3VLModel(config).eval().save_pretrained(parts)
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    pictures = transformers.Qwen2VLImageProcessor(patch_size=8, merge_size=2, size=size)
    films = transformers.Qwen3VLVideoProcessor(
        patch_size=8, merge_size=2, temporal_patch_size=2, size=size | {"longest_edge": 64 * 64 * 8}
    )
    transformers.Qwen3VLProcessor(pictures, words, films, chat_template=_CHAT).save_pretrained(parts)
    model = sentence_transformers.SentenceTransformer(
        modules=[Transformer(str(parts)), Pooling(32, "lasttoken"), Normalize()],
        prompts={"query": "Retrieve what matches.", "document": "Represent it."},
        device="cpu",
    )
    model.save(str(folder), create_model_card=False)
    return folder


def embedding_gemma2(folder: Path, seed: int = 0) -> Path:
    """An EmbeddingGemma 2: texts with prompts, pictures, sound and films; widths of 16 and 8 are Matryoshka's."""
    torch.manual_seed(seed)
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    }
    words = tokenizer("<|video|>", *named.values(), length=4096, extra_special_tokens=named)
    numbers = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.2}
    config = transformers.EmbeddingGemma2Config(
        text_config=small
        | {
            "vocab_size": 300,
            "intermediate_size": 48,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "hidden_size_per_layer_input": 16,
            "sliding_window": 32,
            "embedding_dim": 24,
            "max_position_embeddings": 4096,
        },
        vision_config=small
        | {
            "model_type": "gemma4_vision",
            "intermediate_size": 48,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "pooling_kernel_size": 3,
            "patch_size": 4,
            "position_embedding_size": 1024,
        },
        audio_config=small
        | {"model_type": "gemma4_audio", "subsampling_conv_channels": [128, 4], "output_proj_dims": 32},
        image_token_id=numbers["image_token"],
        video_token_id=words.convert_tokens_to_ids("<|video|>"),
        boi_token_id=numbers["boi_token"],
        eoi_token_id=numbers["eoi_token"],
        audio_token_id=numbers["audio_token"],
        boa_token_id=numbers["boa_token"],
        eoa_token_index=numbers["eoa_token"],
        matryoshka_dimensions=[16, 8],
    )
    parts = folder.parent / f"{folder.name}-parts"
    transformers.EmbeddingGemma2Model(config).eval().save_pretrained(parts)
    seen = {"patch_size": 4, "pooling_kernel_size": 3}
    processor = transformers.EmbeddingGemma2Processor(
        transformers.Gemma4AudioFeatureExtractor(),
        transformers.Gemma4ImageProcessor(**seen, max_soft_tokens=70),
        words,
        transformers.EmbeddingGemma2VideoProcessor(**seen, max_soft_tokens=70),
    )
    processor.save_pretrained(parts)
    model = sentence_transformers.SentenceTransformer(
        modules=[Transformer(str(parts)), Pooling(24, "mean"), Normalize()],
        prompts={"query": "task: search result | query: ", "document": "title: none | text: "},
        device="cpu",
    )
    model.save(str(folder), create_model_card=False)
    return folder


def neomme(folder: Path, seed: int = 0) -> Path:
    """A NeoMME, its dense side: texts and pages as pictures."""
    torch.manual_seed(seed)
    named = {
        "image_token": "<img>",
        "row_token": "<row>",
        "document_token": "<doc>",
        "query_token": "<query>",
    }
    words = tokenizer(*named.values(), length=4096, framed=False, extra_special_tokens=named)
    numbers = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    config = transformers.NeoMMEConfig(
        vocab_size=300,
        embedding_rank=16,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        patch_size=8,
        initializer_range=0.2,
        document_token_id=numbers["document_token"],
        image_token_id=numbers["image_token"],
    )
    parts = folder.parent / f"{folder.name}-parts"
    transformers.NeoMMEModel(config).eval().save_pretrained(parts)
    pictures = transformers.NeoMMEImageProcessor(patch_size=8, max_side=64)
    transformers.NeoMMEProcessor(pictures, words).save_pretrained(parts)
    model = sentence_transformers.SentenceTransformer(
        modules=[Transformer(str(parts)), Pooling(32, "mean"), Normalize()], device="cpu"
    )
    model.save(str(folder), create_model_card=False)
    return folder


def clap(folder: Path, seed: int = 0, fusion: bool = False) -> Path:
    """A CLAP, with or without the fusion of several parts of a long sound."""
    torch.manual_seed(seed)
    words = tokenizer(length=62)
    config = transformers.ClapConfig(
        text_config={
            "vocab_size": 300,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 66,
            "initializer_factor": 20.0,
            "pad_token_id": 0,
        },
        audio_config={
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "patch_embeds_hidden_size": 16,
            "hidden_size": 32,
            "spec_size": 256,
            "window_size": 8,
            "patch_size": 4,
            "num_mel_bins": 64,
            "enable_fusion": fusion,
            "initializer_factor": 20.0,
            "drop_path_rate": 0.0,
        },
        projection_dim=24,
    )
    transformers.ClapModel(config).eval().save_pretrained(folder)
    sounds = transformers.ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc")
    transformers.ClapProcessor(sounds, words).save_pretrained(folder)
    return folder


def pe_av(folder: Path, seed: int = 0) -> Path:
    """A PE-AV: sound, films and texts."""
    torch.manual_seed(seed)
    words = tokenizer()
    small = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 16,
        "initializer_range": 0.2,
    }
    codec = {"downsampling_ratios": [2, 8, 10, 12], "encoder_hidden_size": 4, "codebook_dim": 16, "n_codebooks": 1}
    films = {
        "vision_config": {
            "architecture": "vit_pe_core_tiny_patch16_384",
            "model_args": {"img_size": 32, "dynamic_img_size": False},
            "do_pooling": True,
            "num_classes": 32,
            "global_pool": "map",
        }
    }
    words_config = {
        "model_type": "modernbert",
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    config = transformers.PeAudioVideoConfig(
        text_config=words_config,
        audio_video_config=small | {"audio_config": small | {"dac_config": codec}, "video_config": small | films},
    )
    transformers.PeAudioVideoModel(config).eval().save_pretrained(folder)
    transformers.PeAudioVideoProcessor(
        transformers.PeAudioFeatureExtractor(),
        transformers.PeVideoVideoProcessor(
            size={"height": 32, "width": 32},
            do_resize=True,
            do_rescale=True,
            do_normalize=True,
            do_convert_rgb=True,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        words,
    ).save_pretrained(folder)
    return folder
