"""llama.cpp through xllamacpp, one prompt after the other with its prompt cache, the quickest way it has on a CPU.

Run by the environment that has xllamacpp. Reads lines of JSON {"prompts": [[id, …], …], "new_tokens": n} and writes
{"outputs": ["text", …]}.
"""

import json
import os
import sys

import xllamacpp


def main() -> None:
    """Load the GGUF file named on the command line, say so, then answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    settings = xllamacpp.CommonParams()
    settings.model.path = sys.argv[1]
    settings.n_ctx, settings.n_parallel = 2048, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = os.cpu_count() or 1
    server = xllamacpp.Server(settings)
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        sampling = {"max_tokens": asked["new_tokens"], "temperature": 0, "cache_prompt": True, "ignore_eos": True}
        found = [server.handle_completions({"prompt": ids, **sampling}) for ids in asked["prompts"]]
        print(json.dumps({"outputs": [one["choices"][0]["text"] for one in found]}), file=out, flush=True)


if __name__ == "__main__":
    main()
