"""Run lengths and outlines: equal to pycocotools, and safe where its compiled decoder is not."""

import contextlib
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as peer

from eyesmith.data.annotations.masks import (
    Polygons,
    Runs,
    Segment,
    decode_shape,
    encoded,
    mask_box,
    mask_to_runs,
    segment_boxes,
)
from eyesmith.errors import DataError


@st.composite
def any_mask(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    seed, share = draw(st.integers(0, 2**31)), draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
    return np.random.default_rng(seed).random((height, width)) < share


def peer_decode(written: dict) -> np.ndarray:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of numpy 2, in pycocotools
        return peer.decode(written).astype(bool)  # pyright: ignore


@settings(max_examples=60, deadline=None)
@given(any_mask())
def test_run_lengths_equal_the_peers_both_ways(mask: np.ndarray) -> None:
    height, width = mask.shape
    written = peer.encode(np.asfortranarray(mask, np.uint8))
    runs = mask_to_runs(mask)
    assert runs.counts == written["counts"]
    np.testing.assert_array_equal(decode_shape(runs, height, width), mask)
    lengths = []
    flat, value, place = mask.T.ravel(), False, 0
    while place < len(flat):  # slow and plain: count equal pixels
        end = place
        while end < len(flat) and flat[end] == value:
            end += 1
        lengths.append(end - place)
        place, value = end, not value
    plain = Runs(height, width, tuple(lengths))
    np.testing.assert_array_equal(decode_shape(plain, height, width), mask)
    assert encoded(plain, height, width)["counts"] == written["counts"]
    assert encoded(Segment(mask.astype(np.int32) * 7, 7), height, width)["counts"] == written["counts"]
    if mask.any():
        assert list(mask_box(mask)) == peer.toBbox(written).tolist()
    else:
        assert mask_box(mask) == (0, 0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-10, 60), min_size=6, max_size=12).filter(lambda one: len(one) % 2 == 0),
        max_size=3,
        min_size=1,
    )
)
def test_outlines_equal_the_peers(parts: list[list[float]]) -> None:
    found = decode_shape(Polygons(tuple(np.array(part) for part in parts)), 40, 50)
    np.testing.assert_array_equal(found, peer_decode(peer.merge(peer.frPyObjects(parts, 40, 50))))


@settings(max_examples=60, deadline=None)
@given(any_mask(), st.data())
def test_a_damaged_string_never_reaches_the_compiled_decoder(mask: np.ndarray, data: st.DataObject) -> None:
    counts = mask_to_runs(mask).counts
    assert isinstance(counts, bytes)
    cut = counts[: data.draw(st.integers(0, len(counts) - 1))]
    with pytest.raises(DataError, match="run lengths"):
        decode_shape(Runs(*mask.shape, cut), *mask.shape)
    place = data.draw(st.integers(0, len(counts) - 1))
    other = counts[:place] + bytes([data.draw(st.integers(0, 255))]) + counts[place + 1 :]
    with contextlib.suppress(DataError):
        assert decode_shape(Runs(*mask.shape, other), *mask.shape).shape == mask.shape


@settings(max_examples=40, deadline=None)
@given(any_mask(), st.integers(0, 2**31))
def test_boxes_of_a_map_in_one_pass(mask: np.ndarray, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, mask.shape) * 100 * mask
    boxes, areas = segment_boxes(values, [300, 0, 100, 5])
    for value, box, area in zip([300, 0, 100, 5], boxes, areas, strict=True):
        assert tuple(box) == mask_box(values == value)
        assert area == (values == value).sum()


def test_an_outline_far_away_is_refused() -> None:
    with pytest.raises(DataError, match="an outline reaches 1e.12 pixels, in a picture of 50 x 40"):
        decode_shape(Polygons((np.array([0, 0, 1e12, 5, 3, 3]),)), 40, 50)
