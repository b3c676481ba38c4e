"""The vocabulary of a checkpoint folder: tokenizer.json and the small files beside it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, pre_tokenizers

from dql.errors import ConfigError
from dql.models.vocabulary import ControlToken, Style, Vocabulary, end_ids, is_text_piece

_MAX_JSON = 128 << 20  # bytes; the largest honest tokenizer.json (Gemma 3) has 33 MB
_MAX_TOKENS = 1 << 22
_HIDDEN = "\ue0d0"  # a private-use character


def read_json(path: Path, *, required: bool = False) -> dict[str, Any]:
    """The JSON object in a file, {} where an optional file is missing. Raises ConfigError naming the file."""
    if not required and not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes are too many for a model's JSON file")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a JSON object was expected")
    return value


def json_vocabulary(folder: Path) -> Vocabulary:
    """Vocabulary of a checkpoint folder. Raises ConfigError naming the file that cannot be used."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(
            f"{folder}: it has no tokenizer.json, without which no text can be read",
            hint="fetch it from where the weights come from; transformers writes it: tokenizer.save_pretrained(folder)",
        )
    source = read_json(path, required=True)
    try:
        return _build(source, folder)
    except ConfigError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for whatever it cannot parse
        raise ConfigError(f"{path}: not a tokenizer that the tokenizers library can load: {error}") from error


def chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template of a checkpoint folder, wherever its age put it."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text()
    template = read_json(folder / "chat_template.json").get("chat_template", settings.get("chat_template"))
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _build(source: dict[str, Any], folder: Path) -> Vocabulary:
    settings = read_json(folder / "tokenizer_config.json")
    model, added = source["model"], source.get("added_tokens", [])
    style = _style(source)
    pieces = _pieces(model, added)
    unknown = model.get("unk_token") if model["type"] != "BPE" else None
    text_pieces = {t["content"] for t in added if not t["special"] and is_text_piece(t["content"])}
    control = tuple(
        ControlToken(token["id"], token["content"], not token["special"], token["lstrip"], token["rstrip"])
        for token in added
        if token["content"] not in text_pieces and token["content"] != unknown
    )
    prefix, suffix = _frame(source.get("post_processor"), {text: id for id, text in enumerate(pieces)})
    space_prefix = _strip(source, {token.text for token in control})
    data = tokenizers.Tokenizer.from_str(json.dumps(source))
    if style == "sentencepiece" and text_pieces and model["type"] == "BPE":
        data.model.ignore_merges = True
        cut = "|".join(re.escape(piece.replace(" ", "▁")) for piece in sorted(text_pieces, key=len, reverse=True))
        data.pre_tokenizer = pre_tokenizers.Split(Regex(cut), behavior="isolated")
    named = {name: _content(settings.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    by_text = {text: id for id, text in enumerate(pieces)}
    bos_id = by_text.get(named["bos_token"] or "")
    return Vocabulary(
        data=data,
        pieces=pieces,
        style=style,
        control=control,
        end_ids=end_ids(control, by_text.get(named["eos_token"] or ""), *_declared_ends(folder, len(pieces))),
        bos_id=bos_id,
        add_bos=bos_id is not None and bos_id in prefix,
        space_prefix=space_prefix,
        prefix=prefix,
        suffix=suffix,
        chat_template=chat_template(folder, settings),
        token_texts={name: text for name, text in named.items() if text is not None},
    )


def _style(source: Mapping[str, Any]) -> Style:
    if source["model"]["type"] == "WordPiece":
        return "wordpiece"
    kinds = {step.get("type") for key in ("pre_tokenizer", "decoder") for step in _steps(source.get(key))}
    return "byte_level" if "ByteLevel" in kinds else "sentencepiece"


def _steps(part: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps of a pipeline part, whether it is one step or a sequence of them."""
    if part is None:
        return
    inner = next((part[key] for key in ("normalizers", "pretokenizers", "decoders", "processors") if key in part), None)
    yield from ([dict(part)] if inner is None else inner)


def _pieces(model: Mapping[str, Any], added: Sequence[Mapping[str, Any]]) -> list[str]:
    vocab = model["vocab"]
    pairs = [(piece, id) for id, (piece, _) in enumerate(vocab)] if isinstance(vocab, list) else list(vocab.items())
    pairs += [(token["content"], token["id"]) for token in added]
    size = 1 + max((id for _, id in pairs), default=-1)
    if size > _MAX_TOKENS or any(id < 0 for _, id in pairs):
        raise ConfigError(f"tokenizer.json names token {size - 1}; that is past any vocabulary")
    pieces = [""] * size
    for piece, id in pairs:
        pieces[id] = piece
    return pieces


def _strip(source: dict[str, Any], control: set[str]) -> bool:
    """Take from `source` all that is not plain text → ids; returns whether it put a space before the first word."""
    source |= {"added_tokens": [], "truncation": None, "padding": None, "post_processor": None}
    model = source["model"]
    if isinstance(model["vocab"], list):
        # Unigram's ids are places in the list, so a control piece cannot leave; it is renamed to what no text reaches.
        model["vocab"] = [
            [f"{_HIDDEN}{n}", -1e9] if p in control else [p, s] for n, (p, s) in enumerate(model["vocab"])
        ]
        unreachable = {"type": "Replace", "pattern": {"String": _HIDDEN}, "content": "\ufffd"}
        steps = [unreachable, *_steps(source.get("normalizer"))]
        source["normalizer"] = {"type": "Sequence", "normalizers": steps}
    else:
        model["vocab"] = {piece: id for piece, id in model["vocab"].items() if piece not in control}
    if model["type"] == "BPE":
        vocab = model["vocab"]
        pairs = [merge.partition(" ")[::2] if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [[a, b] for a, b in pairs if a in vocab and b in vocab and a + b in vocab]
        if model.get("unk_token") not in vocab:
            model["unk_token"] = None
    return _drop_space_prefix(source)


def _drop_space_prefix(source: dict[str, Any]) -> bool:
    steps = list(_steps(source.get("normalizer")))
    prefixes = any(step["type"] == "Prepend" for step in steps)
    if prefixes:
        source["normalizer"] = {"type": "Sequence", "normalizers": [s for s in steps if s["type"] != "Prepend"]}
    cuts = list(_steps(source.get("pre_tokenizer")))
    for step in cuts:
        if step["type"] == "Metaspace":
            prefixes |= step.get("prepend_scheme", "always") != "never"
            step["prepend_scheme"] = "never"
        elif step["type"] == "ByteLevel":
            prefixes |= bool(step.get("add_prefix_space"))
            step["add_prefix_space"] = False
    source["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": cuts} if cuts else None
    return prefixes


def _frame(processor: Mapping[str, Any] | None, ids: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that the checkpoint puts before and after every input."""
    for step in _steps(processor):
        if step["type"] in ("BertProcessing", "RobertaProcessing"):
            return (step["cls"][1],), (step["sep"][1],)
        if step["type"] == "TemplateProcessing":
            names = [entry["SpecialToken"]["id"] if "SpecialToken" in entry else None for entry in step["single"]]
            middle = names.index(None) if None in names else len(names)
            before, after = names[:middle], names[middle + 1 :]
            return tuple(ids[name] for name in before if name), tuple(ids[name] for name in after if name)
    return (), ()


def _declared_ends(folder: Path, size: int) -> list[int]:
    """eos_token_id of generation_config.json and config.json, each a number or a list."""
    ends: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        ends += value if isinstance(value, list) else [value] if isinstance(value, int) else []
    return [id for id in ends if isinstance(id, int) and 0 <= id < size]


def _content(token: object) -> str | None:
    """A special token of tokenizer_config.json: its text, or an object that holds it."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None
