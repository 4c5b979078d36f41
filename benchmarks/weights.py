"""A made-up trained run on disk, which deflates like a real one: weights, optimizer state, tokenizer, state, log.

pack.py shows what deflate does to every kind of data. The weights are drawn
from N(0, 0.02) and cut to bf16; bits without any order in them (sign, low mantissa) are drawn anew for every
mebibyte, so nothing repeats and the statistics stay. The same seed makes the same bytes.
As a script it makes a run in a separate process: what a parent once had in memory counts in the peak memory of its
children: python benchmarks/weights.py FOLDER --size 1G --kind training
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from harness import size_of

_DRAWN = 2**20
_BLOCK, _PIECE = 2**20, 4096
_SHARD, _TENSOR = 2**29, 2**25
_MOST_TEXT = 3 * 2**20
_LETTERS = "aaabcdeeeefghiijklmnnoopqrrsstttuvwxyzABCDEIMNPRST0129_-"
_SIGN, _LOW_16, _LOW_32 = 0x80000000, 0x001F, 0x001FFFFF


@dataclass(frozen=True)
class Kind:
    """Numbers as a trainer keeps them. ``noise`` are the bits of one number that have no order."""

    dtype: str
    width: int
    noise: int
    draw: Callable[[random.Random], float]


KINDS = {
    "bf16 weights": Kind("BF16", 2, _SIGN >> 16 | _LOW_16, lambda draw: draw.gauss(0, 0.02)),
    "fp32 weights": Kind("F32", 4, _SIGN | _LOW_32, lambda draw: draw.gauss(0, 0.02)),
    "fp32 exp_avg": Kind("F32", 4, _SIGN | _LOW_32, lambda draw: draw.gauss(0, 1e-4)),
    "fp32 exp_avg_sq": Kind("F32", 4, _LOW_32, lambda draw: draw.gauss(0, 1e-4) ** 2),
}


def numbers(kind: Kind, size: int, seed: int) -> Iterator[bytes]:
    """``size`` bytes of ``kind``, at most a mebibyte at a time."""
    draw = random.Random(seed)
    drawn = array("f", (kind.draw(draw) for _ in range(_DRAWN)))
    if sys.byteorder == "big":
        drawn.byteswap()
    pool = drawn.tobytes()
    if kind.width == 2:
        upper = bytearray(len(pool) // 2)
        upper[0::2], upper[1::2] = pool[2::4], pool[3::4]
        pool = bytes(upper)
    pieces = [pool[at : at + _PIECE] for at in range(0, len(pool), _PIECE)]
    mask = int.from_bytes(kind.noise.to_bytes(kind.width, "little") * (_BLOCK // kind.width), "little")
    while size > 0:
        block = int.from_bytes(b"".join(draw.sample(pieces, _BLOCK // _PIECE)), "little")
        block ^= draw.getrandbits(8 * _BLOCK) & mask
        yield block.to_bytes(_BLOCK, "little")[:size]
        size -= _BLOCK


def tokenizer(size: int, seed: int) -> Iterator[bytes]:
    """About ``size`` bytes like a tokenizer.json: a vocabulary and what is merged."""
    draw = random.Random(seed)
    ends = ["", "", "ing", "ed", "tion", "ly", "er", "s"]

    def word() -> str:
        letters = "".join(draw.choices(_LETTERS, k=draw.randint(2, 6)))
        return draw.choice(("Ġ", "", "")) + letters + draw.choice(ends)

    yield b'{\n  "version": "1.0",\n  "model": {\n    "type": "BPE",\n    "vocab": {\n'
    done, count = 0, 0
    while done < size // 2:
        done += len(line := f'      "{word()}": {count},\n'.encode())
        count += 1
        yield line
    yield f'      "<|end|>": {count}\n    }},\n    "merges": [\n'.encode()
    while done < size:
        left = word()
        done += len(line := f'      "{left[:-1]} {left[-1]}",\n'.encode())
        yield line
    yield b'      "e n"\n    ]\n  }\n}\n'


def _steps(seed: int) -> Iterator[tuple[int, float, float, float]]:
    """Step, loss, gradient norm and learning rate, as a training goes."""
    draw, step = random.Random(seed), 0
    while True:
        step += 10
        loss = 2.0 + 8.0 / (1 + step / 500) + draw.gauss(0, 0.03)
        yield step, loss, abs(draw.gauss(0.8, 0.1)), 2e-4 * (1 - min(step, 10**6) / 1.1e6)


def log(size: int, seed: int) -> Iterator[bytes]:
    """About ``size`` bytes like a train.log."""
    done, draw = 0, random.Random(seed)
    for step, loss, norm, rate in _steps(seed):
        hours, rest = divmod(step // 3, 3600)
        moment = f"2026-03-{1 + hours // 24 % 28:02d} {hours % 24:02d}:{rest // 60:02d}:{rest % 60:02d}"
        facts = f"loss={loss:.5f} grad_norm={norm:.4f} lr={rate:.4e} tokens/s={draw.randint(400000, 430000) / 10}"
        line = f"{moment},{draw.randint(0, 999):03d} INFO trainer.loop - step {step}/1000000 {facts} mem=71.3GiB\n"
        done += len(line)
        yield line.encode()
        if done >= size:
            return


def state(size: int, seed: int) -> Iterator[bytes]:
    """About ``size`` bytes like a trainer_state.json."""
    yield b'{\n  "best_metric": null,\n  "global_step": 1000,\n  "log_history": [\n'
    done = 0
    for step, loss, norm, rate in _steps(seed):
        epoch = f'      "epoch": {step / 5000},\n      "grad_norm": {norm},\n      "learning_rate": {rate},'
        line = f'    {{\n{epoch}\n      "loss": {loss:.4f},\n      "step": {step}\n    }}'
        done += len(line)
        yield f"{line}{',' if done < size else ''}\n".encode()
        if done >= size:
            yield b"  ]\n}\n"
            return


def sample(name: str, size: int, seed: int = 1) -> bytes:
    """About ``size`` bytes of one kind: of `KINDS`, or tokenizer.json, trainer_state.json, train.log."""
    texts = {"tokenizer.json": tokenizer, "trainer_state.json": state, "train.log": log}
    return b"".join(texts[name](size, seed) if name in texts else numbers(KINDS[name], size, seed))


def header(dtype: str, width: int, names: str, size: int) -> tuple[bytes, list[str]]:
    """The head of a safetensors file with ``size`` bytes of tensors, and what they are called."""
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for number, at in enumerate(range(0, size, _TENSOR)):
        end = min(at + _TENSOR, size)
        table[names.format(number)] = {"dtype": dtype, "shape": [(end - at) // width], "data_offsets": [at, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, [name for name in table if name != "__metadata__"]


def safetensors(path: Path, name: str, names: str, size: int, seed: int) -> list[str]:
    """A whole safetensors file of one kind of `KINDS`; tells what its tensors are called."""
    kind = KINDS[name]
    size -= size % 4
    head, tensors = header(kind.dtype, kind.width, names, size)
    _write(path, chain((head,), numbers(kind, size, seed)))
    return tensors


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(parts)


def make_run(folder: Path, size: int, kind: str = "bf16", seed: int = 1) -> None:
    """A run of about ``size`` bytes: weights, or with ``training`` twice as much of Adam state too, and a log."""
    folder.mkdir(parents=True)
    text = min(_MOST_TEXT, size // 64)
    _write(folder / "tokenizer.json", tokenizer(text, seed))
    _write(folder / "trainer_state.json", state(text, seed))
    _write(folder / "config.json", (b'{"architectures": ["Llama"], "torch_dtype": "bfloat16"}\n',))
    size -= 2 * text
    weights = size // 3 if kind == "training" else size
    count, placed = -(-weights // _SHARD), {}
    for number in range(count):
        name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        tensors = f"model.layers.{number}.{{}}.weight"
        part = min(_SHARD, weights - number * _SHARD)
        for tensor in safetensors(folder / name, "bf16 weights", tensors, part, seed + number):
            placed[tensor] = name
    index = json.dumps({"metadata": {"total_size": weights}, "weight_map": placed})
    _write(folder / "model.safetensors.index.json", (index.encode(),))
    if kind == "training":
        for name in ("exp_avg", "exp_avg_sq"):
            safetensors(folder / f"{name}.safetensors", f"fp32 {name}", f"{name}.{{}}", size // 3, seed)
        _write(folder / "train.log", log(text, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the run goes; it must not exist")
    parser.add_argument("--size", type=size_of, default=size_of("1G"), help="about how many bytes, as 512M [1G]")
    parser.add_argument("--kind", choices=("bf16", "training"), default="bf16")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    make_run(args.folder, args.size, args.kind, args.seed)


if __name__ == "__main__":
    main()
