"""vLLM's CPU build: prefix caching on, its cache emptied before every batch. Run by the environment that has vLLM.

Reads lines of JSON {"prompts": [[id, …], …], "new_tokens": n} and writes {"outputs": [[id, …], …]}.
"""

import json
import os
import sys

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm import LLM, SamplingParams


def main() -> None:
    """Load the folder named on the command line, say so, then answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    model = LLM(
        model=sys.argv[1],
        skip_tokenizer_init=True,
        dtype="float32",
        block_size=32,  # with its default of 128 a shorter prefix is never shared
        enable_prefix_caching=True,
        max_model_len=2048,
        max_num_seqs=256,
    )
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        model.reset_prefix_cache()
        sampling = SamplingParams(temperature=0, max_tokens=asked["new_tokens"], ignore_eos=True, detokenize=False)
        prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
        found = model.generate(prompts, sampling, use_tqdm=False)
        print(json.dumps({"outputs": [list(one.outputs[0].token_ids) for one in found]}), file=out, flush=True)


if __name__ == "__main__":
    main()
