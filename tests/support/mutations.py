"""Files changed at random, for hypothesis: HF_ACCEL_MUTATIONS is the number of cases of each test, for example 10000."""

import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

COUNT = int(os.environ.get("HF_ACCEL_MUTATIONS", "25"))
cases = settings(
    max_examples=COUNT,
    derandomize="HF_ACCEL_MUTATIONS" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=10), values, max_size=4),
    max_leaves=10,
)


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes of a file after damage: bits, its end, a part, a value of its JSON, or all of it."""
    kind = draw(st.sampled_from(["bits", "bits", "cut", "insert", "zeros", "value", "other"]))
    place = draw(st.integers(0, len(content) - 1))
    if kind == "bits":
        damaged = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            damaged[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(damaged)
    if kind == "cut":
        return content[:place]
    if kind == "insert":
        return content[:place] + draw(st.binary(min_size=1, max_size=50)) + content[place:]
    if kind == "zeros":
        length = draw(st.integers(1, 5000))
        return content[:place] + bytes(min(length, len(content) - place)) + content[place + length :]
    if kind == "value" and content[:1] == b"{":
        values = json.loads(content)
        key = draw(st.sampled_from(sorted(values) or ["x"]))
        if key not in values or draw(st.booleans()):
            values[key] = draw(JSON)
        else:
            del values[key]
        return json.dumps(values).encode("utf-8", "surrogatepass")
    return draw(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
