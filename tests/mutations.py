"""A Hypothesis strategy: documents that are one mistake away from a good one."""

from __future__ import annotations

from hypothesis import strategies as st

MARKUP = [b"<", b">", b"</", b"/>", b"&", b"]]>", b"<!--", b"'", b'"', b"xmlns='"]


def mutations(seed: bytes) -> st.SearchStrategy[bytes]:
    """Return documents that differ from `seed` in one place: cut, replaced, inserted into, or repeated."""
    place = st.integers(0, len(seed))
    filler = st.binary(max_size=8) | st.sampled_from(MARKUP)
    return st.builds(lambda a, b, new: seed[: min(a, b)] + new + seed[max(a, b) :], place, place, filler) | st.builds(
        lambda a, b: seed[:a] + seed[b:], place, place
    )
