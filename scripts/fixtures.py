#!/usr/bin/env python3
"""Generate the GPT-2 parity fixtures in tests/fixtures/ with PyTorch and Hugging Face transformers.

    python scripts/fixtures.py [--out tests/fixtures] [--check]

Needs torch, transformers and safetensors, on the CPU. The tests read only the files, so Python is needed only to
regenerate them. The same versions on the same kind of processor give the same bytes; --check compares with the files.

Each fixture is a folder:
  config.json, model.safetensors   a Hugging Face GPT-2 folder (`save_pretrained`): random f32 weights, the head tied to
                                   transformer.wte.weight, Conv1D weights (in, out) as Hugging Face stores them.
  expected.safetensors             the outputs of that model, computed in float64 from the f32 weights:
    tokens, targets   (B, T)    I32   targets are already shifted: position t must predict targets[b, t]; -100 is
                                      ignored
    logits            (B, T, V) F64
    loss              ()        F64   cross-entropy, mean over the positions that are not ignored
    grad.<parameter>            F64   d loss / d parameter, for every tensor of model.safetensors, in its shape;
                                      grad.transformer.wte.weight is the sum of embedding and head
    clip_norm         ()        F64   the maximum gradient norm of the updates below
    adamw_losses      (10)      F64   loss before each of 10 AdamW updates on this batch, so [0] is `loss`
    grad_norms        (10)      F64   global L2 norm of the gradients at each step, before clipping
    final.<parameter>           F64   after the 10th update: wte, the first attn.c_attn.weight, the last mlp.c_fc.bias
    prompt            (5)       I32
    greedy            (n)       I32   the next n = min(context - 5, 8) tokens by argmax
  Updates: gradients times min(1, clip_norm / (norm + 1e-6)); p *= 1 - lr * decay; Adam with bias correction, lr 1e-3,
  betas (0.9, 0.95), eps 1e-8; decay 0.1 on tensors of two dimensions, 0 on others. Versions, seed and all these numbers
  are JSON in the metadata, under `about`.

Notes for comparisons:
  - The gradient of the key third of attn.c_attn.bias is exactly zero in theory (softmax is invariant to a shift). The
    stored values are rounding noise and must be compared absolutely. Adam turns noise into steps, so `final.` omits it.
  - Prompts are drawn until every greedy choice leads the second-best by 0.05 in the logits, so f32 chooses the same.
"""

import argparse
import filecmp
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

from peer_operations import weight_decay_groups

IGNORED = -100
PROMPT_LEN, MAX_GREEDY, GREEDY_MARGIN = 5, 8, 0.05
ADAMW = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
WEIGHT_DECAY, STEPS = 0.1, 10
FILES = ("config.json", "model.safetensors", "expected.safetensors")


@dataclass(frozen=True)
class Fixture:
    name: str
    seed: int
    v: int
    context: int
    l: int
    nh: int
    c: int
    b: int
    t: int
    ignored: int = 0  # number of targets that are IGNORED
    clip_norm: float = 1.0


FIXTURES = (
    # T shorter than the context, so rows of wpe get no gradient.
    Fixture("two-layers", seed=1, v=97, context=16, l=2, nh=3, c=24, b=2, t=11),
    # One layer, head and sequence, and T equal to the context. With this clip_norm some steps are clipped and some not.
    Fixture("one-head", seed=2, v=130, context=9, l=1, nh=1, c=20, b=1, t=9, clip_norm=5.0),
    # C and the head size (17) not multiples of 8, V prime, ignored targets.
    Fixture("odd-sizes", seed=3, v=257, context=33, l=3, nh=2, c=34, b=3, t=17, ignored=6),
)


def make_model(fx, generator):
    """A model whose weights are so large that attention and GELU are far from linear; no bias or scale is 0 or 1."""
    config = GPT2Config(vocab_size=fx.v, n_positions=fx.context, n_layer=fx.l, n_head=fx.nh, n_embd=fx.c,
                        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
                        tie_word_embeddings=True, attn_implementation="eager")  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if ".ln_" in name and name.endswith("weight"):
            p.data = 1 + 0.2 * noise
        elif p.dim() == 1:
            p.data = 0.2 * noise
        elif ".wte." in name or ".wpe." in name:
            p.data = 0.5 * noise
        else:  # Conv1D (in, out)
            p.data = 1.5 * noise / p.shape[0] ** 0.5
    return model


def forward(model, tokens, targets):
    """Logits and loss. The model's own loss is not used, because it rounds the logits to f32."""
    logits = model(tokens).logits
    return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def continue_greedily(model, prompt, count):
    """The next `count` tokens, or None if a choice leads by less than GREEDY_MARGIN."""
    tokens = prompt
    for _ in range(count):
        top = model(tokens[None]).logits[0, -1].topk(2)
        if top.values[0] - top.values[1] < GREEDY_MARGIN:
            return None
        tokens = torch.cat((tokens, top.indices[:1]))
    return tokens[len(prompt) :]


def make_prompt(model, fx, generator):
    count = min(fx.context - PROMPT_LEN, MAX_GREEDY)
    while True:
        prompt = torch.randint(fx.v, (PROMPT_LEN,), generator=generator)
        greedy = continue_greedily(model, prompt, count)
        if greedy is not None and len(greedy.unique()) > count // 2:  # a repeated token would test little
            return prompt, greedy


def train(model, tokens, targets, clip_norm):
    """Makes STEPS updates on one batch. Returns the loss and the gradient norm before each."""
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(weight_decay_groups(params, WEIGHT_DECAY), **ADAMW)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        _, loss = forward(model, tokens, targets)
        loss.backward()
        losses.append(loss.detach())
        norms.append(torch.nn.utils.clip_grad_norm_(params, clip_norm))
        optimizer.step()
    return torch.stack(losses), torch.stack(norms)


def expectations(model, fx, generator):
    """The tensors of expected.safetensors. `model` is float64, and is trained."""
    tokens, targets = torch.randint(fx.v, (2, fx.b, fx.t), generator=generator)
    targets.view(-1)[torch.randperm(fx.b * fx.t, generator=generator)[: fx.ignored]] = IGNORED
    prompt, greedy = make_prompt(model, fx, generator)
    logits, loss = forward(model, tokens, targets)
    loss.backward()
    out = dict(logits=logits, loss=loss, clip_norm=torch.tensor(fx.clip_norm, dtype=torch.float64))
    out |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}
    out["adamw_losses"], out["grad_norms"] = train(model, tokens, targets, fx.clip_norm)
    for name in ("wte.weight", "h.0.attn.c_attn.weight", f"h.{fx.l - 1}.mlp.c_fc.bias"):
        out[f"final.transformer.{name}"] = model.get_parameter(f"transformer.{name}")
    assert all(t.dtype == torch.float64 and t.isfinite().all() for t in out.values())
    integers = dict(tokens=tokens, targets=targets, prompt=prompt, greedy=greedy)
    out |= {name: t.int() for name, t in integers.items()}
    return {name: t.detach().contiguous() for name, t in out.items()}


def about(fx):
    """The metadata as one string, because safetensors writes several metadata keys in arbitrary order."""
    versions = {m.__name__: m.__version__ for m in (torch, transformers, safetensors)}
    adamw = ADAMW | dict(weight_decay=WEIGHT_DECAY, steps=STEPS)
    return json.dumps(dict(made_by="scripts/fixtures.py", versions=versions, fixture=asdict(fx), adamw=adamw))


def make(fx, folder):
    generator = torch.Generator().manual_seed(fx.seed)
    model = make_model(fx, generator)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)  # not used
    tensors = expectations(model.double(), fx, generator)
    safetensors.torch.save_file(tensors, folder / "expected.safetensors", metadata={"about": about(fx)})
    losses, size = tensors["adamw_losses"], sum((folder / f).stat().st_size for f in FILES)
    print(f"{fx.name}: {size:,} bytes, loss {losses[0]:.4f} -> {losses[-1]:.4f}, greedy {tensors['greedy'].tolist()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tests" / "fixtures")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files in --out differ")
    args = parser.parse_args()
    torch.set_num_threads(1)  # one order of summation
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) if args.check else args.out
        for fx in FIXTURES:
            make(fx, root / fx.name)
        if args.check:
            paths = [f"{fx.name}/{file}" for fx in FIXTURES for file in FILES]
            _, different, missing = filecmp.cmpfiles(root, args.out, paths, shallow=False)
            if different or missing:
                sys.exit(f"differs from {args.out}: {', '.join(different + missing)}")


if __name__ == "__main__":
    main()
