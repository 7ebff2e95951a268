"""Finds models and checks that their files are what the card says, before anything runs."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lobule.errors import CardError, UnknownModelError, WeightsDigestError, WeightsNotFoundError
from lobule.models.card import Card, Graph, read_card
from lobule.models.external_data import has_external_data

__all__ = ["Model", "load_model", "select_models", "shipped_models"]

_ZOO = Path(__file__).resolve().parents[1] / "zoo"


@dataclass(frozen=True)
class Model:
    """A checked model: its card and the folder that holds its graphs."""

    folder: Path
    card: Card
    card_sha256: str

    @property
    def name(self) -> str:
        return self.card.name

    def file(self, graph: Graph, precision: str = "float32") -> Path:
        """Where the ONNX file lies that computes a graph in that precision."""
        file = graph.file_in(precision)[0]
        return _folder_of(self.folder, graph.of if file == graph.file else None) / file


def _folder_of(own: Path, borrowed: str | None) -> Path:
    return own if borrowed is None else _ZOO / borrowed


def _missing(path: Path) -> bool:
    """Whether no file lies there. Of one that cannot be looked at that is not known: who reads it learns why."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False


def load_model(folder: Path) -> Model:
    """Reads a model folder (``card.json`` and its ONNX files); checks every digest, and that it covers the weights.

    Raises UnknownModelError, CardError, WeightsNotFoundError, WeightsDigestError.
    """
    card_path = folder / "card.json"
    if _missing(card_path):
        raise UnknownModelError(
            str(folder), "no model here: a model is a folder with card.json and its .onnx files"
        )
    card = read_card(card_path)
    for file, sha256, what, borrowed in card.files():
        path = _folder_of(folder, borrowed) / file
        if _missing(path):
            raise WeightsNotFoundError(card.name, f"{path} is missing; the card names it as {what}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WeightsNotFoundError(
                card.name, f"{path} cannot be read: {error.strerror or error}; check who may read it"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise WeightsDigestError(
                card.name,
                f"{path} is not the file the card describes (sha256 {found[:12]}…, card {sha256[:12]}…): "
                "truncated, changed or of another version; copy the model folder again",
            )
        if has_external_data(content):
            raise CardError(
                card.name,
                f"{path} keeps weights in another file, which no digest covers; save it as one file: "
                f"onnx.save(onnx.load({path.name!r}), {path.name!r}), and its new sha256 in the card",
            )
    return Model(folder, card, hashlib.sha256(card_path.read_bytes()).hexdigest())


def shipped_models() -> dict[str, Path]:
    """The models that come with lobule: name → folder."""
    if not _ZOO.is_dir():
        return {}
    return {path.parent.name: path.parent for path in sorted(_ZOO.glob("*/card.json"))}


def _models_in(folder: Path) -> list[Path]:
    """The model folders in ``folder``, by name; none where it is no folder."""
    try:
        return sorted(inner for inner in folder.iterdir() if not _missing(inner / "card.json"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    except OSError as error:
        raise UnknownModelError(
            str(folder), f"the folder cannot be read: {error.strerror or error}; check who may read it"
        ) from error


def select_models(chosen: Iterable[str | Path] = (), *, thorough: bool = False) -> dict[str, Model]:
    """One model per family: the shipped ones, each replaced by a chosen one of its family.

    A shipped model that stands in for a larger one (``instead_of``) does so unless ``thorough``.
    ``chosen`` holds model folders, folders of model folders, or names of shipped models.
    """
    shipped = shipped_models()
    folders: list[Path] = []
    for item in chosen:
        path = Path(item)
        if str(item) in shipped:
            folders.append(shipped[str(item)])
        elif not _missing(path / "card.json"):
            folders.append(path)
        elif inside := _models_in(path):
            folders.extend(inside)
        else:
            raise UnknownModelError(
                str(item),
                "neither a model folder (card.json and .onnx files) nor a shipped model "
                f"({', '.join(shipped) or 'none'})",
            )
    models = [load_model(folder) for folder in folders]
    by_family: dict[str, Model] = {}
    for model in models:
        other = by_family.get(model.card.family)
        if other is not None and other.folder != model.folder:
            raise UnknownModelError(
                model.name,
                f"two models of the family {model.card.family} were given: {other.folder} and {model.folder}",
            )
        by_family[model.card.family] = model
    cards = {name: read_card(folder / "card.json") for name, folder in shipped.items()}
    replaced = {card.instead_of for card in cards.values() if card.instead_of is not None}
    for name, card in cards.items():
        left_out = card.instead_of is not None if thorough else name in replaced
        if card.family not in by_family and not left_out:
            by_family[card.family] = load_model(shipped[name])
    return by_family
