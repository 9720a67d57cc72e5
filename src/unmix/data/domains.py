"""The domain u of every row: one or several columns, categorical, nested or continuous, with kinds that are known.

A kind is declared ("categorical", "continuous", "within <column>") or follows from a printed rule: text, booleans
and whole numbers with at most 50 values are categorical; anything else must be declared, text too where it is more than
50 different numbers that are not whole. Nothing is guessed from a dtype alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmix.errors import DomainError, warn
from unmix.forms import LabelsLike
from unmix.labels import UNNAMED, label_text, labels_frame, natural_order
from unmix.numbers import counted, reads_as_number

MOST_LEVELS = 50
_WITHIN = "within "
_SHOWN = 8
_INTERACTIONS = 0.05


@dataclass(frozen=True)
class Column:
    """One auxiliary column: its levels (categorical), or its centre, scale and range (continuous).

    A nested column's levels are pairs "parent / level": the same word under two parents is two levels.
    """

    name: str
    kind: str
    levels: tuple[str, ...] = ()
    parent: str | None = None
    center: float = 0.0
    scale: float = 1.0
    low: float | None = None
    high: float | None = None

    @property
    def continuous(self) -> bool:
        return self.kind == "continuous"

    def describe(self) -> str:
        if self.continuous:
            return f"{self.name}: continuous, mean {self.center:.4g}, sd {self.scale:.4g}"
        within = f" within {self.parent}" if self.parent else ""
        shown = ", ".join(self.levels[:_SHOWN]) + (", …" if len(self.levels) > _SHOWN else "")
        return f"{self.name}: categorical{within}, {counted(len(self.levels), 'level')} ({shown})"


@dataclass(frozen=True)
class Encoded:
    """Rows of u as numbers: ``codes`` (n, categorical columns), ``values`` (n, continuous columns, standardised)."""

    codes: NDArray[np.int64]
    values: NDArray[np.float64]

    def take(self, index: NDArray[np.int64]) -> Encoded:
        return Encoded(self.codes[index], self.values[index])


@dataclass(frozen=True)
class DomainSchema:
    """All auxiliary columns in their order; ``domains`` are the combinations of levels seen at fit."""

    columns: tuple[Column, ...] = ()
    domains: tuple[str, ...] = ("all",)

    @classmethod
    def learn(
        cls, y: LabelsLike, n_rows: int, declared: Mapping[str, str] | None, min_rows: int
    ) -> tuple[DomainSchema, Encoded, NDArray[np.int64]]:
        """Columns of ``y`` (labels, a matrix or a table; None: one domain), checked against the rules above.

        With what ``encode`` and ``groups`` give for the same ``y``, which is read once.
        """
        frame = labels_frame(y, n_rows)
        declared = dict(declared or {})
        unknown = sorted(set(declared) - set(frame.columns))
        if unknown:
            raise DomainError(
                f"auxiliary declares {unknown}, but the domain columns are {list(frame.columns)}. Correct the names."
            )
        kinds = {name: _kind(name, frame[name], declared.get(name)) for name in frame.columns}
        columns = tuple(_learn_column(frame, name, kinds, min_rows) for name in frame.columns)
        schema = cls(columns)
        labels = schema._labels_of(frame)
        combinations = frame[[column.name for column in schema.categorical]].drop_duplicates()
        codes = [schema._codes(combinations, column).tolist() for column in schema.categorical]
        if len(set(zip(*codes, strict=True))) > len(set(labels)):
            raise _ambiguous()
        seen = tuple(dict.fromkeys(sorted(labels))) if schema.categorical else cls.domains
        schema = cls(columns, _in_level_order(seen, columns))
        return schema, schema._encoded(frame), schema._positions(labels)

    @property
    def categorical(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if not column.continuous)

    @property
    def one_column(self) -> bool:
        """Whether a label alone states a domain: the domains are one categorical column."""
        return len(self.columns) == len(self.categorical) == 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of levels of every categorical column."""
        return tuple(len(column.levels) for column in self.categorical)

    @property
    def n_continuous(self) -> int:
        return len(self.columns) - len(self.categorical)

    @property
    def interactions(self) -> float:
        """Standard deviation beforehand of what the columns do together beyond the sum of their effects; 0 of one.

        A network of continuous columns draws their curves as well, and is free to.
        """
        if self.n_continuous:
            return 1.0
        return _INTERACTIONS if len(self.columns) > 1 else 0.0

    @property
    def n_design(self) -> int:
        """Columns of the design matrix: one for each level and each continuous column."""
        return sum(self.sizes) + self.n_continuous

    def encode(self, y: LabelsLike, n_rows: int) -> Encoded:
        """Numbers for ``y``; a label that was not there at fit is an error."""
        if not self.columns:
            return Encoded(np.zeros((n_rows, 0), np.int64), np.zeros((n_rows, 0)))
        return self._encoded(self._checked_frame(y, n_rows))

    def groups(self, y: LabelsLike, n_rows: int) -> NDArray[np.int64]:
        """Index into ``domains`` for every row; -1 for a combination of known levels that was not there at fit."""
        if not self.categorical:
            return np.zeros(n_rows, np.int64)
        return self._positions(self._labels_of(self._checked_frame(y, n_rows)))

    def rows_of(self, target: Any, n_rows: int) -> pd.DataFrame:
        """One value of u for ``n_rows`` rows: a label, a mapping column → value, or a table with its own rows."""
        if not self.columns:
            raise DomainError(
                f"This model was fitted without domains, so it has no domain {target!r}. Leave the domain out."
            )
        if isinstance(target, Mapping):
            names = [column.name for column in self.columns]
            unknown = [name for name in target if name not in names]
            if unknown and len(names) > 1:
                raise DomainError(
                    f"There is no domain column {unknown[0]!r}; the model was fitted with {names}. Correct the name, "
                    "or leave it out."
                )
            target = pd.DataFrame({name: [value] * n_rows for name, value in target.items()})
        elif np.ndim(target) == 0:
            if len(self.columns) > 1:
                example = {column.name: (column.levels[0] if column.levels else 0.0) for column in self.columns}
                raise DomainError(
                    f"This model has {len(self.columns)} domain columns; pass a mapping such as {example}, "
                    f"not {target!r}."
                )
            target = pd.DataFrame({self.columns[0].name: [target] * n_rows})
        return self._checked_frame(target, n_rows)

    def extended(self, frame: pd.DataFrame) -> tuple[DomainSchema, NDArray[np.int64]]:
        """This schema with the levels, combinations and ranges of ``frame``, rows of new domains as ``rows_of`` gives.

        What is new comes last, so that every level and domain keeps its number. With it the places (n_design,) that the
        columns of the design matrix have in that of the new schema.

        Raises
        ------
        DomainError
            A row is of a domain that is known already, or of one that reads like another.

        Warns
        -----
        DataWarning
            A continuous column is outside its range.
        """
        columns = []
        for column in self.columns:
            if column.continuous:
                _standardised(frame, column)
                values = _numbers(frame, column.name)
                low, high = (values.min() if own is None else own for own in (column.low, column.high))
                columns.append(replace(column, low=float(min(low, values.min())), high=float(max(high, values.max()))))
            else:
                new = natural_order(set(_level_labels(frame, column.name, column.parent)) - set(column.levels))
                columns.append(replace(column, levels=(*column.levels, *new)))
        schema = DomainSchema(tuple(columns), self.domains)
        if self.categorical:
            schema = replace(schema, domains=(*self.domains, *self._new_domains(schema, frame)))
        places, begin = [], 0
        for old, own in zip(self.sizes, schema.sizes, strict=True):
            places.append(begin + np.arange(old))
            begin += own
        return schema, np.concatenate([*places, begin + np.arange(self.n_continuous)]).astype(np.int64)

    def _new_domains(self, schema: DomainSchema, frame: pd.DataFrame) -> tuple[str, ...]:
        """Domains of ``frame``, all of them new; with continuous columns known ones may reach beyond their range."""
        labels = schema._labels_of(frame)
        new = natural_order(set(labels) - set(self.domains))
        codes = [schema._codes(frame, column).tolist() for column in schema.categorical]
        has_level = np.any([np.array(own) >= old for own, old in zip(codes, self.sizes, strict=True)], axis=0)
        known = [label not in new for label in labels]
        if (has_level & known).any() or len(set(zip(*codes, strict=True))) > len(set(labels)):
            raise _ambiguous()
        if any(known) and not (self.n_continuous and all(known)):
            raise DomainError(
                f"{sum(known)} of {len(labels)} rows are of domains that the model knows, such as "
                f"{labels[known.index(True)]!r}. Pass only the rows of new domains."
            )
        return new

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> DomainSchema:
        columns = tuple(Column(**{**column, "levels": tuple(column["levels"])}) for column in raw["columns"])
        return cls(columns, tuple(raw["domains"]))

    def _checked_frame(self, y: LabelsLike, n_rows: int) -> pd.DataFrame:
        names = [column.name for column in self.columns]
        if y is None:
            raise DomainError(f"This model was fitted with domain columns {names}; pass them as y.")
        frame = labels_frame(y, n_rows)
        if len(names) == 1 and frame.shape[1] == 1:
            named = isinstance(y, Mapping) or nw.dependencies.is_into_dataframe(y)
            if named and names[0] not in (frame.columns[0], UNNAMED):
                raise DomainError(
                    f"The domain column is called {frame.columns[0]!r}; the model was fitted with {names[0]!r}. Rename "
                    "it, or pass the labels alone."
                )
            frame.columns = pd.Index(names)
        lacking = [name for name in names if name not in frame.columns]
        if lacking:
            raise DomainError(f"Domain columns {lacking} are missing; the model was fitted with {names}.")
        return frame[names]

    def _encoded(self, frame: pd.DataFrame) -> Encoded:
        codes = [self._codes(frame, column) for column in self.categorical]
        values = [_standardised(frame, column) for column in self.columns if column.continuous]
        return Encoded(
            np.stack(codes, axis=1) if codes else np.zeros((len(frame), 0), np.int64),
            np.stack(values, axis=1) if values else np.zeros((len(frame), 0)),
        )

    def _positions(self, labels: list[str]) -> NDArray[np.int64]:
        position = {label: index for index, label in enumerate(self.domains)}
        return np.array([position.get(label, -1) for label in labels], dtype=np.int64)

    def _codes(self, frame: pd.DataFrame, column: Column) -> NDArray[np.int64]:
        position = {level: index for index, level in enumerate(column.levels)}
        labels = _level_labels(frame, column.name, column.parent)
        unseen = sorted(set(labels) - set(position))
        if unseen:
            known = ", ".join(repr(level) for level in column.levels[:20])
            raise DomainError(
                f"Labels {unseen[:5]} of {column.name!r} were not seen at fit. Known: {known}. "
                "Use a known label. For rows of a new domain use adapt: model.adapt(rows, domain=...) learns its prior "
                "alone; a model without adapt is fitted again."
            )
        return np.array([position[label] for label in labels], dtype=np.int64)

    def _labels_of(self, frame: pd.DataFrame) -> list[str]:
        parents = {column.parent for column in self.categorical}
        shown = [column for column in self.categorical if column.name not in parents]
        parts = [_level_labels(frame, column.name, column.parent) for column in shown]
        return [" · ".join(row) for row in zip(*parts, strict=True)] if parts else ["all"] * len(frame)


def _ambiguous() -> DomainError:
    return DomainError(
        'Different combinations of domain labels have the same text, because labels contain " · " or " / ", which join '
        "them. Rename those labels."
    )


def _kind(name: str, series: pd.Series, declared: str | None) -> str:
    if declared is not None:
        if declared not in ("categorical", "continuous") and not declared.startswith(_WITHIN):
            raise DomainError(
                f'auxiliary[{name!r}] = {declared!r}; expected "categorical", "continuous" or "within <column>".'
            )
        return declared
    if pd.api.types.is_bool_dtype(series):
        return "categorical"
    values = pd.Series(series.unique())
    n_values = len(values)
    if not pd.api.types.is_numeric_dtype(series):
        if n_values <= MOST_LEVELS or not all(map(reads_as_number, values)):
            return "categorical"
        values = values.astype(float)
    whole = bool((values == np.round(values)).all())
    if whole and (n_values <= MOST_LEVELS or not pd.api.types.is_numeric_dtype(series)):
        return "categorical"
    raise DomainError(
        f"Domain column {name!r} holds {n_values} different numbers: labels or a quantity? Declare it: "
        f'auxiliary={{{name!r}: "continuous"}} or auxiliary={{{name!r}: "categorical"}}.'
    )


def _learn_column(frame: pd.DataFrame, name: str, kinds: Mapping[str, str], min_rows: int) -> Column:
    kind = kinds[name]
    if kind == "continuous":
        values = _numbers(frame, name)
        if values.std() == 0:
            raise DomainError(f"The continuous domain column {name!r} is constant. Leave it out.")
        center, scale, low, high = map(float, (values.mean(), values.std(), values.min(), values.max()))
        return Column(name, kind, center=center, scale=scale, low=low, high=high)
    parent = kind.removeprefix(_WITHIN) if kind.startswith(_WITHIN) else None
    if parent is not None and (kinds.get(parent) != "categorical"):
        raise DomainError(
            f"{name!r} is declared within {parent!r}, which is not a categorical domain column. "
            f"Pass {parent!r} as a domain column too."
        )
    labels = _level_labels(frame, name, parent)
    counts = pd.Series(labels).value_counts()
    small = counts[counts < min_rows]
    if len(small):
        shown = ", ".join(f"{level!r} ({count})" for level, count in small.iloc[:_SHOWN].items())
        shown += f" and {len(small) - _SHOWN} more" if len(small) > _SHOWN else ""
        quantity = f' A quantity is declared: auxiliary={{{name!r}: "continuous"}}.'
        mend = quantity if all(map(reads_as_number, labels)) else ""
        raise DomainError(
            f"Domains of {name!r} with fewer than {min_rows} rows: {shown}. Merge them with others, drop them, or "
            "lower min_domain_rows (command line: --min-domain-rows; their parameters then shrink toward the mean "
            f"domain).{mend}"
        )
    return Column(name, "categorical", natural_order(counts.index), parent)


def _level_labels(frame: pd.DataFrame, name: str, parent: str | None) -> list[str]:
    own = [label_text(value) for value in frame[name]]
    if parent is None:
        return own
    return [f"{label_text(above)} / {value}" for above, value in zip(frame[parent], own, strict=True)]


def _in_level_order(labels: Sequence[str], columns: Sequence[Column]) -> tuple[str, ...]:
    """Domains of a single column keep its levels' order."""
    categorical = [column for column in columns if not column.continuous]
    return categorical[0].levels if len(categorical) == 1 else tuple(labels)


def _standardised(frame: pd.DataFrame, column: Column) -> NDArray[np.float64]:
    """The column's numbers; a ``DataWarning`` where they lie further outside the range at fit than a tenth of it."""
    values = _numbers(frame, column.name)
    if column.low is not None and column.high is not None and len(values):
        room = 0.1 * (column.high - column.low)
        if values.min() < column.low - room or values.max() > column.high + room:
            warn(
                f"{column.name!r} was {column.low:.4g} to {column.high:.4g} at fit and is {values.min():.4g} to "
                f"{values.max():.4g} now: what follows is an extrapolation. Are the units the same?"
            )
    return (values - column.center) / column.scale


def _numbers(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    words = [(row, word) for row, word in enumerate(frame[name]) if isinstance(word, str) and not reads_as_number(word)]
    if words:
        row, word = words[0]
        raise DomainError(
            f"Domain column {name!r} is declared continuous but holds text: {word!r} in row {row}. Correct it."
        )
    values = frame[name].to_numpy(dtype=float)
    if not np.isfinite(values).all():
        raise DomainError(f"Domain column {name!r} holds infinite values. Correct or drop those rows.")
    return values
