"""One set of weights: which files of a repository are fetched, by the names that its listing has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.catalog.choice_of_weights import choose
from mdl.files import RefusedFile, RemoteFile
from mdl.paths import RelPath


def listing(names: str) -> list[RemoteFile]:
    """Files of these names, the first of 1 byte, the second of 2 and so on."""
    paths = map(RelPath.of_repository, names.split())
    return [RemoteFile(path, f"https://hub/{path}", size) for size, path in enumerate(paths, 1)]


WHISPER = (
    ".gitattributes README.md added_tokens.json config.json generation_config.json merges.txt model.safetensors "
    "normalizer.json preprocessor_config.json tokenizer.json vocab.json",
    "flax_model.msgpack pytorch_model.bin tf_model.h5",
)
WHISPER_LARGE = (
    "config.json model.safetensors tokenizer.json",
    "flax_model.msgpack model.fp32-00001-of-00002.safetensors model.fp32-00002-of-00002.safetensors "
    "model.safetensors.index.fp32.json pytorch_model.bin pytorch_model.bin.index.fp32.json "
    "pytorch_model.fp32-00001-of-00002.bin pytorch_model.fp32-00002-of-00002.bin",
)
GPT_OSS = (
    "LICENSE README.md chat_template.jinja config.json model-00000-of-00002.safetensors "
    "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json tokenizer.json",
    "metal/model.bin original/config.json original/dtypes.json original/model.safetensors",
)
MISTRAL = (
    "config.json model-00001-of-00003.safetensors model-00002-of-00003.safetensors model-00003-of-00003.safetensors "
    "model.safetensors.index.json params.json tekken.json",
    "consolidated.safetensors pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin "
    "pytorch_model.bin.index.json",
)
LLAMA = (
    "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json",
    "original/consolidated.00.pth original/params.json original/tokenizer.model",
)
DIFFUSERS = (
    "README.md model_index.json scheduler/scheduler_config.json text_encoder/config.json "
    "text_encoder/model.safetensors "
    "text_encoder_2/model-00001-of-00002.safetensors text_encoder_2/model-00002-of-00002.safetensors "
    "text_encoder_2/model.safetensors.index.json tokenizer/vocab.json unet/config.json "
    "unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.non_ema.safetensors "
    "vae/config.json vae/diffusion_pytorch_model.safetensors sd_xl_base_1.0.safetensors",
    "text_encoder/flax_model.msgpack text_encoder/model.fp16.safetensors text_encoder/model.onnx "
    "text_encoder/openvino_model.bin text_encoder/openvino_model.xml text_encoder/pytorch_model.bin "
    "text_encoder/pytorch_model.fp16.bin text_encoder_2/model.fp16-00001-of-00002.safetensors "
    "text_encoder_2/model.fp16-00002-of-00002.safetensors text_encoder_2/model.safetensors.index.fp16.json "
    "unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.fp16.bin "
    "unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.bin unet/model.onnx "
    "unet/model.onnx_data vae/diffusion_flax_model.msgpack vae/diffusion_pytorch_model.fp16.safetensors "
    "vae_decoder/config.json vae_decoder/model.onnx vae_decoder/openvino_model.bin vae_decoder/openvino_model.xml "
    "sd_xl_base_1.0.ckpt",
)
SENTENCES = (
    "1_Pooling/config.json 2_Dense/config.json 2_Dense/model.safetensors README.md config.json "
    "config_sentence_transformers.json model.safetensors modules.json train_script.py",
    "2_Dense/pytorch_model.bin onnx/model.onnx onnx/model_O4.onnx onnx/model_qint8_arm64.onnx onnx/tokenizer.json "
    "openvino/openvino_model.bin openvino/openvino_model.xml openvino/openvino_model_qint8_quantized.bin "
    "openvino/openvino_model_qint8_quantized.xml pytorch_model.bin rust_model.ot tf_model.h5",
)
LORA = (
    "README.md adapter_config.json adapter_model.safetensors checkpoint-500/adapter_model.safetensors "
    "checkpoint-500/optimizer.pt training_args.bin",
    "adapter_model.bin",
)
BERT_OF_2018 = (
    "config.json model.safetensors vocab.txt",
    "coreml/fill-mask/float32_model.mlpackage/Data/com.apple.CoreML/weights/weight.bin "
    "coreml/fill-mask/float32_model.mlpackage/Manifest.json bert_model.ckpt.data-00000-of-00001 "
    "bert_model.ckpt.index bert_model.ckpt.meta",
)
LARGE_AND_GGUF = ("config.json model.safetensors", "gemma-2b.gguf gguf/gemma-2b-Q4_0.gguf gguf/gemma-2b-Q8_0.gguf")
REPOSITORIES = {
    "whisper-tiny": WHISPER,
    "whisper-large-v3": WHISPER_LARGE,
    "gpt-oss-20b, which counts its shards from 0": GPT_OSS,
    "mistral, with the layout of its makers": MISTRAL,
    "llama, with the layout of its makers": LLAMA,
    "a pipeline of diffusers, folder by folder": DIFFUSERS,
    "a model of sentence-transformers": SENTENCES,
    "a LoRA": LORA,
    "TensorFlow's checkpoint and Core ML": BERT_OF_2018,
    "GGUF beside safetensors": LARGE_AND_GGUF,
    "one shard is missing": (
        "model-00001-of-00003.safetensors model-00003-of-00003.safetensors pytorch_model.bin onnx/model.onnx "
        "model.safetensors.index.json",
        "",
    ),
    "shards from 0 on, without the last one": (
        "model-00000-of-00003.safetensors model-00001-of-00003.safetensors "
        "model-00002-of-00003.safetensors tf_model.h5",
        "",
    ),
    "an index without its shards": ("model.safetensors.index.json pytorch_model.bin", ""),
    "fp16 alone": ("unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.bin", ""),
    "fp16 alone, in two formats": (
        "unet/model.fp16.safetensors unet/pytorch_model.bin",
        "unet/pytorch_model.fp16.bin",
    ),
    "no safetensors": ("pytorch_model.bin tf_model.h5 onnx/model.onnx original/model.bin config.json", ""),
    "only onnx": ("onnx/model.onnx onnx/model_quantized.onnx config.json", ""),
    "weights of one's own names": ("ae.safetensors flux1-dev.safetensors flux1-dev-Q4_0.gguf clip_l.safetensors", ""),
    "the same name in two formats": ("v1-5.safetensors vae.pt notes.txt", "v1-5.ckpt"),
    "a helper in another format": ("model.safetensors silero_vad.onnx speaker.pt optimizer.bin scheduler.pt", ""),
    "a folder of that name without weights": ("model.safetensors original/paper.pdf onnx/README.md", ""),
    "checkpoints": ("checkpoint-1/model.safetensors checkpoint-2/pytorch_model.bin", ""),
    "a dataset": ("data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet README.md", ""),
    "nothing": ("", ""),
}


@each("name", REPOSITORIES)
def test_one_set_of_weights(name: str) -> None:
    """Of the same weights in several formats the complete safetensors are fetched, and everything that is no weights.
    What is not certain to be the same is fetched too."""
    wanted, left_out = REPOSITORIES[name]
    chosen = choose(listing(f"{wanted} {left_out}"))
    assert {str(file.path) for file in chosen.left_out} == set(left_out.split())
    assert {str(file.path) for file in chosen.files} == set(wanted.split())
    assert chosen.quantisations == ()


def test_quantisations_are_for_the_user_to_choose() -> None:
    """Several quantisations are named with their sizes, the shards summed, the smallest first; what belongs to a model
    in any quantisation is none. One quantisation is simply fetched."""
    shards = "m-Q8_0-00001-of-00002.gguf m-Q8_0-00002-of-00002.gguf"
    chosen = choose(listing(f"m-BF16.gguf m-Q4_K_M.gguf {shards} mmproj-F16.gguf imatrix.gguf"))
    assert [(one.name, one.files, one.size) for one in chosen.quantisations] == [
        ("BF16", 1, 1),
        ("Q4_K_M", 1, 2),
        ("Q8_0", 2, 7),
    ]
    assert len(chosen.files) == 6
    assert choose(listing("m-Q8_0.gguf mmproj-F16.gguf README.md")).quantisations == ()
    assert choose(listing("a-Q8_0.gguf b-Q8_0.gguf model.gguf")).quantisations == ()


def test_what_cannot_be_kept_is_chosen_by_the_same_rule() -> None:
    """A file whose name this system cannot keep is left out, or told, as any other."""
    odd = RefusedFile("onnx/a\tb.onnx", "a control character", 7)
    other = RefusedFile("a\tb.json", "a control character", 7)
    chosen = choose([*listing("model.safetensors onnx/model.onnx"), odd, other])
    assert chosen.left_out[-1] == odd
    assert chosen.files[-1] == other


NAMES = st.sampled_from(
    [
        *("model", "model.fp16", "pytorch_model", "tf_model", "consolidated.00", "diffusion_pytorch_model", "lora"),
        *("model-00001-of-00002", "model-00002-of-00002", "x-Q4_0", "x-Q8_0", "openvino_model", "config"),
    ]
)
SUFFIXES = st.sampled_from(
    ["safetensors", "bin", "h5", "onnx", "gguf", "msgpack", "json", "safetensors.index.json", "xml"]
)
FOLDERS = st.sampled_from(["", "onnx/", "original/", "unet/", "unet/onnx/", "original/deep/er/"])
PATHS = st.builds(lambda folder, name, suffix: f"{folder}{name}.{suffix}", FOLDERS, NAMES, SUFFIXES)


@given(st.lists(PATHS, unique=True))
def test_nothing_is_lost(paths: list[str]) -> None:
    """Every file is fetched or left out, in the order of the listing, and never both. The order of the listing decides
    nothing, and what was chosen would be chosen again. Where something is left out, safetensors are fetched."""
    files = listing(" ".join(paths))
    chosen = choose(files)
    assert sorted([*chosen.files, *chosen.left_out], key=files.index) == files
    assert [*chosen.files] == sorted(chosen.files, key=files.index)
    mirrored = choose(files[::-1])
    assert mirrored.files == chosen.files[::-1]
    assert choose(chosen.files).left_out == ()
    if chosen.left_out:
        assert any(str(file.path).endswith(".safetensors") for file in chosen.files)
