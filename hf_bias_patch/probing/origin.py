"""Where the numbers in a tensor come from: the bias element, or the row of a weight, behind each of them.

A traced tensor has a shadow: an integer tensor of its shape with the code of the parameter element that each of
its entries owes its bias to. Whatever moves entries around moves their codes in the same way, so that at an
attention call the codes tell which elements of which parameters are the query's, the key's and the value's,
however fused, interleaved or grouped they are stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NOTHING", "Codes", "Elements"]

NOTHING = -1
"""The code of an entry that no parameter element stands behind."""


@dataclass(frozen=True)
class Elements:
    """Elements of one parameter.

    Attributes:
        parameter: its name.
        axis: 0 for the elements of a vector or the rows of a matrix, 1 for the columns of a matrix.
        indices: sorted indices along that axis.
    """

    parameter: str
    axis: int
    indices: tuple[int, ...]


class Codes:
    """Numbers for every element of every parameter, and for their rows and columns."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.names = list(parameters)
        self.shapes = [tuple(value.shape) for value in parameters.values()]
        self._starts = [0]
        for value in parameters.values():
            self._starts.append(self._starts[-1] + value.numel())
        self.count = self._starts[-1]

    def of_parameter(self, number: int) -> Tensor:
        """A code for each element of a parameter, in its shape."""
        return torch.arange(self._starts[number], self._starts[number + 1]).reshape(self.shapes[number])

    def start(self, number: int) -> int:
        """The code of a parameter's first element."""
        return self._starts[number]

    def number_of(self, code: int) -> int:
        """Which parameter an element's code belongs to."""
        return bisect_right(self._starts, code) - 1

    def of_outputs(self, weight: Tensor) -> Tensor:
        """Codes for the outputs of a map, from the codes (inputs, outputs) of its weight.

        They lie behind those of all elements, two ranges for rows (axis 0) and columns (axis 1). An output is a row
        or a column of the parameter, whichever index its elements share; else it is NOTHING.
        """
        first = weight[0] if weight.ndim == 2 else weight.reshape(-1, weight.shape[-1])[0]
        number = self.number_of(int(first.reshape(-1)[0])) if int(first.reshape(-1)[0]) >= 0 else -1
        nothing = torch.full((weight.shape[-1],), NOTHING)
        if number < 0 or int(weight.min()) < self._starts[number] or int(weight.max()) >= self._starts[number + 1]:
            return nothing
        shape = self.shapes[number]
        inner = max(1, int(torch.tensor(shape[1:]).prod())) if len(shape) > 1 else 1
        flat = weight.reshape(-1, weight.shape[-1]) - self._starts[number]
        rows, columns = flat // inner, flat % inner
        if bool((rows == rows[0]).all()):
            return self.count + self._starts[number] + rows[0]
        if bool((columns == columns[0]).all()):
            return 2 * self.count + self._starts[number] + columns[0]
        return nothing

    def is_row(self, codes: Tensor) -> bool:
        """Whether these are codes of rows or columns of weights: outputs that no bias was added to yet."""
        return bool((codes >= self.count).any())

    def parameters_in(self, codes: Tensor) -> set[int]:
        """Numbers of all parameters behind these codes."""
        return {self.number_of(code % self.count) for code in set(codes.flatten().tolist()) if code >= 0}

    def elements(self, codes: Tensor) -> tuple[Elements, ...]:
        """The parameter elements behind these codes, by parameter."""
        found: dict[tuple[str, int], list[int]] = {}
        for code in sorted(set(codes.flatten().tolist())):
            if code < 0:
                continue
            kind, element = divmod(code, self.count)
            number = self.number_of(element)
            axis = 1 if kind == 2 else 0
            found.setdefault((self.names[number], axis), []).append(element - self._starts[number])
        return tuple(Elements(name, axis, tuple(sorted(found[name, axis]))) for name, axis in sorted(found))
