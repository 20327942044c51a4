from sidecar.state.expiring import Expiring


def make() -> Expiring[str, tuple[float, str]]:
    return Expiring(lambda value: value[0])


def queue_of(mapping: Expiring[str, tuple[float, str]]) -> int:
    return len(mapping._queue)


def test_an_entry_is_given_until_its_time() -> None:
    mapping = make()
    mapping.put("a", (10.0, "x"))
    assert mapping.get("a", 9.9) == (10.0, "x")
    assert mapping.get("a", 10) is None
    assert mapping.get("b", 0) is None


def test_what_is_over_is_dropped_in_order_and_the_rest_is_not_looked_at() -> None:
    mapping = make()
    for key, ends in (("c", 30.0), ("a", 10.0), ("b", 20.0)):
        mapping.put(key, (ends, key))
    assert mapping.drop(9) == []
    assert [name for _, name in mapping.drop(20)] == ["a", "b"]
    assert [name for _, name in mapping] == ["c"]
    assert queue_of(mapping) == len(mapping) == 1


def test_an_entry_that_was_replaced_lasts_as_long_as_the_new_one() -> None:
    mapping = make()
    mapping.put("a", (10.0, "old"))
    mapping.put("a", (20.0, "new"))
    assert mapping.drop(10) == []
    assert mapping.drop(20) == [(20.0, "new")]


def test_an_entry_that_was_taken_out_is_not_dropped_again() -> None:
    mapping = make()
    mapping.put("a", (10.0, "x"))
    assert mapping.pop("a") == (10.0, "x")
    assert mapping.drop(10) == []


def test_replacing_and_taking_out_again_and_again_takes_no_memory() -> None:
    mapping = make()
    mapping.put("stays", (1e9, "x"))
    for number in range(1000):
        mapping.put("a", (1e6 + number, "x"))
        mapping.put("a", (2e6 + number, "x"))
        mapping.pop("a")
    assert queue_of(mapping) < 100
    assert [name for _, name in mapping.drop(1e9)] == ["x"]
