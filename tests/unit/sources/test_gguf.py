"""Quantisations by name: one model's files, with all its shards, or what there is."""

from __future__ import annotations

import pytest
from support.cases import each

from mdl.errors import MdlError, NotFound, UsageError
from mdl.files import RemoteFile
from mdl.paths import RelPath
from mdl.sources.gguf import of_quantisation

UNSLOTH = (
    *("config.json", "README.md", "Qwen3-4B-Q4_K_M.gguf", "Qwen3-4B-Q4_K_S.gguf", "Qwen3-4B-Q8_0.gguf"),
    *("Qwen3-4B-UD-Q4_K_XL.gguf", "Qwen3-4B-IQ4_XS.gguf", "Qwen3-4B-BF16.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"),
    *(f"UD-Q8_K_XL/Qwen3-4B-UD-Q8_K_XL-0000{number}-of-00003.gguf" for number in (1, 2, 3)),
)
OTHERS = (
    *("a.i1-Q4_K_M.gguf", "b_q5_0.gguf", "c-F32.gguf", "Q3_K_L/model.gguf", "d-MXFP4.gguf", "e.Q2_K.gguf.part1of2"),
    *("e.Q2_K.gguf.part2of2", "Q8_0.gguf", "f-q8_0.gguf", "g-Q6_K-00001-of-00002.gguf", "mixed-Q8/x-TQ1_0.gguf"),
)


def found(names: tuple[str, ...], wanted: str) -> list[str]:
    files = [RemoteFile(RelPath(name), f"https://h/{name}") for name in names]
    return [file.path.text for file in of_quantisation(files, wanted, "hf:org/repo")]


@each(
    ("names", "wanted", "right"),
    [
        (UNSLOTH, "Q8_0", ["Qwen3-4B-Q8_0.gguf"]),
        (UNSLOTH, "q4_k_m", ["Qwen3-4B-Q4_K_M.gguf"]),
        (UNSLOTH, "iq4_xs", ["Qwen3-4B-IQ4_XS.gguf"]),
        (UNSLOTH, "BF16", ["Qwen3-4B-BF16.gguf"]),
        (UNSLOTH, "Q4_K_XL", ["Qwen3-4B-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "UD-Q8_K_XL", list(UNSLOTH[-3:])),
        (OTHERS, "Q4_K_M", ["a.i1-Q4_K_M.gguf"]),
        (OTHERS, "Q5_0", ["b_q5_0.gguf"]),
        (OTHERS, "f32", ["c-F32.gguf"]),
        (OTHERS, "Q3_K_L", ["Q3_K_L/model.gguf"]),
        (OTHERS, "mxfp4", ["d-MXFP4.gguf"]),
        (OTHERS, "Q2_K", ["e.Q2_K.gguf.part1of2", "e.Q2_K.gguf.part2of2"]),
        (OTHERS, "TQ1_0", ["mixed-Q8/x-TQ1_0.gguf"]),
    ],
)
def test_one_quantisation(names: tuple[str, ...], wanted: str, right: list[str]) -> None:
    """It is found by its exact name in any case, with all shards; a projector is no model."""
    assert found(names, wanted) == right


@each(
    ("names", "wanted", "kind", "said"),
    [
        (UNSLOTH, "Q4_K", NotFound, "available: BF16, IQ4_XS, Q4_K_M, Q4_K_S, Q8_0, UD-Q4_K_XL, UD-Q8_K_XL"),
        (UNSLOTH, "F16", NotFound, "BF16"),
        (UNSLOTH, "0", NotFound, "Q8_0"),
        (UNSLOTH, "latest", NotFound, "Q8_0"),
        (OTHERS, "Q8_0", UsageError, "Q8_0.gguf, f-q8_0.gguf"),
        (OTHERS, "Q6_K", NotFound, "name the files"),
        (("config.json", "model-Q8_0.safetensors"), "Q8_0", NotFound, "leave out"),
        (("model.gguf",), "Q8_0", NotFound, "none in any file's name"),
    ],
)
def test_none_or_several(names: tuple[str, ...], wanted: str, kind: type[MdlError], said: str) -> None:
    """None, or a shard too few: 3 with what there is. Several models: 2 with their files."""
    with pytest.raises(kind) as caught:
        found(names, wanted)
    assert said in str(caught.value.hint)
