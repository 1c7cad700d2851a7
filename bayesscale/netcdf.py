"""Writing a netCDF-4 file of groups in one pass with h5py: the layout xarray reads, at a tenth of the cost of its writer.

Every dimension is an HDF5 dimension scale in its group, and every variable is attached to those of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Variables = Mapping[str, tuple[Sequence[str], NDArray]]
"""Dimension names and values by variable."""


def write_groups(path: Path, groups: Mapping[str, Variables], attributes: Mapping[str, str]) -> None:
    """Write variables by group; each dimension counts from 0."""
    import h5py

    with h5py.File(path, "w", libver=("earliest", "v108"), track_order=True) as file:  # v108: attributes above 64 KiB
        for name, text in attributes.items():
            file.attrs[name] = text
        for name, variables in groups.items():
            write_group(file.create_group(name, track_order=True), variables)


def write_group(group: Any, variables: Variables) -> None:
    """Write one group: a coordinate per dimension, then the variables."""
    sizes: dict[str, int] = {}
    for dims, values in variables.values():
        sizes |= dict(zip(dims, np.shape(values), strict=True))
    scales = {}
    for number, (dim, size) in enumerate(sizes.items()):
        scale = group.create_dataset(dim, data=np.arange(size))
        scale.make_scale(dim)
        scale.attrs["_Netcdf4Dimid"] = np.int32(number)
        scales[dim] = scale
    attach(group, variables, scales)


def attach(group: Any, variables: Variables, scales: Mapping[str, Any]) -> None:
    """Write variables and attach them to their dimensions, all at once instead of one by one."""
    import h5py

    reference = h5py.special_dtype(ref=h5py.Reference)
    listed = h5py.special_dtype(vlen=reference)
    users: dict[str, list[tuple[Any, int]]] = {dim: [] for dim in scales}
    for name, (dims, values) in variables.items():
        values = np.asarray(values)
        stored = values.astype(np.int8) if values.dtype == bool else values
        dataset = group.create_dataset(name, data=stored)
        if values.dtype == bool:
            dataset.attrs["dtype"] = "bool"
        entries = np.empty(len(dims), dtype=object)
        for axis, dim in enumerate(dims):
            entries[axis] = np.array([scales[dim].ref], dtype=reference)
            users[dim].append((dataset.ref, axis))
        if len(dims):
            dataset.attrs.create("DIMENSION_LIST", entries, dtype=listed)
    back = np.dtype([("dataset", reference), ("dimension", np.int32)])
    for dim, entries in users.items():
        if entries:
            scales[dim].attrs.create("REFERENCE_LIST", np.array(entries, dtype=back), dtype=back)
