"""One model: where its weights lie, what it computes, how it reads and writes text."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from dql.errors import ConfigError
from dql.models.chat_template import ChatTemplate
from dql.models.checkpoint import PICKLE_HINT, PICKLES, weight_files
from dql.models.digest import file_digest, files_digest
from dql.models.fit import check_fit, misfit
from dql.models.gguf import GgufFile, read_gguf
from dql.models.shape import ModelShape
from dql.models.tokenizer import Tokenizer
from dql.models.vocabulary_gguf import gguf_vocabulary
from dql.models.vocabulary_json import json_vocabulary, read_json

Format = Literal["gguf", "safetensors", "config"]


@dataclass(frozen=True)
class Model:
    """A model whose files are on this machine and whose headers have been checked; no weight has been read.

    name: as queries and plans print it. uri: where it came from. path: a GGUF file, a folder of safetensors whose
    weight files are `files`, or a config.json alone, whose weights are not at hand. license: the terms it is under, as
    its files or its source name them.
    """

    name: str
    uri: str
    path: Path
    format: Format
    shape: ModelShape
    files: tuple[Path, ...]
    license: str | None = None
    template: str | None = None  # a chat template that replaces the model's own
    gguf: GgufFile | None = field(default=None, compare=False, repr=False)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Built on first use. Raises ConfigError, also where it is another model's, or UnsupportedError."""
        if self.gguf is not None:
            vocabulary = gguf_vocabulary(self.gguf.metadata)
        else:
            vocabulary = json_vocabulary(self.path.parent if self.format == "config" else self.path)
        tokenizer = Tokenizer(vocabulary)
        try:
            check_fit(tokenizer, self.shape.vocab_size)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error.message}", hint=error.hint) from error
        return tokenizer

    @property
    def notice(self) -> str | None:
        """What is to be told to whoever opens the model."""
        return misfit(self.name, self.tokenizer, self.shape.vocab_size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of what the model computes: its weights, and for folders the config that shapes them."""
        if self.format == "gguf":
            return file_digest(self.path)
        return files_digest([*self.files, self.path if self.format == "config" else self.path / "config.json"])

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """How a conversation is written for this model; None for a base model."""
        vocabulary = self.tokenizer.vocabulary
        source = self.template or vocabulary.chat_template
        return None if source is None else ChatTemplate(source, tuple(sorted(vocabulary.token_texts.items())))

    @property
    def is_base(self) -> bool:
        """Whether the model only continues text and follows no chat format."""
        return self.chat_template is None

    @property
    def is_encoder(self) -> bool:
        """Whether the model embeds text and cannot generate or score it."""
        return not self.shape.causal

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight files on disk."""
        return sum(file.stat().st_size for file in self.files)


def open_model(
    path: Path,
    *,
    name: str,
    uri: str,
    root: Path | None = None,
    license: str | None = None,
    context_length: int | None = None,
    template: str | None = None,
) -> Model:
    """Read the headers of a GGUF file or safetensors folder, or a config.json alone, whose weights are not at hand.

    root: the folder that links inside a safetensors folder may not leave (itself by default). context_length lowers
    the trained context. Raises ConfigError or UnsupportedError naming the file.
    """
    if path.suffix in PICKLES:
        raise ConfigError(f"{path}: pickle weights are not supported", hint=PICKLE_HINT)
    if path.is_dir():
        model = _open_folder(path, name, uri, root)
    elif path.suffix == ".json":
        shape = ModelShape.from_hf_config(read_json(path, required=True))
        model = Model(name=name, uri=uri, path=path, format="config", shape=shape, files=())
    elif path.suffix == ".safetensors":
        raise ConfigError(f"{path}: name the folder, which also holds config.json and tokenizer.json")
    else:
        model = _open_gguf(path, name, uri)
    if context_length is not None:
        trained = model.shape.context_length
        if not 0 < context_length <= trained:
            raise ConfigError(f"context_length {context_length} is not between 1 and the trained {trained}")
        model = replace(model, shape=replace(model.shape, context_length=context_length))
    return replace(model, license=license or model.license, template=template)


def _open_gguf(path: Path, name: str, uri: str) -> Model:
    file = read_gguf(path)
    license = file.metadata.get("general.license")
    return Model(
        name=name,
        uri=uri,
        path=path,
        format="gguf",
        shape=ModelShape.from_gguf(file.metadata, file.tensors),
        files=(path,),
        license=license if isinstance(license, str) else None,
        gguf=file,
    )


def _open_folder(path: Path, name: str, uri: str, root: Path | None) -> Model:
    if not (path / "config.json").is_file():
        hint = "a model's folder holds config.json, tokenizer.json and *.safetensors; for a GGUF file name the file"
        raise ConfigError(f"{path} is no model's folder: it has no config.json", hint=hint)
    config = read_json(path / "config.json", required=True)
    files = weight_files(path, root)
    shape = ModelShape.from_hf_config(config)
    return Model(name=name, uri=uri, path=path, format="safetensors", shape=shape, files=files)
