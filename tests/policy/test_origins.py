import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.origins import Origin, OriginPattern, OriginRule, parse_authority

APP = OriginRule(allow=(OriginPattern.parse("https://app.com"),))
SUBDOMAINS = OriginRule(allow=(OriginPattern.parse("https://*.example.org"),))
SAME_HOST = OriginRule()

NOT_ORIGINS = [
    "",
    "null",
    "NULL",
    "*",
    "https",
    "https:",
    "https://",
    "https:///",
    "https:app.com",
    "//app.com",
    "app.com",
    "https://app.com/",
    "https://app.com/path",
    "https://app.com?query",
    "https://app.com#fragment",
    "https://app.com\\@evil.com",
    "https://a@app.com",
    "https://a:b@app.com",
    "https://@app.com",
    "https://app.com.",
    "https://app..com",
    "https://.app.com",
    "https://-app.com",
    "https://app-.com",
    "https://*.app.com",
    "https://app.com https://app.com",
    "https://app.com, https://app.com",
    " https://app.com",
    "https://app.com ",
    "https://app.com\n",
    "https://app.com\x00",
    "https://аpp.com",  # a Cyrillic а
    "http\u017f://app.com",  # lower() of a long s is no ASCII s
    "https://app.com\uff0eevil.com",
    "https://%61pp.com",
    "https://app.com:",
    "https://app.com:0",
    "https://app.com:0443",
    "https://app.com:65536",
    "https://app.com:99999",
    "https://app.com:443443",
    "https://app.com:+443",
    "https://app.com:٤٤٣",
    "https://app.com:443:443",
    "ftp://app.com",
    "ws://app.com",
    "wss://app.com",
    "file://",
    "chrome-extension://abcdef",
    "https://1.2.3.256",
    "https://1.2.3",
    "https://1.2.3.04",
    "https://[::1",
    "https://::1",
    "https://[]",
    "https://[::1]evil.com",
    "https://[::g]",
    "https://[::1%25eth0]",
    "https://[1.2.3.4]",
    f"https://{'a' * 64}.com",
    f"https://{'a.' * 127}com",
]


@pytest.mark.parametrize("text", NOT_ORIGINS)
def test_what_is_not_an_origin_does_not_parse(text: str) -> None:
    assert Origin.parse(text) is None


@pytest.mark.parametrize("text", NOT_ORIGINS)
def test_what_is_not_an_origin_is_refused_even_where_every_origin_passes(text: str) -> None:
    anything = OriginRule(allow=(OriginPattern.parse("*"),))
    assert not anything.permits(text, "app.com", secure=False)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.com", Origin("https", "app.com", 443)),
        ("https://app.com:443", Origin("https", "app.com", 443)),
        ("http://app.com", Origin("http", "app.com", 80)),
        ("http://app.com:443", Origin("http", "app.com", 443)),
        ("HTTPS://App.COM:8443", Origin("https", "app.com", 8443)),
        ("https://app.com:65535", Origin("https", "app.com", 65535)),
        ("http://localhost:3000", Origin("http", "localhost", 3000)),
        ("http://127.0.0.1", Origin("http", "127.0.0.1", 80)),
        ("http://[::1]:3000", Origin("http", "[::1]", 3000)),
        ("https://[2001:DB8:0:0::1]", Origin("https", "[2001:db8::1]", 443)),
        ("https://xn--80ak6aa92e.com", Origin("https", "xn--80ak6aa92e.com", 443)),
        ("http://my_app:80", Origin("http", "my_app", 80)),
    ],
)
def test_an_origin_is_scheme_host_and_effective_port(text: str, origin: Origin) -> None:
    assert Origin.parse(text) == origin


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("HTTPS://App.com:443", "https://app.com"),
        ("http://app.com:443", "http://app.com:443"),
        ("http://[0::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(text: str, written: str) -> None:
    assert str(Origin.parse(text)) == written


@pytest.mark.parametrize("origin", ["https://app.com", "HTTPS://APP.COM", "https://app.com:443"])
def test_the_allowed_origin_passes(origin: str) -> None:
    assert APP.permits(origin, "elsewhere.com", secure=False)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.com.evil",
        "https://evilapp.com",
        "https://app.com:444",
        "https://a@app.com",
        "http://app.com",
        "null",
        "https://аpp.com",
        "https://app.com.",
        "https://app.com/",
        "https://sub.app.com",
        "https://com",
        "http://app.com:443",
    ],
)
def test_a_look_alike_origin_is_refused(origin: str) -> None:
    assert not APP.permits(origin, "app.com", secure=False)


@pytest.mark.parametrize("origin", ["https://a.example.org", "https://a.b.EXAMPLE.org:443"])
def test_a_subdomain_passes(origin: str) -> None:
    assert SUBDOMAINS.permits(origin, "", secure=False)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.org",
        "https://.example.org",
        "https://evilexample.org",
        "https://a.example.org.evil.com",
        "https://a.example.org:8443",
        "http://a.example.org",
        "https://evil.com/.example.org",
        "https://evil.com#.example.org",
    ],
)
def test_what_only_looks_like_a_subdomain_is_refused(origin: str) -> None:
    assert not SUBDOMAINS.permits(origin, "", secure=False)


def test_any_of_several_patterns_is_enough() -> None:
    sources = ("https://app.com", "https://*.example.org")
    rule = OriginRule(allow=tuple(map(OriginPattern.parse, sources)))
    assert rule.permits("https://app.com", "", secure=False)
    assert rule.permits("https://a.example.org", "", secure=False)
    assert not rule.permits("https://a.app.com", "", secure=False)


def test_an_empty_list_lets_no_origin_pass() -> None:
    assert not OriginRule(allow=()).permits("https://app.com", "app.com", secure=False)


def test_a_star_lets_every_well_formed_origin_pass() -> None:
    anything = OriginRule(allow=(OriginPattern.parse("*"),))
    assert anything.permits("http://anywhere.test:81", "app.com", secure=False)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://app.com", "app.com"),
        ("https://app.com", "app.com:443"),
        ("https://app.com:443", "app.com"),
        ("http://app.com", "app.com"),
        ("https://app.com:8443", "app.com:8443"),
        ("http://[::1]:3000", "[0:0::1]:3000"),
    ],
)
def test_without_a_list_the_same_host_passes(origin: str, host: str) -> None:
    assert SAME_HOST.permits(origin, host, secure=False)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://app.com", "app.com:8443"),
        ("https://app.com:8443", "app.com"),
        ("http://app.com", "app.com:443"),
        ("https://evil.com", "app.com"),
        ("https://app.com.evil.com", "app.com"),
        ("https://app.com", ""),
        ("https://app.com", "user@app.com"),
        ("https://app.com", "app.com:x"),
        ("null", "null"),
    ],
)
def test_without_a_list_another_host_is_refused(origin: str, host: str) -> None:
    assert not SAME_HOST.permits(origin, host, secure=False)


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("https://App.example.com", "https://app.example.com"),
        ("HTTP://localhost:3000", "http://localhost:3000"),
        ("http://[::1]", "http://[::1]"),
    ],
)
def test_a_pattern_has_the_grammar_of_an_origin(source: str, written: str) -> None:
    pattern = OriginPattern.parse(source)
    assert f"{Origin(pattern.scheme, pattern.host, pattern.port)}" == written
    assert pattern.source == source
    assert not pattern.subdomains


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        ("", "has a scheme and a host; write it as https://"),
        ("null", "has a scheme and a host; write it as https://"),
        ("app.example.com", "has a scheme and a host; write it as https://"),
        ("https://", "has a scheme and a host"),
        ("https://*.", "has a scheme and a host"),
        ("wss://app.com", "not that of a web page; write https://"),
        ("*://app.com", "not that of a web page"),
        ("https://аpp.com", "not ASCII; write it in Punycode"),
        ("https://a@app.com", 'no user; leave out what stands before "@"'),
        ("https://app.com/", "no path; write https://app.com$"),
        ("https://app.com/path", "no path; write https://app.com$"),
        ("https://*.app.com?x", "no path; write https://app.com$"),
        ("https://app.com#x", "no path; write https://app.com$"),
        ("https://*", r'"\*" stands for whole labels in front; write'),
        ("https://a*.app.com", r'"\*" stands for whole labels in front; write'),
        ("https://app.*", r'"\*" stands for whole labels in front; write'),
        ("https://*.*.app.com", r'"\*" stands for whole labels in front; write'),
        ("https://app.com:*", r'"\*" stands for whole labels in front; write'),
        ("https://app.com.", "host or the port is not valid; write"),
        ("https://app.com:0", "host or the port is not valid; write"),
        ("https://*.[::1]", "an address has no subdomains"),
        ("https://*.127.0.0.1", "an address has no subdomains"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_remedy(source: str, mistake: str) -> None:
    with pytest.raises(ValueError, match=mistake):
        OriginPattern.parse(source)


def test_a_name_that_ends_with_a_digit_is_no_address() -> None:
    pattern = OriginPattern.parse("https://*.app1")
    assert pattern.matches(Origin("https", "a.app1", 443))


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("App.com", ("app.com", None)),
        ("app.com:8080", ("app.com", 8080)),
        ("[::0001]:1", ("[::1]", 1)),
        ("a@app.com", None),
        ("", None),
        ("\u212a.com", None),  # lower() of the Kelvin sign is an ASCII k
    ],
)
def test_an_authority_is_a_host_and_perhaps_a_port(
    text: str, authority: tuple[str, int | None] | None
) -> None:
    assert parse_authority(text) == authority


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOST = st.one_of(
    st.lists(LABEL, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address.compressed}]"),
)
ORIGINS = st.builds(Origin, st.sampled_from(["http", "https"]), HOST, st.integers(1, 65535))


@given(st.one_of(st.text(), st.text(alphabet="htps:/.@[]*a1-"), st.text().map("https://".__add__)))
def test_any_text_parses_or_gives_none(text: str) -> None:
    origin = Origin.parse(text)
    assert origin is None or Origin.parse(str(origin)) == origin


@given(ORIGINS)
def test_a_written_origin_parses_as_itself(origin: Origin) -> None:
    assert Origin.parse(str(origin)) == origin


@given(ORIGINS)
def test_a_written_origin_is_a_pattern_for_itself_alone(origin: Origin) -> None:
    pattern = OriginPattern.parse(str(origin))
    assert pattern.matches(origin)
    assert not pattern.matches(Origin(origin.scheme, f"a.{origin.host}", origin.port))


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_text_added_to_an_allowed_origin_never_passes(before: str, middle: str, after: str) -> None:
    looks_alike = f"{before}https://{middle}app.com{after}"
    same = Origin.parse(looks_alike) == Origin("https", "app.com", 443)
    assert same == (looks_alike in {"https://app.com", "https://app.com:443"})
    assert APP.permits(looks_alike, "app.com", secure=False) == same


@given(st.one_of(st.text(), st.text().map("https://".__add__)))
def test_any_pattern_parses_or_is_refused_with_a_remedy(source: str) -> None:
    mistake = None
    try:
        OriginPattern.parse(source)
    except ValueError as error:
        mistake = str(error)
    assert "; " in mistake if mistake else source == "*" or "://" in source


def test_a_page_that_came_in_clear_is_not_the_same_host_over_tls() -> None:
    rule = OriginRule()
    assert rule.permits("https://app.com", "app.com", secure=True)
    assert not rule.permits("http://app.com", "app.com", secure=True)
    assert rule.permits("http://app.com", "app.com", secure=False)
    assert rule.permits("https://app.com", "app.com", secure=False)


PATTERNS = st.one_of(
    ORIGINS.map(str),
    ORIGINS.map(str).map(str.upper),
    st.sampled_from(["*", "https://*.example.org", "https://app.com:443", "http://[::0001]"]),
)


@given(st.lists(PATTERNS, max_size=3), st.data())
def test_an_origin_that_is_known_by_its_text_passes_as_it_would_parsed(
    sources: list[str], data: st.DataObject
) -> None:
    patterns = tuple(map(OriginPattern.parse, sources))
    rule = OriginRule(allow=patterns)
    known = st.sampled_from(sources) if sources else st.nothing()
    others = st.sampled_from(
        [*NOT_ORIGINS, "https://app.com", "http://[::1]", "https://a.example.org"]
    )
    text = data.draw(st.one_of(known, ORIGINS.map(str), others))
    parsed = Origin.parse(text)
    fits = parsed is not None and any(pattern.matches(parsed) for pattern in patterns)
    assert rule.permits(text, "app.com", secure=True) == fits


def test_a_rule_knows_the_text_that_browsers_send_alone() -> None:
    patterns = map(OriginPattern.parse, ["https://App.com:443", "https://*.example.org", "*"])
    assert OriginRule(allow=tuple(patterns))._exact == {"https://app.com"}
