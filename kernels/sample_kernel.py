"""The three launches of sampling: each row's threshold, the draw over stretches of the vocabulary, the winner.

Thresholds are found without sorting: floats map to integers of the same order, and the largest integer whose tail
still holds k tokens, or mass p, is built two bits a pass.
"""

from dql.kernels.language import Block, Pointer, Scalar, constexpr, jit, tl
from dql.kernels.philox import gumbel_block


@jit()
def _allowed_logits(
    logits: Pointer, words: Pointer, row: Scalar, token: Block, vocabulary: Scalar, width: Scalar, MASKED: constexpr
) -> Block:
    """(raw, allowed): the logits in float32, and with the tokens outside the mask at −inf."""
    inside = token < vocabulary
    raw = tl.load(logits + row * vocabulary + token, mask=inside, other=float("-inf")).to(tl.float32)
    allowed = raw
    if MASKED:
        word = tl.load(words + row * width + token // 32, mask=inside, other=0)
        allowed = tl.where((word >> (token % 32)) & 1 != 0, raw, float("-inf"))
    return raw, allowed


@jit()
def _ordered(z: Block) -> Block:
    """uint32 keys in the order of the floats."""
    bits = z.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)


@jit()
def _tail(
    logits: Pointer, words: Pointer, row: Scalar, temperature: Scalar, largest: Scalar, low: Scalar, key: Scalar,
    unit: Scalar, counting: Scalar, vocabulary: Scalar, width: Scalar, MASKED: constexpr, BLOCK: constexpr,
) -> Block:  # fmt: skip
    """Of the tokens whose key is at least `low`: the count (or mass) at or above key + 1, 2 and 3 units."""
    at_a, at_b, at_c = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        token = start + tl.arange(0, BLOCK)
        _, allowed = _allowed_logits(logits, words, row, token, vocabulary, width, MASKED)
        z = allowed / temperature
        found = _ordered(z)
        weight = tl.where(counting, 1.0, tl.exp(z - largest))
        weight = tl.where((found >= low) & (token < vocabulary), weight, 0.0)
        at_a += tl.where(found >= key + unit, weight, 0.0)
        at_b += tl.where(found >= key + 2 * unit, weight, 0.0)
        at_c += tl.where(found >= key + 3 * unit, weight, 0.0)
    return tl.sum(at_a), tl.sum(at_b), tl.sum(at_c)


@jit()
def threshold_kernel(
    logits: Pointer, words: Pointer, temperatures: Pointer, top_k: Pointer, top_p: Pointer, min_p: Pointer,
    threshold: Pointer, vocabulary: Scalar, width: Scalar, MASKED: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperatures + row)
    k, p, floor = tl.load(top_k + row), tl.load(top_p + row), tl.load(min_p + row)
    edge = tl.full((), float("-inf"), tl.float32)
    if (temperature > 0) & ((k > 0) | (p < 1) | (floor > 0)):
        peak = tl.full((BLOCK,), float("-inf"), tl.float32)
        for start in range(0, vocabulary, BLOCK):
            token = start + tl.arange(0, BLOCK)
            _, allowed = _allowed_logits(logits, words, row, token, vocabulary, width, MASKED)
            peak = tl.maximum(peak, allowed / temperature)
        largest = tl.max(peak)
        low = tl.zeros((), tl.uint32)
        wanted = k.to(tl.float32)
        for phase in range(3):  # the k-th key; the mass at or above it; the key at which a share p of that is reached
            weighing = phase == 1
            wished = ((phase == 0) & (k > 0) & (k < vocabulary)) | ((phase > 0) & (p < 1))
            passes = tl.where(wished, tl.where(weighing, 1, 16), 0)
            key = tl.where(weighing, low, 0)
            unit = tl.where(weighing, 0, 1 << 30).to(tl.uint32)
            mass = 0.0
            for _ in range(passes):
                mass, at_b, at_c = _tail(
                    logits, words, row, temperature, largest, low, key, unit, phase == 0,
                    vocabulary, width, MASKED, BLOCK,
                )  # fmt: skip
                reached = (mass >= wanted).to(tl.uint32) + (at_b >= wanted).to(tl.uint32)
                key += unit * (reached + (at_c >= wanted).to(tl.uint32))
                unit = unit >> 2
            low = tl.maximum(low, key)
            wanted = tl.where(weighing, p * mass, wanted)
        bits = low.to(tl.int32, bitcast=True)
        kept = (bits ^ (((bits >> 31) ^ -1) | -2147483648)).to(tl.float32, bitcast=True)  # `_ordered` undone
        edge = tl.where(low == 0, edge, kept)
        edge = tl.maximum(edge, tl.where(floor > 0, largest + tl.log(tl.maximum(floor, 1e-30)), edge))
    tl.store(threshold + row, edge)


@jit(do_not_specialize=["rows", "blocks"])
def draw_kernel(
    logits: Pointer, words: Pointer, temperatures: Pointer, seeds: Pointer, steps: Pointer, threshold: Pointer,
    best: Pointer, winner: Pointer, largest: Pointer, total: Pointer,
    vocabulary: Scalar, width: Scalar, rows: Scalar, blocks: Scalar,
    MASKED: constexpr, GREEDY: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    """`blocks` blocks of one row: their best token and score, and the running log-sum-exp of the raw logits."""
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature, edge, seed, step, hot = 0.0, 0.0, 0, 0, False
    if not GREEDY:
        temperature, edge = tl.load(temperatures + row), tl.load(threshold + row)
        seed, step = tl.load(seeds + row), tl.load(steps + row)
        hot = temperature > 0
    score = tl.full((BLOCK,), float("-inf"), tl.float32)
    chosen = tl.zeros((BLOCK,), tl.int32)
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    begin = split * blocks * BLOCK
    for start in range(begin, tl.minimum(begin + blocks * BLOCK, vocabulary), BLOCK):
        token = start + tl.arange(0, BLOCK)
        raw, value = _allowed_logits(logits, words, row, token, vocabulary, width, MASKED)
        raised = tl.maximum(peak, raw)
        base = tl.where(raised == float("-inf"), 0.0, raised)
        sums = sums * tl.exp(peak - base) + tl.exp(raw - base)
        peak = raised
        if hot:
            value = value / temperature
            a, b, c, d = gumbel_block(seed, step, start // 4 + tl.arange(0, BLOCK // 4))
            noise = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK,))
            value = tl.where(value >= edge, value, float("-inf")) + noise
        better = value > score
        score = tl.where(better, value, score)
        chosen = tl.where(better, token, chosen)
    top = tl.max(score)
    at = split * rows + row
    tl.store(best + at, top)
    tl.store(winner + at, tl.min(tl.where(score == top, chosen, 2147483647)))
    crest = tl.max(peak)
    tl.store(largest + at, crest)
    tl.store(total + at, tl.sum(sums * tl.exp(peak - tl.where(crest == float("-inf"), 0.0, crest))))


@jit(do_not_specialize=["rows", "splits"])
def finish_kernel(
    logits: Pointer, best: Pointer, winner: Pointer, largest: Pointer, total: Pointer, tokens: Pointer,
    log_probs: Pointer, vocabulary: Scalar, rows: Scalar, splits: Scalar, BLOCK: constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, BLOCK)
    at, real = split * rows + row, split < splits
    score = tl.load(best + at, mask=real, other=float("-inf"))
    candidate = tl.load(winner + at, mask=real, other=2147483647)
    token = tl.min(tl.where(score == tl.max(score), candidate, 2147483647))
    peak = tl.load(largest + at, mask=real, other=float("-inf"))
    crest = tl.max(peak)
    log_sum = crest + tl.log(tl.sum(tl.load(total + at, mask=real, other=0.0) * tl.exp(peak - crest)))
    tl.store(tokens + row, token.to(tl.int64))
    tl.store(log_probs + row, tl.load(logits + row * vocabulary + token).to(tl.float32) - log_sum)
