"""What a user downloaded for a task: lists, tables and folders; what is missing or damaged is refused."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from curate.errors import DataError, MissingError
from curate.io.image_headers import EXTENSIONS
from train.transfer.splits import Files, Split
from train.transfer.tasks.readers.labeled_files import LabeledFile, Sizes, size_notes
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo


class Line(NamedTuple):
    """A line of a list: "/data/dtd/labels/train1.txt, line 3", and its words."""

    where: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Download:
    """The folder that holds a task's data.

    Args:
        info: of the task; its `get` is the hint of every error.
        root: what files are relative to.
    """

    info: TaskInfo
    root: Path

    def damaged(self, where: object, what: str) -> NoReturn:
        """Raise a DataError that says what is wrong, and where."""
        raise DataError(f"{where}: {what}", hint=f"task {self.info.name}: {self.info.get}")

    def text(self, file: str) -> str:
        """Return the text of a file.

        Raises:
            MissingError: it is not there.
            DataError: it is no UTF-8, or cannot be read.
        """
        path = self.root / file
        try:
            return path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            hint = f"task {self.info.name}: {self.info.get}"
            raise MissingError(f"{path}: there is no such file", hint=hint) from None
        except (OSError, UnicodeDecodeError) as error:
            self.damaged(path, f"cannot be read ({error})")

    def lines(self, file: str, words: int) -> list[Line]:
        """Return the lines of a list, each of so many words; empty ones are passed over.

        Raises:
            MissingError: there is no such list.
            DataError: a line has more words or fewer.
        """
        found = []
        for number, text in enumerate(self.text(file).splitlines(), 1):
            line = Line(f"{self.root / file}, line {number}", tuple(text.split()))
            if line.words and len(line.words) != words:
                self.damaged(line.where, f"{text!r} has {len(line.words)} words where {words} are expected")
            if line.words:
                found.append(line)
        return found

    def table(self, file: str, columns: Sequence[str]) -> list[Line]:
        """Return the rows of a CSV file that has exactly these columns.

        Raises:
            MissingError: there is no such file.
            DataError: it has other columns, or a row has more or fewer.
        """
        path, found = self.root / file, []
        reader = csv.reader(io.StringIO(self.text(file)), strict=True)
        try:
            for words in reader:
                line = Line(f"{path}, line {reader.line_num}", tuple(words))
                if reader.line_num == 1 and words != list(columns):
                    self.damaged(line.where, f"the columns are {words}, and not {list(columns)}")
                if words and len(words) != len(columns):
                    self.damaged(line.where, f"{len(words)} values for {len(columns)} columns")
                if words:
                    found.append(line)
        except csv.Error as error:
            self.damaged(f"{path}, line {reader.line_num}", str(error))
        if not found:
            self.damaged(path, "is empty")
        return found[1:]

    def json(self, file: str) -> Any:
        """Return the content of a JSON file.

        Raises:
            MissingError: it is not there.
            DataError: it is no JSON.
        """
        try:
            return json.loads(self.text(file))
        except (ValueError, RecursionError) as error:
            self.damaged(self.root / file, f"is no JSON ({error})")

    def class_folders(self, top: str = "") -> tuple[dict[str, list[str]], list[str]]:
        """Return the names of the images in each folder below `top`, folders and names sorted, and notes.

        Raises:
            DataError: there are no folders.
        """
        place, others = self.root / top, 0
        found: dict[str, list[str]] = {}
        for name in sorted(name for name in self._names(place) if (place / name).is_dir()):
            files = self._names(place / name)
            found[name] = sorted(f for f in files if f.rpartition(".")[2].lower() in EXTENSIONS)
            others += len(files) - len(found[name])
        if not found:
            self.damaged(place, "holds no folder, and should hold one for each class")
        return found, [f"{others:,} files left out: no image by their extension"] if others else []

    def _names(self, folder: Path) -> list[str]:
        try:
            return [name for name in os.listdir(folder) if not name.startswith(".")]
        except OSError as error:
            self.damaged(folder, f"cannot be read ({error.strerror})")

    def task(
        self,
        names: Mapping[str, str],
        train: Sequence[LabeledFile],
        test: Sequence[LabeledFile],
        *,
        templates: Sequence[str],
        name: str | None = None,
        notes: Iterable[str] = (),
        partition: int | None = None,
        sizes: Sizes | None = None,
        published: Sizes | None = None,
    ) -> Task:
        """Return the task of some files.

        Args:
            names: in label order, a class as the source calls it, and its name for people.
            name: of the task; the info's where none is given.
            notes: what was left out.
            partition: which of the official ones.
            sizes: what was found before any of it was left out; classes and rows where none are given.
            published: what to compare that with; the info's where none are given.

        Raises:
            MissingError: images are not there.
            DataError: a class has no image on one side.
        """
        found = sizes or (len(names), len(train), len(test))
        return Task(
            name or self.info.name,
            tuple(names.values()),
            self.split(train, list(names)),
            self.split(test, list(names)),
            metric=self.info.metric,
            notes=(*size_notes(published or self.info.sizes, found), *notes),
            partition=None if partition is None else str(partition),
            templates=tuple(templates),
        )

    def split(self, rows: Sequence[LabeledFile], classes: Sequence[str]) -> Split:
        """Return files as a split, labelled by the position of their class.

        Raises:
            MissingError: images are not there.
            DataError: a file is outside the root.
        """
        self._require([one.file for one in rows])
        label = {name: position for position, name in enumerate(classes)}
        ranges = [(one.file, None, None) for one in rows]
        labels = tuple(label[one.class_id] for one in rows)
        return Split(tuple(one.key for one in rows), labels, Files(str(self.root), ranges))

    def _require(self, files: Iterable[str]) -> None:
        """Refuse images that are not there; a folder is read once, not once an image."""
        there: dict[str, set[str]] = {}
        absent, count = [], 0
        for count, file in enumerate(files, 1):  # noqa: B007
            folder, _, name = file.rpartition("/")
            if folder not in there:
                if {"", ".", ".."} & set(folder.split("/")) and folder:
                    self.damaged(self.root, f"the image {file!r} that a list names is outside of it")
                place = self.root / folder
                there[folder] = set(self._names(place)) if place.is_dir() else set()
            if name not in there[folder]:
                absent.append(file)
        if absent:
            raise MissingError(
                f"{self.root}: {len(absent):,} of {count:,} images are not there, such as {absent[0]}",
                hint=f"task {self.info.name}: {self.info.get}",
            )

    def numbered(self, entries: Iterable[tuple[str, str, str]]) -> list[str]:
        """Return the classes in the order of the numbers that lists give them.

        Args:
            entries: for each line where it is, its class, and the number it gives.

        Raises:
            DataError: a number is none, or a class and a number do not belong together on every line.
        """
        named: dict[int, str] = {}
        number_of: dict[str, int] = {}
        for where, name, text in entries:
            if not text.isdecimal():
                self.damaged(where, f"label {text!r} is no number")
            number = int(text)
            if named.setdefault(number, name) != name:
                self.damaged(where, f"label {number} for {name!r}, which is {named[number]!r} elsewhere")
            if number_of.setdefault(name, number) != number:
                self.damaged(where, f"label {number} for {name!r}, which has {number_of[name]} elsewhere")
        return [named[number] for number in sorted(named)]

    def once(self, side: str, rows: Iterable[LabeledFile]) -> tuple[list[LabeledFile], list[str]]:
        """Return each row once, in order, and a note of those that came again.

        Raises:
            DataError: an image is of two classes.
        """
        by_key: dict[str, LabeledFile] = {}
        again = 0
        for file in rows:
            first = by_key.setdefault(file.key, file)
            again += first is not file
            if first.class_id != file.class_id:
                self.damaged(
                    self.root, f"the image {file.file} is of {first.class_id!r} and of {file.class_id!r}"
                )
        notes = [f"{side}: {again:,} lines left out, which repeat an image"] if again else []
        return list(by_key.values()), notes
